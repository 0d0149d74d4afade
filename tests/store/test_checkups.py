"""What health checks leave on agents' rows: many in one change, and none over a connection that has ended."""

from pathlib import Path
from typing import Any

import pytest

from control_plane.core.states import AgentStatus
from control_plane.store import agents
from control_plane.store.agents import Departure
from control_plane.store.checkups import CheckAnswer, Checkup, Standing, note_checkup
from control_plane.store.store import Store
from tests.support.access import REACH
from tests.support.store import NOW, add_agent, arrival, sql

TOLD = {"latency_seconds": 0.01, "version": "1.0.0", "disk_free_bytes": 2**63 - 1}


def answers(*who: tuple[int, str], told: Any = TOLD) -> Checkup:
    return Checkup({each[0]: CheckAnswer(*each, told, NOW) for each in who}, {})


def standings(*who: tuple[int, str], missed: int, status: AgentStatus) -> Checkup:
    return Checkup({}, {each[0]: Standing(*each, missed, status) for each in who})


async def row(store: Store, agent_id: int) -> tuple[Any, ...]:
    agent = await store.read(agents.get_agent, REACH, agent_id)
    return agent.status, agent.missed_checks, agent.health, agent.health_at


@pytest.fixture
async def three(store: Store) -> Store:
    for name in ("a", "b", "c"):
        await add_agent(store, name, connection=name)
    return store


async def test_one_change_keeps_what_many_have_told_and_missed(three: Store) -> None:
    both = Checkup(
        answers((1, "a"), (2, "b")).answers, standings((3, "c"), missed=3, status=AgentStatus.UNRESPONSIVE).standings
    )
    await three.write(note_checkup, both)
    assert [await row(three, n) for n in (1, 2, 3)] == [
        ("online", 0, TOLD, NOW),
        ("online", 0, TOLD, NOW),
        ("unresponsive", 3, None, None),
    ]
    listed, total = await three.read(agents.list_agents, REACH, labels=(), status="unresponsive", after_id=0, limit=10)
    assert ([agent.id for agent in listed], total) == ([3], 1)


async def test_what_was_asked_on_an_earlier_connection_changes_nothing(three: Store) -> None:
    await three.write(agents.arrive, arrival("a", connection="newer"))
    await three.write(agents.depart, Departure(2, "b", NOW))
    for who in ((1, "a"), (2, "b")):
        await three.write(note_checkup, answers(who))
        await three.write(note_checkup, standings(who, missed=3, status=AgentStatus.UNRESPONSIVE))
    assert await row(three, 1) == ("online", 0, None, None)
    assert await row(three, 2) == ("offline", 0, None, None)


async def test_an_agent_that_connects_again_is_online_and_what_it_told_before_is_still_there(three: Store) -> None:
    await three.write(note_checkup, answers((1, "a")))
    await three.write(note_checkup, standings((1, "a"), missed=4, status=AgentStatus.UNRESPONSIVE))
    await three.write(agents.arrive, arrival("a", connection="newer"))
    assert await row(three, 1) == ("online", 0, TOLD, NOW)


async def test_each_change_of_standing_is_an_event_and_each_further_miss_is_none(three: Store, database: Path) -> None:
    for missed in (1, 2, 3, 4):
        status = AgentStatus.UNRESPONSIVE if missed >= 3 else AgentStatus.ONLINE
        await three.write(note_checkup, standings((1, "a"), (2, "gone"), missed=missed, status=status))
    await three.write(note_checkup, standings((1, "a"), missed=0, status=AgentStatus.ONLINE))
    told = sql(database, "SELECT kind, agent_id, message FROM event WHERE kind LIKE '%responsive' ORDER BY id")
    assert told == [
        (
            "agent_unresponsive",
            1,
            "Agent 1 (a) is connected and left 3 health checks unanswered; it gets no new project.",
        ),
        ("agent_responsive", 1, "Agent 1 (a) answers again."),
    ]


async def test_a_restart_marks_the_unresponsive_offline_too(three: Store, database: Path) -> None:
    await three.write(note_checkup, standings((1, "a"), missed=3, status=AgentStatus.UNRESPONSIVE))
    assert await three.write(agents.forget_connections, None) == 3
    assert sql(database, "SELECT DISTINCT status, connection_id FROM agent") == [("offline", "")]
