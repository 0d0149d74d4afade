"""The group-commit writer: one thread, one connection, one commit for all that wait.

Everybody who changes a record submits a change here and waits for its commit. A change is a function that
applies a list of like items at once; what a batch cannot do together is done again one by one, so that a bad
item fails alone. Nothing is acknowledged before its commit.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from control_plane.core.errors import OverloadedError, StoreUnavailableError
from control_plane.store.database import StorageBrokenError, open_engine, translate_error

MAX_WAITING = 20_000
"""Changes that may wait for a commit: seconds of work, so that callers are refused rather than kept for minutes."""
MAX_BATCH = 500
"""Items in one commit: bounds how long the first of them waits for the last."""

GATHER_SECONDS = 0.01
"""The longest that changes are gathered while the event loop keeps bringing more."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Change = Callable[[Connection, Sequence[Item]], Sequence[Result | Exception]]
"""Applies items in one open transaction and returns one result, or one exception, for each. It may be run again
after a rollback, so it touches nothing but the database."""

OnCommit = Callable[[int, float], None]
"""Told, on the event loop, how many changes a batch had and how many seconds it took, whatever came of it."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    change: Change[Any, Any]
    item: Any
    future: asyncio.Future[Any]


class Writer:
    """Owns the only connection that writes."""

    def __init__(
        self,
        url: str,
        on_broken: Callable[[StorageBrokenError], None],
        loop: asyncio.AbstractEventLoop,
        on_commit: OnCommit | None = None,
    ) -> None:
        """Open the connection. `on_broken` is called, once, in the writer's thread when the disk has failed."""
        self._engine = open_engine(url, read_only=False, pool_size=1)
        self._on_broken = on_broken
        self._on_commit = on_commit
        self._batches: queue.SimpleQueue[list[_Waiting]] = queue.SimpleQueue()
        """To the thread; an empty batch ends it."""
        self._waiting: list[_Waiting] = []
        self._committing = 0
        self._gathering = False
        self._closed = False
        self._idle = asyncio.Event()
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="store-write", daemon=True)
        self._thread.start()

    async def write(self, change: Change[Item, Result], item: Item) -> Result:
        """Apply `item` by `change` and return its result once it is committed.

        Raises what the change raised for this item; StorageFullError, StoreUnavailableError or
        OverloadedError when it was not stored.
        """
        if self._closed:
            raise StoreUnavailableError("The control plane is shutting down; try again when it is back.")
        if self.waiting_count >= MAX_WAITING:
            raise OverloadedError("Too many requests wait for the database; try again in a moment.")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append(_Waiting(change, item, future))
        self._gather()
        return await future

    @property
    def waiting_count(self) -> int:
        """How many changes wait for a commit or are in one."""
        return len(self._waiting) + self._committing

    async def close(self) -> None:
        """Commit what waits, then end the thread and close the connection."""
        self._closed = True
        while self._waiting or self._committing:
            self._idle.clear()
            await self._idle.wait()
        self._batches.put([])
        await asyncio.to_thread(self._thread.join)
        self._engine.dispose()

    def _gather(self) -> None:
        """Begin to gather a batch, unless one is gathered or committed now."""
        if not self._gathering and not self._committing:
            self._gathering = True
            self._loop.call_soon(self._hand_over, 0, self._loop.time() + GATHER_SECONDS)

    def _hand_over(self, before: int, latest: float) -> None:
        """Give the thread what waits, as soon as a turn of the event loop has brought nothing more.

        Handed over one by one, changes would be committed in small batches, by a thread that fights the event
        loop for Python's lock while that still takes requests in: a third more CPU a deploy.
        """
        waiting = len(self._waiting)
        if before < waiting < MAX_BATCH and self._loop.time() < latest:
            self._loop.call_soon(self._hand_over, waiting, latest)
            return
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._gathering = False
        self._committing = len(batch)
        self._batches.put(batch)

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while batch := self._batches.get():
                began = time.perf_counter()
                outcomes = self._commit(connection, batch)
                seconds = time.perf_counter() - began
                self._loop.call_soon_threadsafe(self._settle, batch, outcomes, seconds)

    def _commit(self, connection: Connection, batch: list[_Waiting]) -> list[Any]:
        """Return one result or exception for each of the batch, after its commit or its failure."""
        try:
            return self._commit_together(connection, batch)
        except Exception as error:
            if isinstance(broken := translate_error(error), StorageBrokenError):
                self._on_broken(broken)
                return [broken] * len(batch)
            if len(batch) == 1 or isinstance(broken, StoreUnavailableError):
                return [broken] * len(batch)
            # Correct and slow: whatever makes this frequent is a bug of a change, and must be seen.
            log.warning("batch_done_one_by_one", size=len(batch), cause=type(error).__name__)
        return [outcome for waiting in batch for outcome in self._commit(connection, [waiting])]

    def _commit_together(self, connection: Connection, batch: list[_Waiting]) -> list[Any]:
        groups: dict[Change[Any, Any], list[int]] = {}
        for position, waiting in enumerate(batch):
            groups.setdefault(waiting.change, []).append(position)
        outcomes: list[Any] = [None] * len(batch)
        with connection.begin():
            for change, positions in groups.items():
                results = change(connection, [batch[position].item for position in positions])
                for position, result in zip(positions, results, strict=True):
                    outcomes[position] = result
        return outcomes

    def _settle(self, batch: list[_Waiting], outcomes: list[Any], seconds: float) -> None:
        if self._on_commit is not None:
            self._on_commit(len(batch), seconds)
        self._committing = 0
        if self._waiting:
            self._gather()
        else:
            self._idle.set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
