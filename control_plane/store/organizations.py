"""Organisations' rows. They are made and listed by root, and read by everybody for their own name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.errors import NameTakenError, OrganizationNotFoundError
from control_plane.store.models import Organization
from control_plane.store.tables import organization_table


@dataclass(frozen=True, slots=True)
class NewOrganization:
    """An organisation that is to be."""

    name: str
    at: datetime


def add_organizations(db: Connection, items: Sequence[NewOrganization]) -> list[int | Exception]:
    """Store organisations and return their ids. NameTakenError for a name that another has."""
    return [_add(db, item) for item in items]


def _add(db: Connection, item: NewOrganization) -> int | Exception:
    organization = organization_table.c
    if db.execute(select(organization.id).where(organization.name == item.name)).first() is not None:
        return NameTakenError(f"There is an organisation named '{item.name}' already: choose another name.")
    added = db.execute(insert(organization_table).values(name=item.name, created_at=item.at))
    return int(added.inserted_primary_key[0])  # type: ignore[index]


def get_organization(db: Session, organization_id: int) -> Organization:
    """Return the organisation. Raises OrganizationNotFoundError."""
    found = db.get(Organization, organization_id)
    if found is None:
        raise OrganizationNotFoundError(
            f"There is no organisation with the id {organization_id}; GET /organizations lists them."
        )
    return found


def list_organizations(db: Session, *, after_id: int, limit: int) -> Sequence[Organization]:
    """Return up to `limit` organisations with ids above `after_id`, lowest first."""
    query = select_rows(Organization).where(col(Organization.id) > after_id)
    return db.exec(query.order_by(col(Organization.id)).limit(limit)).all()
