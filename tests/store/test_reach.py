"""No read that a user can cause forgets whose rows it looks at: every SELECT has the organisation as a condition.

The reads are found, not listed: functions of the store that take a reach, and all that the edges and the operations
read by. What needs no reach is on a short list, with its reason.
"""

import ast
import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Join, Select, Table, event
from sqlalchemy.sql import visitors
from sqlmodel import Session

from control_plane import store
from control_plane.core.access import Reach
from control_plane.core.errors import NotFoundError
from control_plane.operations import repeating, retaining
from control_plane.store import audit, events, jobs, organizations, tokens
from control_plane.store.audit import WantedAudit
from control_plane.store.events import WantedEvents
from control_plane.store.tables import (
    agent_table,
    audit_table,
    deployment_table,
    event_table,
    idempotency_table,
    job_table,
    placement_table,
    token_table,
)
from tests.support.history import Probe

Read = Callable[..., Any]
OWNED = {
    agent_table,
    audit_table,
    deployment_table,
    placement_table,
    job_table,
    event_table,
    token_table,
    idempotency_table,
}
REACH = Reach(1, ("p*",), (("env", "prod"),))
ARGUMENTS: dict[str, list[Any]] = {
    "reach": [Reach(1), REACH],
    "wanted": [
        WantedEvents(reach, 5, agent_id=agent, project_name=project)
        for reach in (Reach(1), REACH)
        for agent, project in ((None, None), (4, None), (None, "p3"), (4, "p3"))
    ],
    "wanted of the audit": [
        WantedAudit(REACH, 5, outcome=outcome, token_id=token, action=action)
        for outcome, token, action in (
            (None, None, None),
            ("not_allowed", None, None),
            (None, 1, None),
            (None, None, "deploy"),
        )
    ],
    "agent_id": [4],
    "deployment_id": [3],
    "job_id": [f"{3:036}"],
    "token_id": [1],
    "project_name": ["p3"],
    "folded_name": ["p3"],
    "most_agents": [5],
    "status": [None],
    "labels": [(), (("env", "prod"),)],
    "after_id": [0],
    "before_id": [None],
    "after": [None, "p1"],
    "limit": [5],
}
"""With which the reads are tried, each value of the first with the first of the others, and so on."""
NEEDS_NO_REACH = {
    jobs.count_queued: "a gauge of /metrics, which is for the first organisation's unlimited tokens alone",
    organizations.get_organization: "asked for the caller's own, or by root",
    organizations.list_organizations: "for root alone",
    tokens.list_changed_tokens: "the token book, which is asked by a token's digest",
    tokens.get_owner: "for root alone, which manages the tokens of every organisation",
    repeating._used: "an Idempotency-Key with its organisation",
    events.find_last_event: "the control plane's own starts and stops",
}


def modules(package: Any) -> Iterator[Any]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not found.ispkg:
            yield importlib.import_module(found.name)


def reads_with_reach() -> list[Read]:
    """Return the queries of the store that take a reach."""
    return [
        function
        for module in modules(store)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if "db" in inspect.signature(function).parameters
        if {"reach", "wanted"} & set(inspect.signature(function).parameters)
    ]


def read_by_users() -> set[Read]:
    """Return what api, ws and operations give to `store.read`, found in their source."""
    found = set()
    for floor in ("api", "operations", "ws"):
        for module in modules(importlib.import_module(f"control_plane.{floor}")):
            tree = ast.parse(Path(module.__file__).read_text())
            local = {
                target.id: node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("store.read"):
                    query = node.args[0]
                    while isinstance(query, ast.Name) and query.id in local:
                        query = local[query.id]
                    if module is retaining:  # picks its queries from a table of its own
                        continue
                    found.add(eval(ast.unparse(query), vars(module)))  # noqa: S307 - our own source
    return found


def test_all_that_users_can_read_by_takes_a_reach_or_says_why_not() -> None:
    used = read_by_users()
    assert len(used) > 20, "looking in the wrong place"
    without = {query for query in used if {"reach", "wanted"}.isdisjoint(inspect.signature(query).parameters)}
    assert without == set(NEEDS_NO_REACH)


@pytest.mark.parametrize(
    "read", reads_with_reach(), ids=lambda read: f"{read.__module__.rpartition('.')[2]}.{read.__name__}"
)
def test_each_select_has_the_organisation_as_a_condition(small: Probe, read: Read) -> None:
    assert_bound(small, read)


def assert_bound(probe: Probe, read: Read) -> None:
    """Run a read in several ways, and assert that no SELECT of it looks at rows of whatever organisation."""
    asked: list[Select[Any]] = []

    def note(_connection: object, statement: Any, *_rest: object) -> None:
        asked.extend(part for part in visitors.iterate(statement) if isinstance(part, Select))

    event.listen(probe.engine, "before_execute", note)
    try:
        for arguments in calls(read):
            # What is not there is told after it was asked for.
            with Session(probe.engine) as db, contextlib.suppress(NotFoundError):
                read(db, **arguments)
    finally:
        event.remove(probe.engine, "before_execute", note)
    owned = [select for select in asked if tables_of(select) & OWNED]
    assert owned, "nothing was asked"
    for select in owned:
        assert is_bound(select), str(select)


def calls(read: Read) -> Iterator[dict[str, Any]]:
    names = [name for name in inspect.signature(read).parameters if name != "db"]
    of_audit = {"wanted": "wanted of the audit"} if read.__module__ == audit.__name__ else {}
    values = {name: ARGUMENTS[of_audit.get(name, name)] for name in names}
    for number in range(max(map(len, values.values()))):
        yield {name: given[min(number, len(given) - 1)] for name, given in values.items()}


def tables_of(select: Select[Any]) -> set[Table]:
    found, froms = set(), list(select.get_final_froms())
    while froms:
        each = froms.pop()
        if isinstance(each, Join):
            froms += [each.left, each.right]
        elif isinstance(each, Table):
            found.add(each)
    return found


def is_bound(select: Select[Any]) -> bool:
    """Whether its conditions name the organisation, or a row of the SELECT around it."""
    if select.whereclause is None:
        return False
    own = tables_of(select) - set(select._correlate)
    parts: list[Any] = list(visitors.iterate(select.whereclause))
    columns = [part for part in parts if getattr(part, "table", None) is not None]
    return any(column.name == "organization_id" or column.table not in own for column in columns)


def test_a_select_without_it_would_be_found(small: Probe) -> None:
    def forgets(db: Session, reach: Reach, agent_id: int) -> object:
        return db.execute(Select(job_table.c.id).where(job_table.c.agent_id == agent_id))

    with pytest.raises(AssertionError, match="FROM job"):
        assert_bound(small, forgets)
