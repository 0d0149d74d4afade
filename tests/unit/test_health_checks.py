"""Whose turn it is to be asked, and what becomes of it when this process itself was late."""

import asyncio
import itertools
from collections import Counter

import pytest

from control_plane.bus.memory import MemoryBus
from control_plane.core.metrics import Metrics
from control_plane.core.protocol import Response, ResponseStatus
from control_plane.fleet.dispatcher import Dispatcher
from control_plane.fleet.health import LATE_SECONDS, MISSES, HealthChecks, next_turn
from control_plane.fleet.recorder import Recorder
from control_plane.store.store import Store
from tests.support.memory_socket import MemorySocket, session_of
from tests.support.store import database, store

__all__ = ["database", "store"]  # fixtures


@pytest.mark.parametrize("first_id", [1, 123_456])
@pytest.mark.parametrize("step", [1, 2, 7, 60, 100])
def test_ten_thousand_agents_are_spread_evenly_over_the_interval(first_id: int, step: int) -> None:
    ids = range(first_id, first_id + 10_000 * step, step)
    each_second = Counter(int(next_turn(agent_id, 1_000_000.0, 60) - 1_000_000) for agent_id in ids)
    assert len(each_second) == 60
    assert max(each_second.values()) <= 1.2 * 10_000 / 60


def test_a_few_agents_are_not_asked_at_once() -> None:
    turns = sorted(next_turn(agent_id, 0.0, 60) for agent_id in range(1, 11))
    assert min(later - earlier for earlier, later in itertools.pairwise(turns)) > 2


def test_an_agents_turn_is_always_at_the_same_point_of_the_interval() -> None:
    now, turns = 500.0, []
    for _ in range(10):
        now = next_turn(42, now, 60)
        turns.append(now)
    assert [later - earlier for earlier, later in itertools.pairwise(turns)] == pytest.approx([60] * 9)
    assert next_turn(42, turns[0] - 0.001, 60) == pytest.approx(turns[0])


class Rounds:
    """Agents in memory whose turns come when a test says so."""

    def __init__(self, store: Store, agents: int) -> None:
        self.metrics = Metrics("0")
        self.dispatcher = Dispatcher(store, Recorder(store, MemoryBus(), self.metrics))
        self.checks = HealthChecks(self.dispatcher, self.metrics, 60)
        self.sockets = [MemorySocket() for _ in range(agents)]
        self.sessions = [session_of(socket, n) for n, socket in enumerate(self.sockets)]
        for session in self.sessions:
            self.dispatcher.attach(session, has_work=False)

    async def turn(self, *, late_seconds: float = 0.0) -> None:
        """Have every agent's turn come, and acknowledge what it is sent."""
        for session in self.sessions:
            session.pulse.due_at = asyncio.get_running_loop().time() - late_seconds
        await self.checks.take_turns(self.sessions)
        for session, socket in zip(self.sessions, self.sockets, strict=True):
            for command in socket.commands:
                self.dispatcher.acknowledged(session, command["id"])

    def answer(self, number: int, check: int = -1) -> None:
        """Have an agent answer one of the checks that it was sent, by default the last."""
        check_id = self.sockets[number].commands[check]["id"]
        self.sessions[number].pulse.heard = True
        self.checks.answered(self.sessions[number], Response(job_id=check_id, status=ResponseStatus.COMPLETED))

    def status_of(self, number: int) -> str | None:
        """Return the standing that is to be stored now, None if it has not changed."""
        checkup = self.checks.take_checkup()
        return checkup.standings[number].status if checkup and number in checkup.standings else None


@pytest.fixture
async def rounds(store: Store) -> Rounds:
    return Rounds(store, 3)


async def test_a_new_connection_is_asked_when_its_turn_comes_and_not_at_once(rounds: Rounds) -> None:
    await rounds.checks.take_turns(rounds.sessions)
    now = asyncio.get_running_loop().time()
    assert all(socket.commands == [] for socket in rounds.sockets)
    assert all(now < session.pulse.due_at <= now + 60 for session in rounds.sessions)


async def test_only_the_agents_that_miss_three_in_a_row_are_unresponsive(rounds: Rounds) -> None:
    for turn in range(MISSES):
        await rounds.turn()
        rounds.answer(0)
        if turn == 1:
            rounds.answer(1)
    await rounds.turn()
    assert [session.pulse.missed for session in rounds.sessions] == [0, 1, 3]
    assert rounds.status_of(2) == "unresponsive"
    assert rounds.checks.unresponsive_count == 1


async def test_an_agent_is_online_again_with_its_next_answer_without_waiting_for_its_turn(rounds: Rounds) -> None:
    for _ in range(MISSES + 1):
        await rounds.turn()
    assert rounds.status_of(0) == "unresponsive"
    rounds.answer(0, check=0)  # late by three turns
    await rounds.checks.take_turns(rounds.sessions)
    assert rounds.status_of(0) == "online"
    assert rounds.checks.unresponsive_count == 2


async def test_what_an_agent_says_late_is_kept_with_the_time_it_took(rounds: Rounds) -> None:
    await rounds.turn()
    await rounds.turn()
    rounds.answer(0, check=0)
    checkup = rounds.checks.take_checkup()
    assert checkup is not None
    assert checkup.answers[0].health["latency_seconds"] > 0


async def test_a_stall_of_this_process_makes_no_agent_miss_and_ends_without_a_burst(rounds: Rounds) -> None:
    await rounds.turn()
    for _ in range(MISSES + 1):
        await rounds.turn(late_seconds=LATE_SECONDS + 1)
    assert [len(socket.commands) for socket in rounds.sockets] == [1, 1, 1]
    assert [session.pulse.missed for session in rounds.sessions] == [0, 0, 0]


async def test_an_agent_that_was_not_asked_misses_nothing(rounds: Rounds) -> None:
    rounds.sockets[0].writable = False
    for _ in range(MISSES + 2):
        await rounds.turn()
    assert (rounds.sockets[0].commands, rounds.sessions[0].pulse.missed) == ([], 0)


async def test_what_an_agent_leaves_unanswered_costs_no_growing_memory(rounds: Rounds) -> None:
    for _ in range(50):
        await rounds.turn()
    assert [len(session.pulse.asked) for session in rounds.sessions] == [MISSES] * 3
    rounds.answer(0, check=0)
    late = rounds.metrics.registry.get_sample_value("instadeploy_health_checks_total", {"outcome": "late"})
    assert late == 1


async def test_what_could_not_be_stored_is_stored_later_and_the_newer_wins(rounds: Rounds) -> None:
    await rounds.turn()
    rounds.answer(0)
    rounds.answer(1)
    first = rounds.checks.take_checkup()
    assert first is not None
    await rounds.turn()
    rounds.answer(1)
    newer = rounds.checks._answers[1]
    rounds.checks.keep(first)
    again = rounds.checks.take_checkup()
    assert again is not None
    assert again.answers == {0: first.answers[0], 1: newer}
    assert rounds.checks.take_checkup() is None
