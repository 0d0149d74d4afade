"""Grace: how long the end of the process may still take. One for all that waits between a signal and the exit.

`draining`, the server and the composition root wait through it, so that what they take together stays within
SHUTDOWN_GRACE_SECONDS and a moment, and an operator in a hurry cuts all of it short.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

MOMENT_SECONDS = 1.0
"""For what is nearly done: granted when the time is up, and to an operator in a hurry."""


class Grace:
    """Everything is called on the event loop."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long the end may take from `begin` on."""
        self._seconds = seconds
        self._until = math.inf
        self._over = asyncio.Event()

    def begin(self) -> None:
        """Start the clock; it is started once."""
        if self._until == math.inf:
            self._until = asyncio.get_running_loop().time() + self._seconds

    def end(self) -> None:
        """Wait for nothing any longer: somebody is in a hurry."""
        self._until = asyncio.get_running_loop().time()
        self._over.set()

    @property
    def left(self) -> float:
        """Seconds that are left, never below 0."""
        return max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def allows(self, work: Coroutine[Any, Any, object], *, spare: float = 0.0, at_least: float = 0.0) -> bool:
        """Do `work` until `spare` seconds before the grace is over, then cancel it; returns whether it was done.

        `at_least`: seconds that it is given even when the grace is over or is cut short. Raises what `work` raises.
        """
        doing, cut_short = asyncio.ensure_future(work), asyncio.ensure_future(self._over.wait())
        try:
            limit = max(self.left - spare, at_least)
            await asyncio.wait({doing, cut_short}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if cut_short.done() and not doing.done():
                await asyncio.wait({doing}, timeout=at_least)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            doing.cancel()
            cut_short.cancel()
            await asyncio.gather(doing, cut_short, return_exceptions=True)
