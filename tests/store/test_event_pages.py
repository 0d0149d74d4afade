"""Pages of events: found at the same cost however long the history and however rare what is sought."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import Session

from control_plane.core.events import EventKind
from control_plane.store import events
from control_plane.store.events import WantedEvents
from tests.support.access import REACH
from tests.support.history import ANYWHERE, FAILURE, PAGE, Probe, assert_flat, assert_indexed
from tests.support.store import NOW

PERIODS: list[dict[str, Any]] = [
    {},
    {"since": NOW + timedelta(milliseconds=60)},
    {"until": NOW + timedelta(milliseconds=60)},
    {"since": NOW + timedelta(milliseconds=50), "until": NOW + timedelta(milliseconds=60)},
    {"before_id": 180},
]


def page_of_events(**wanted: Any) -> Callable[[Session], Sequence[Any]]:
    return lambda db: events.list_events(db, WantedEvents(REACH, limit=PAGE, **wanted))


@pytest.mark.parametrize("period", PERIODS, ids=["ever", "since", "until", "between", "before an id"])
@pytest.mark.parametrize("kind", [None, "deploy_accepted", "deploy_failed", "agent_connected", "hostname_refused"])
@pytest.mark.parametrize(("project", "agent"), ANYWHERE)
def test_every_page_of_events_costs_the_same_after_a_long_history(
    small: Probe, large: Probe, project: str | None, agent: int | None, kind: str | None, period: dict[str, Any]
) -> None:
    kinds = EventKind(kind) if kind else None
    query = page_of_events(project_name=project, agent_id=agent, kind=kinds, **period)
    if (project or agent or kind) and not period:  # otherwise the table itself is in the order that is sought
        assert_indexed(small.plans(query), "event")
    assert_flat(small.cost(query), large.cost(query))


def test_the_only_failure_of_a_long_history_is_found_at_once(small: Probe, large: Probe) -> None:
    for place in ({}, {"agent_id": 4}, {"project_name": "p13"}, {"project_name": "p13", "agent_id": 4}):
        query = page_of_events(kind=EventKind.DEPLOY_FAILED, **place)
        assert_flat(small.cost(query), large.cost(query))
        with Session(large.engine) as session:
            assert [event.deployment_id for event in query(session)] == [FAILURE]
