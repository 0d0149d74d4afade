"""Organisations: root makes and lists them; everybody may read the one they belong to."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from control_plane.core.access import Actor
from control_plane.core.errors import FieldProblem, InvalidInputError
from control_plane.operations.context import ControlPlane
from control_plane.operations.tokens import require_whole_reach
from control_plane.store import organizations
from control_plane.store.models import Organization
from control_plane.store.organizations import NewOrganization

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


async def create_organization(plane: ControlPlane, actor: Actor, name: str) -> Organization:
    """Make an organisation. Raises ForbiddenError, InvalidInputError, NameTakenError."""
    require_whole_reach(actor)
    if not _NAME.fullmatch(name):
        reason = "must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit at each end"
        raise InvalidInputError(f"name: {reason}.", [FieldProblem("name", reason)])
    new = NewOrganization(name, datetime.now(UTC))
    audit = actor.concerns(f"organization {name}")
    organization_id = await plane.store.write(organizations.add_organizations, new, audit)
    return await plane.store.read(organizations.get_organization, organization_id)


async def list_organizations(plane: ControlPlane, actor: Actor, *, after_id: int, limit: int) -> Sequence[Organization]:
    """Return up to `limit` organisations with ids above `after_id`. Raises ForbiddenError."""
    require_whole_reach(actor)
    return await plane.store.read(organizations.list_organizations, after_id=after_id, limit=limit)
