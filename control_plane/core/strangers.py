"""Strangers: connections on which no valid token has been seen, and how many of them an address may leave waiting.

`connections` enters each while it is the stranger's turn to speak: no request of it is here or being answered. Beyond
the limit those that have waited long are ended, the longest first, so that a fleet behind one address, whose agents all
dial at once and speak at once, loses none. Invariant: an address never has more than BURST times its limit.
"""

import time
from collections.abc import Callable
from typing import Protocol

from control_plane.core.addresses import limited_as

PATIENCE_SECONDS = 5.0
"""How long a stranger may take to speak whatever the number of others: half of what agents give their handshake."""
BURST = 32
"""With the limit of 512 that nobody has changed, 16,384: a fleet of 10,000 behind one address may dial at once."""

STRANGERS = "strangers"
"""The name of the table in the lifespan's state, where connections find it."""


class Stranger(Protocol):
    """A connection."""

    def turn_away(self) -> bool:
        """End it; False if its request is here and only waits for its turn."""
        ...


class _Waiting:
    """The strangers of one address."""

    __slots__ = ("since", "told")

    def __init__(self) -> None:
        self.since: dict[Stranger, float] = {}
        """In the order in which they began to wait."""
        self.told = False


class Strangers:
    """Those that wait, by address.

    `on_turned_away` is called with the address of each that is ended, and whether it is the first since that
    address had none waiting. Addresses for which `is_trusted` are those of proxies: not counted.
    """

    def __init__(
        self,
        max_waiting: int,
        on_turned_away: Callable[[str, bool], None],
        is_trusted: Callable[[str], bool] = lambda _address: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_waiting = max_waiting
        self._on_turned_away = on_turned_away
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self.is_trusted = is_trusted

    def wait(self, address: str, stranger: Stranger) -> None:
        """Note that it is the stranger's turn to speak; end one if too many of its address wait."""
        key = limited_as(address)
        waiting = self._waiting.setdefault(key, _Waiting())
        now = waiting.since[stranger] = self._clock()
        if len(waiting.since) > self._max_waiting:
            self._make_room(key, waiting, stranger, now)

    def leave(self, address: str, stranger: Stranger) -> None:
        """Note that it has spoken, or is gone."""
        key = limited_as(address)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.since.pop(stranger, None)
            if not waiting.since:
                del self._waiting[key]

    def count(self, address: str) -> int:
        """Return how many of an address wait."""
        waiting = self._waiting.get(limited_as(address))
        return len(waiting.since) if waiting else 0

    def _make_room(self, key: str, waiting: _Waiting, newest: Stranger, now: float) -> None:
        while (oldest := next(iter(waiting.since))) is not newest and now - waiting.since[oldest] >= PATIENCE_SECONDS:
            del waiting.since[oldest]
            if self._turn_away(key, waiting, oldest):
                return
        if len(waiting.since) > self._max_waiting * BURST:
            del waiting.since[newest]
            self._turn_away(key, waiting, newest)

    def _turn_away(self, key: str, waiting: _Waiting, stranger: Stranger) -> bool:
        if not stranger.turn_away():
            return False
        self._on_turned_away(key, not waiting.told)
        waiting.told = True
        return True
