"""Loops that fail start anew with growing pauses, go stale where readiness sees it, and take no other along.

The event loop's clock jumps to the next timer, so that hours of pauses take no time.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from control_plane.core.errors import StorageFullError, StoreUnavailableError
from control_plane.loops.supervisor import MAX_BACKOFF_SECONDS, STALE_INTERVALS, STALE_SECONDS, Loop, Supervisor


class _Jumping(selectors.DefaultSelector):
    """Passes waiting time on to the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


@pytest.fixture
def loop() -> Iterator[_Loop]:
    made = _Loop()
    yield made
    made.close()


class Work:
    """Notes when it runs; does as `plan` says, run by run, and succeeds when nothing is planned."""

    def __init__(self, clock: Callable[[], float], *plan: Exception | Callable[[], Awaitable[None]]) -> None:
        self.clock = clock
        self.plan = list(plan)
        self.ran_at: list[float] = []

    async def __call__(self) -> None:
        self.ran_at.append(round(self.clock(), 3))
        planned = self.plan.pop(0) if self.plan else None
        if isinstance(planned, Exception):
            raise planned
        if planned is not None:
            await planned()


def supervise(loop: _Loop, seconds: float, *loops: Loop) -> list[str]:
    """Let the loops run for so many seconds; returns which are stale then."""

    async def main() -> list[str]:
        supervisor = Supervisor(loops, loop.time)
        supervisor.start()
        await asyncio.sleep(seconds)
        stale = supervisor.stale_loops()
        await supervisor.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return stale

    with capture_logs() as logs:
        stale = loop.run_until_complete(main())
    assert {entry["event"] for entry in logs} <= {"loop_failed"}
    return stale


def test_a_loop_runs_at_once_and_then_by_its_interval(loop: _Loop) -> None:
    work = Work(loop.time)
    assert supervise(loop, 3.5, Loop("work", 1, work)) == []
    assert work.ran_at == [0, 1, 2, 3]


def test_a_loop_may_begin_later_and_is_fresh_until_then(loop: _Loop) -> None:
    work = Work(loop.time)
    assert supervise(loop, 99, Loop("work", 60, work, first_after_seconds=100)) == []
    assert work.ran_at == []
    supervise(loop, 170, Loop("work", 60, work, first_after_seconds=100))
    assert work.ran_at == [199, 259]


def test_a_refusal_of_the_store_is_logged_without_a_traceback(loop: _Loop) -> None:
    work = Work(loop.time, StorageFullError("The disk is full."))
    supervisor = Supervisor([Loop("work", 60, work)], loop.time)

    async def main() -> None:
        supervisor.start()
        await asyncio.sleep(1)
        await supervisor.stop()

    with capture_logs() as logs:
        loop.run_until_complete(main())
    assert logs == [{"event": "loop_failed", "loop": "work", "error": "The disk is full.", "log_level": "warning"}]


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), RuntimeError("a fault of ours")])
def test_a_failing_loop_backs_off_and_starts_anew_at_its_pace_once_it_succeeds(loop: _Loop, error: Exception) -> None:
    work = Work(loop.time, *[error] * 6)
    supervise(loop, 95, Loop("work", 1, work))
    assert work.ran_at[:9] == [0, 2, 6, 14, 30, 60, 90, 91, 92]


def test_no_pause_after_a_failure_is_longer_than_its_bound(loop: _Loop) -> None:
    work = Work(loop.time, *[RuntimeError()] * 2000)
    supervise(loop, 3600, Loop("work", 1, work))
    pauses = [later - earlier for earlier, later in zip(work.ran_at, work.ran_at[1:], strict=False)]
    assert max(pauses) == MAX_BACKOFF_SECONDS
    assert len(work.ran_at) > 100


async def _for_ever() -> None:
    await asyncio.Event().wait()


def test_a_loop_that_fails_and_one_that_hangs_go_stale_and_the_others_go_on(loop: _Loop) -> None:
    good = Work(loop.time)
    failing = Work(loop.time, *[RuntimeError()] * 100)
    hanging = Work(loop.time, _for_ever)
    loops = [Loop("failing", 1, failing), Loop("good", 1, good), Loop("hanging", 1, hanging)]
    assert supervise(loop, STALE_SECONDS + 1, *loops) == ["failing", "hanging"]
    assert len(good.ran_at) >= STALE_SECONDS
    assert len(hanging.ran_at) == 1


def test_a_loop_is_given_time_before_it_counts_as_stale_and_is_fresh_again_after_a_success(loop: _Loop) -> None:
    assert supervise(loop, STALE_SECONDS - 1, Loop("failing", 1, Work(loop.time, *[RuntimeError()] * 100))) == []
    recovered = Work(loop.time, *[RuntimeError()] * 6)
    assert supervise(loop, 91, Loop("recovered", 1, recovered)) == []


def test_a_slow_loop_is_stale_by_its_own_interval(loop: _Loop) -> None:
    hanging = Loop("hanging", 60, Work(loop.time, _for_ever))
    assert supervise(loop, STALE_INTERVALS * 60 - 1, hanging) == []
    hanging = Loop("hanging", 60, Work(loop.time, _for_ever))
    assert supervise(loop, STALE_INTERVALS * 60 + 1, hanging) == ["hanging"]
