"""Cooldowns: agents that flooded and may not connect again for a moment. Kept by organisation and hostname, in memory.

The ws edge starts one when it closes a flooding socket and asks before it admits one: an agent that came back at
once, to flood again until it is noticed, would cost everybody else as much as one that is never closed.
"""

import math
import time
from collections.abc import Callable

COOLDOWN_SECONDS = 10.0
"""A flood is noticed after some 40 ms of work: with this pause it takes less than a hundredth of one core."""


class Cooldowns:
    """Holds agents out for COOLDOWN_SECONDS each, and no longer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[tuple[int, str], float] = {}
        """In order of their ends, for all last equally long."""

    def start(self, place: tuple[int, str]) -> None:
        """Keep an agent out from now on."""
        now = self._clock()
        while self._ends and self._ends[first := next(iter(self._ends))] <= now:
            del self._ends[first]
        self._ends.pop(place, None)
        self._ends[place] = now + COOLDOWN_SECONDS

    def left(self, place: tuple[int, str]) -> int:
        """Return for how many more seconds an agent is kept out, rounded up; 0 when it may come in."""
        return max(0, math.ceil(self._ends.get(place, 0.0) - self._clock()))
