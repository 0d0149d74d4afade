"""Pages of long histories, newest first, for `jobs` and `deployments`, and what `events` and `audit` share with them.

A page costs the same however long the history is and however rare what it asks for.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    SQLColumnExpression,
    Table,
    TextClause,
    func,
    literal,
    select,
)
from sqlmodel import Session, col
from sqlmodel import select as select_rows
from sqlmodel.sql.expression import SelectOfScalar

from control_plane.core.access import Reach
from control_plane.store.models import Deployment, Job
from control_plane.store.reaching import limits
from control_plane.store.tables import agent_table, placement_table, table_of

Row = TypeVar("Row", Job, Deployment)
T = TypeVar("T")

_agent = agent_table.c
_place = placement_table.c


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page is to hold: rows within reach older than `before_id` (None: from the newest on), at most `limit`."""

    reach: Reach
    project_name: str | None
    agent_id: int | None
    status: str | None
    before_id: int | str | None
    limit: int


def newest(
    model: type[Row], wanted: Wanted, *, few: TextClause | None = None, many: TextClause | None = None
) -> SelectOfScalar[Row]:
    """Return the query of a page.

    Where a partial index holds rows of the wanted status, its condition is given: as `few` when those are looked
    up and sorted, as `many` when the index has them in order.
    """
    place: SQLColumnExpression[Any] = col(model.id)
    project: SQLColumnExpression[Any] = col(model.project_name)
    if few is not None:
        place, project = unindexed(place), unindexed(project)
    query = select_rows(model).order_by(place.desc()).limit(wanted.limit)
    query = query.where(*_reached(model, wanted, few is not None))
    if wanted.project_name is not None:
        query = query.where(project == name_if_placed(wanted.project_name, wanted.agent_id, wanted.reach))
    if wanted.agent_id is not None:
        query = query.where(col(model.agent_id) == agent_if_there(wanted.agent_id, wanted.reach))
    if wanted.status is not None:
        query = query.where(col(model.status) == wanted.status)
    for condition in (few, many):
        if condition is not None:
            query = query.where(condition)
    if wanted.before_id is not None:
        query = query.where(place < wanted.before_id)
    return query


def _reached(model: type[Row], wanted: Wanted, few: bool) -> list[ColumnElement[bool]]:
    """Return the conditions of reach; an agent's rows, and the few active ones, are found without its index."""
    organization: SQLColumnExpression[Any] = col(model.organization_id)
    if few or (wanted.agent_id is not None and wanted.project_name is None):
        organization = unindexed(organization)
    return [organization == wanted.reach.organization_id, *limits(table_of(model), wanted.reach)]


def unindexed(column: SQLColumnExpression[T]) -> ColumnElement[T]:
    """Return the column as an expression, which no index is followed for: another one leads to what is sought."""
    return func.coalesce(column, column)


def agent_if_there(agent_id: int, reach: Reach) -> ScalarSelect[int]:
    """Return what an agent's id must equal in a list: none at all if it is another organisation's.

    Without this, that agent's whole history would be walked through to find that none of it is within reach.
    """
    there = select(_agent.id).where(_agent.id == agent_id, _agent.organization_id == reach.organization_id)
    return there.scalar_subquery()


def name_if_placed(project_name: str, agent_id: int | None, reach: Reach) -> ColumnElement[str] | str:
    """Return what a project's name must equal in a list: no name at all if it was never on the given agent.

    Without this, a page for a project on an agent that never had it would be sought along its whole history. Of an
    agent that was forgotten the places are gone, and the history is sought.
    """
    if agent_id is None:
        return project_name
    placed = select(_place.project_name).where(
        _place.organization_id == reach.organization_id,
        _place.project_name == project_name,
        _place.agent_id == agent_id,
    )
    gone = select(literal(project_name)).where(
        _agent.id == agent_id, _agent.organization_id == reach.organization_id, _agent.forgotten_at.is_not(None)
    )
    return func.coalesce(placed.scalar_subquery(), gone.scalar_subquery())


def first_id_since(db: Session, table: Table, at: datetime) -> int:
    """Return the lowest id that a row of `table` with `at` at this time or later has, or one past the last.

    It halves the ids, for times rise with them. Where the clock was set back they do not, and what lies around
    that moment may be missed.
    """
    # Asked for together, both ends would be sought through a whole index.
    low = db.execute(select(func.min(table.c.id))).scalar_one() or 0
    high = (db.execute(select(func.max(table.c.id))).scalar_one() or -1) + 1
    while low < high:
        middle = (low + high) // 2
        found_id, found_at = db.execute(
            select(table.c.id, table.c.at).where(table.c.id >= middle).order_by(table.c.id).limit(1)
        ).one()
        if found_at < at:
            low = found_id + 1
        else:
            high = middle
    return int(low)
