"""The bus of a single process: wake-ups are events in its memory."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from control_plane.bus.base import Subscription, Topic


class _Ear:
    """A set event stays set until it is waited for, so that nothing between subscribe and wait is missed."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for the next wake-up since the last call; False when none came in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        return True


class MemoryBus:
    """Implements Bus. Memory is held only for ids that somebody waits for."""

    def __init__(self) -> None:
        self._ears: dict[tuple[Topic, str], set[_Ear]] = {}

    def publish(self, topic: Topic, ids: Iterable[str]) -> None:
        """Wake everybody who waits for one of the ids."""
        for id_ in ids:
            for ear in self._ears.get((topic, id_), ()):
                ear.event.set()

    def wake_all(self) -> None:
        """Wake everybody who waits for anything."""
        for ears in self._ears.values():
            for ear in ears:
                ear.event.set()

    @contextmanager
    def subscribe(self, topic: Topic, id_: str) -> Iterator[Subscription]:
        """Listen for an id for the length of a `with` block."""
        ear = _Ear()
        self._ears.setdefault((topic, id_), set()).add(ear)
        try:
            yield ear
        finally:
            ears = self._ears[topic, id_]
            ears.discard(ear)
            if not ears:
                del self._ears[topic, id_]
