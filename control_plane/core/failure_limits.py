"""Failure limits: how many requests with a wrong token or none an address may send before it is told to wait.

`api` and `ws` note each failure here, after they have looked at the token: a valid one is served whatever others behind
the same address do. A window begins with an address's first failure. Invariant: the memory has a bound, whoever fails.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from control_plane.core.addresses import limited_as

WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 20_000
"""Some 5 MiB. Beyond it the oldest windows are forgotten: tokens are safe by their length, not by this limit."""


@dataclass(slots=True)
class _Window:
    ends_at: float
    failures: int = 0


class FailureLimits:
    """Counts the failures of each address, for a window at a time.

    `on_limited` is told the address whose failures have just gone beyond `max_failures`, once a window.
    """

    def __init__(
        self, max_failures: int, on_limited: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = max_failures
        self._on_limited = on_limited
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        """In the order of their ends, for all last equally long."""

    def note(self, address: str) -> int:
        """Count a failure of `address`; return for how many seconds it has failed enough, 0 if it may go on."""
        now = self._clock()
        self._forget_ended(now)
        key = limited_as(address)
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MAX_ADDRESSES:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = _Window(now + WINDOW_SECONDS)
        window.failures += 1
        beyond = window.failures - self._max_failures
        if beyond <= 0:
            return 0
        if beyond == 1:
            self._on_limited(key)
        return max(1, math.ceil(window.ends_at - now))

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._windows)

    def _forget_ended(self, now: float) -> None:
        while self._windows:
            key = next(iter(self._windows))
            if self._windows[key].ends_at > now:
                return
            del self._windows[key]
