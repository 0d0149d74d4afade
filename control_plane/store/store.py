"""The store as the floors above see it: one object to read and to write through."""

import asyncio
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlmodel import Session

from control_plane.core.audit import AuditEntry
from control_plane.store.database import LONG_WAL_BYTES, Reader, StorageBrokenError, database_file
from control_plane.store.disk import Disk
from control_plane.store.migrate import migrate
from control_plane.store.writer import Change, OnCommit, Writer

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Store:
    """Named queries and changes of this package are passed to `read` and `write`."""

    def __init__(
        self,
        url: str,
        on_broken: Callable[[StorageBrokenError], None],
        loop: asyncio.AbstractEventLoop,
        on_commit: OnCommit | None = None,
    ) -> None:
        """Bring the schema up to date and open connections; blocks.

        Results are given to waiters on `loop`, each batch's figures to `on_commit`.

        Raises StartupError if the database cannot be used.
        """
        self._disk = Disk(database_file(url))
        self._on_broken = on_broken
        migrate(url)
        self._reader = Reader(url, on_broken)
        self._writer = Writer(url, on_broken, loop, self._disk, on_commit)
        self._disk.adopt_files()

    async def read(self, query: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in a thread; see Reader.read."""
        return await self._reader.read(query, *args, **kwargs)

    async def write(self, change: Change[Item, Result], item: Item, audit: AuditEntry | None = None) -> Result:
        """Apply a change in the next commit, and write its entry of the audit with it; see Writer.write."""
        return await self._writer.write(change, item, audit)

    @property
    def waiting_count(self) -> int:
        """How many changes wait for a commit or are in one."""
        return self._writer.waiting_count

    async def look_at_disk(self) -> None:
        """See to the room that is kept on the disk, to the WAL's length, and to the files being there. Once a second.

        Ends the process, as a failing disk does, when the files were taken away: what is stored would be in none.
        """
        if await asyncio.to_thread(self._disk.is_replaced):
            self._on_broken(StorageBrokenError("its files were deleted or replaced"))
            return
        await asyncio.to_thread(self._disk.keep_reserve)
        self._writer.must_checkpoint = self._disk.wal_bytes() >= LONG_WAL_BYTES

    async def close(self) -> None:
        """Commit what waits and close everything, readers first: the last connection tidies the WAL."""
        self._reader.close()
        await self._writer.close()
