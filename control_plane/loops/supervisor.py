"""Runs the loops: each again and again by the clock, logged, backed off and started anew when it fails.

A loop that dies must not take the server with it, nor die unseen: readiness asks `stale_loops`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from control_plane.core.errors import ControlPlaneError

MAX_BACKOFF_SECONDS = 30.0
STALE_INTERVALS = 5
STALE_SECONDS = 30.0
"""A loop is stale when it has not succeeded for this long and for this many of its intervals."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Loop:
    """One job of the clock: `run_once` every `interval_seconds`, the first time after `first_after_seconds`."""

    name: str
    interval_seconds: float
    run_once: Callable[[], Awaitable[None]]
    first_after_seconds: float = 0.0


@dataclass(frozen=True)
class Age:
    """How many seconds ago a loop last succeeded, and beyond how many it is stale."""

    loop: str
    seconds: float
    max_seconds: float


class Supervisor:
    """Starts loops and knows when each last succeeded."""

    def __init__(self, loops: Sequence[Loop], clock: Callable[[], float]) -> None:
        self._loops = loops
        self._clock = clock
        self._succeeded_at = {loop.name: clock() for loop in loops}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start every loop, on the running event loop."""
        self._tasks = [asyncio.create_task(self._keep(loop), name=f"loop-{loop.name}") for loop in self._loops]

    async def stop(self) -> None:
        """Cancel the loops and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def ages(self) -> list[Age]:
        """Return how long ago each loop last succeeded; a loop that never did counts from the start."""
        now = self._clock()
        return [
            Age(
                loop.name,
                now - self._succeeded_at[loop.name],
                max(STALE_SECONDS, STALE_INTERVALS * loop.interval_seconds),
            )
            for loop in self._loops
        ]

    def stale_loops(self) -> list[str]:
        """Return the names of loops that have not succeeded for too long."""
        return [age.loop for age in self.ages() if age.seconds > age.max_seconds]

    async def _keep(self, loop: Loop) -> None:
        failures = 0
        await asyncio.sleep(loop.first_after_seconds)
        while True:
            try:
                await loop.run_once()
            except ControlPlaneError as error:
                failures += 1
                log.warning("loop_failed", loop=loop.name, error=error.detail)
            except Exception:
                failures += 1
                log.exception("loop_failed", loop=loop.name)
            else:
                failures = 0
                self._succeeded_at[loop.name] = self._clock()
            pause = loop.interval_seconds * 2 ** min(failures, 10)
            await asyncio.sleep(pause if failures == 0 else min(pause, MAX_BACKOFF_SECONDS))
