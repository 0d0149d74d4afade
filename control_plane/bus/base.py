"""What every bus does: wake whoever waits for an id. Lost wake-ups cost delay and nothing else.

Publishers tell only of what is committed; whoever is woken reads the store again.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What an id is the id of."""

    JOB_FINISHED = "job_finished"


class Subscription(Protocol):
    """One waiter's ear."""

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for the next wake-up since the last call; False when none came in time."""
        ...


class Bus(Protocol):
    """Carries wake-ups between those that change and those that wait."""

    def publish(self, topic: Topic, ids: Iterable[str]) -> None:
        """Wake everybody who waits for one of the ids. Never blocks."""
        ...

    def wake_all(self) -> None:
        """Wake everybody in this process, whatever they wait for. Never blocks."""
        ...

    def subscribe(self, topic: Topic, id_: str) -> AbstractContextManager[Subscription]:
        """Listen for an id for the length of a `with` block; subscribe first, then read the store."""
        ...
