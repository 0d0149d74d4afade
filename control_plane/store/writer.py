"""The group-commit writer: one thread, one connection, one commit for all that wait.

Everybody who changes a record submits a change here and waits for its commit. A change is a function that
applies a list of like items at once; what a batch cannot do together is done again one by one, so that a bad
item fails alone. Nothing is acknowledged before its commit.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from control_plane.core.audit import AuditEntry
from control_plane.core.errors import OverloadedError, StorageFullError, StoreUnavailableError
from control_plane.store.audit import record_audit
from control_plane.store.database import StorageBrokenError, checkpoint, open_engine, translate_error
from control_plane.store.disk import Disk, disk_full, is_new_work

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
    audit: AuditEntry | None = None


class Writer:
    """Owns the only connection that writes."""

    def __init__(
        self,
        url: str,
        on_broken: Callable[[StorageBrokenError], None],
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        on_commit: OnCommit | None = None,
    ) -> None:
        """Open the connection. `on_broken` is called, once, in the writer's thread when the disk has failed."""
        self._engine = open_engine(url, read_only=False, pool_size=1)
        self._connection = self._engine.connect()
        self._on_broken = on_broken
        self._disk = disk
        self.must_checkpoint = False
        """Set, in any thread, to have a checkpoint follow the next commit."""
        self._on_commit = on_commit
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """To the thread: True to commit what waits, False to end."""
        self._waiting: deque[_Waiting] = deque()
        """Filled on the event loop, taken from in the thread only."""
        self._unsettled = 0
        self._untold: Callable[[], object] | None = None
        """Tells the event loop of the batch before, which is committed."""
        self._busy = False
        """From the first change that waits until the thread has nothing left to do."""
        self._closed = False
        self._idle = asyncio.Event()
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="store-write", daemon=True)
        self._thread.start()

    async def write(self, change: Change[Item, Result], item: Item, audit: AuditEntry | None = None) -> Result:
        """Apply `item` by `change` and return its result once it is committed.

        `audit` is written in that commit, with what came of the item; `audit.written` tells whether it was.
        Raises what the change raised for this item; StorageFullError, StoreUnavailableError or
        OverloadedError when it was not stored.
        """
        if self._closed:
            raise StoreUnavailableError("The control plane is shutting down; try again when it is back.")
        if self.waiting_count >= MAX_WAITING:
            raise OverloadedError("Too many requests wait for the database; try again in a moment.")
        if self._disk.is_full and is_new_work(change):
            raise disk_full()
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append(_Waiting(change, item, future, audit))
        self._unsettled += 1
        self._gather()
        return await future

    @property
    def waiting_count(self) -> int:
        """How many changes wait for a commit or are in one."""
        return self._unsettled

    async def close(self) -> None:
        """Commit what waits, then end the thread and close the connection."""
        self._closed = True
        while self._unsettled:
            self._idle.clear()
            await self._idle.wait()
        self._calls.put(False)
        await asyncio.to_thread(self._thread.join)
        self._engine.dispose()

    def _gather(self) -> None:
        """Begin to gather a batch, unless one is gathered or committed now."""
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over, 0, self._loop.time() + GATHER_SECONDS)

    def _hand_over(self, before: int, latest: float) -> None:
        """Have the thread commit what waits, as soon as a turn of the event loop has brought nothing more.

        Handed over one by one, changes would be committed in small batches, by a thread that fights the event
        loop for Python's lock while that still takes requests in: a third more CPU a deploy.
        """
        waiting = len(self._waiting)
        if before < waiting < MAX_BATCH and self._loop.time() < latest:
            self._loop.call_soon(self._hand_over, waiting, latest)
        else:
            self._calls.put(True)

    def _run(self) -> None:
        with self._connection:
            while self._calls.get():
                batch = self._take(MAX_BATCH)
                while batch:
                    batch = self._commit_and_go_on(batch)

    def _take(self, most: int) -> list[_Waiting]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def _commit_and_go_on(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Commit a batch and return the next, if one is there already; then the event loop is told of both later.

        It is told of the first once the statements of the second have run: the two would fight for Python's lock, and
        what follows, the disk's part of the commit, needs no Python. Both halves of a deploy's work then go on at once.
        """
        began = time.perf_counter()
        outcomes = self._commit(batch)
        seconds = time.perf_counter() - began
        if isinstance(outcomes[-1], StoreUnavailableError):
            # The database was asked for as long as a caller may wait: the next in line would wait that long again.
            batch += self._take(MAX_WAITING)
            outcomes += [StoreUnavailableError(outcomes[-1].detail) for _ in batch[len(outcomes) :]]
        following = self._take(MAX_BATCH) if 2 * len(self._waiting) >= len(batch) else []
        tell = partial(self._settle, batch, outcomes, seconds, goes_on=bool(following))
        self._untold = partial(self._loop.call_soon_threadsafe, tell)
        if not following or self.must_checkpoint:
            self._tell()
        if self.must_checkpoint:
            self._checkpoint()
        return following

    def _tell(self) -> None:
        tell, self._untold = self._untold, None
        if tell is not None:
            tell()

    def _checkpoint(self) -> None:
        """Copy the WAL into the database in order to hear of errors: SQLite keeps those of its own checkpoints quiet.

        Nothing is lost by one that fails, for the WAL stays; but it grows until the disk is full.
        """
        self.must_checkpoint = False
        try:
            checkpoint(self._connection)
        except Exception as error:
            told = translate_error(error)
            if isinstance(told, StorageBrokenError):
                self._on_broken(told)
            elif isinstance(told, StorageFullError):
                self._disk.run_short()
            else:
                log.exception("checkpoint_failed")

    def _commit(self, batch: list[_Waiting]) -> list[Any]:
        """Return one result or exception for each of the batch, after its commit or its failure."""
        try:
            return self._commit_together(batch)
        except Exception as error:
            cause = error
            self._tell()  # what comes now may take long
        told = translate_error(cause)
        if isinstance(told, StorageBrokenError):
            self._on_broken(told)
        elif isinstance(told, StorageFullError):
            return self._commit_what_fits(batch)
        elif len(batch) > 1 and not isinstance(told, StoreUnavailableError):
            # Correct and slow: whatever makes this frequent is a bug of a change, and must be seen.
            log.warning("batch_done_one_by_one", size=len(batch), cause=type(cause).__name__)
            return [outcome for waiting in batch for outcome in self._commit([waiting])]
        # To each an error of its own: every caller that raises it adds its traceback.
        return [translate_error(cause) for _ in batch]

    def _commit_what_fits(self, batch: list[_Waiting]) -> list[Any]:
        """Commit a batch without the new work in it, for which the disk has no room, on what the reserve gives."""
        self._disk.run_short()
        under_way = [waiting for waiting in batch if not is_new_work(waiting.change)]
        if len(under_way) < len(batch):
            outcomes = iter(self._commit(under_way) if under_way else ())
            return [disk_full() if is_new_work(waiting.change) else next(outcomes) for waiting in batch]
        if self._disk.give_back():
            return self._commit(batch)
        stored: list[Any] = []
        for waiting in batch if len(batch) > 1 else ():
            [outcome] = self._commit([waiting])
            if isinstance(outcome, StorageFullError):
                break  # to try each of thousands that come again twice a second would keep a core busy
            stored.append(outcome)
        return [*stored, *(disk_full() for _ in batch[len(stored) :])]

    def _commit_together(self, batch: list[_Waiting]) -> list[Any]:
        groups: dict[Change[Any, Any], list[int]] = {}
        for position, waiting in enumerate(batch):
            groups.setdefault(waiting.change, []).append(position)
        outcomes: list[Any] = [None] * len(batch)
        with self._connection.begin():
            for change, positions in groups.items():
                results = change(self._connection, [batch[position].item for position in positions])
                for position, result in zip(positions, results, strict=True):
                    outcomes[position] = result
            audited = [
                (waiting.audit, outcome)
                for waiting, outcome in zip(batch, outcomes, strict=True)
                if waiting.audit is not None and not waiting.audit.written
            ]
            if audited:
                record_audit(self._connection, audited)
            self._tell()
        for entry, _ in audited:
            entry.written = True
        return outcomes

    def _settle(self, batch: list[_Waiting], outcomes: list[Any], seconds: float, *, goes_on: bool) -> None:
        """Give each of a batch its outcome; `goes_on`: the thread has already begun with what waited."""
        if self._on_commit is not None:
            self._on_commit(len(batch), seconds)
        self._unsettled -= len(batch)
        self._busy = goes_on
        if self._waiting:
            self._gather()
        elif not self._unsettled:
            self._idle.set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
