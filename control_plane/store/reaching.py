"""What of the rows a caller can see: every query that users cause takes a Reach and asks here for its conditions.

Queries of the control plane's own, such as the dispatcher's, take none and are called by no edge. Invariant: the
organisation is a condition of each, whatever else limits the caller.
"""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, func, or_, select

from control_plane.core.access import Reach
from control_plane.store.tables import agent_label_table, agent_table

_label = agent_label_table.c


def within(table: FromClause, reach: Reach) -> list[ColumnElement[bool]]:
    """Return the conditions for rows of `table`, which has an `organization_id`, to be within reach."""
    return [table.c.organization_id == reach.organization_id, *limits(table, reach)]


def limits(table: FromClause, reach: Reach) -> list[ColumnElement[bool]]:
    """Return the conditions beyond the organisation: none for a caller that reaches all of it."""
    conditions: list[ColumnElement[bool]] = []
    if reach.projects and "project_name" in table.c:
        name = func.lower(table.c.project_name)
        conditions.append(or_(*(name.like(_like(pattern), escape="\\") for pattern in reach.projects)))
    agent: Any = table.c.id if table is agent_table else table.c.get("agent_id")
    if agent is not None:
        conditions += [_has_label(agent, key, value) for key, value in reach.labels]
    return conditions


def _like(pattern: str) -> str:
    escaped = pattern.lower().replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _has_label(agent: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    # As an expression, so that no index of agents is followed: the order of the page is worth more.
    having = select(_label.agent_id).where(_label.key == key, _label.value == value)
    return func.coalesce(agent, agent).in_(having)
