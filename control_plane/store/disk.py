"""The disk below the database: room that is kept there for work under way, and files that must stay ours.

The writer asks it when SQLite finds no room, and a loop once a second. Invariant: while the reserve is not whole
no new work is stored, so that all of it serves the answers and sends of what was accepted before.
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from control_plane.core.errors import StorageFullError

RESERVE_BYTES = 16 * 1024 * 1024
"""Some thousand final answers, and as much as a checkpoint may add to the database."""
PIECE_BYTES = 2 * 1024 * 1024
"""Given back at once: were it all, whatever fills the disk could take all of it before the writer does."""
ROOM_BYTES = 4 * 1024 * 1024
"""What must be free beside the whole reserve before new work is taken again, lest that ends at once."""

AnyChange = TypeVar("AnyChange", bound=Callable[..., Any])
_NEW_WORK: set[Callable[..., Any]] = set()
log = structlog.get_logger()


def new_work(change: AnyChange) -> AnyChange:
    """Mark a change that takes on new work; it is refused while the disk is full."""
    _NEW_WORK.add(change)
    return change


def is_new_work(change: Callable[..., Any]) -> bool:
    """Whether a change takes on new work."""
    return change in _NEW_WORK


def disk_full() -> StorageFullError:
    """Return the error for work that there is no room for."""
    return StorageFullError("The control plane's disk is full; nothing was stored. Free some space and try again.")


class Disk:
    """Owns the file `<database>.reserve`, which holds nothing but its place. Its methods may block."""

    def __init__(self, database: Path) -> None:
        """Look at the disk; where it has no room to open a database on, a piece of the reserve makes some."""
        self._files = (database, database.with_name(f"{database.name}-wal"))
        self._inodes: list[int] = []
        self._reserve = database.with_name(f"{database.name}.reserve")
        self._lock = threading.Lock()
        self.is_full = False
        """Whether new work must be refused. Read in any thread."""
        if self._free() < PIECE_BYTES:
            self.give_back()

    def adopt_files(self) -> None:
        """Note which files the database was opened on."""
        self._inodes = self._seen()

    def is_replaced(self) -> bool:
        """Whether the database's files are not the ones it was opened on: what is stored would be in none."""
        return self._seen() != self._inodes

    def wal_bytes(self) -> int:
        """Return how long the WAL is."""
        return os.stat(self._files[1]).st_size

    def run_short(self) -> None:
        """Note that there was no room for something."""
        if not self.is_full:
            self.is_full = True
            log.error("disk_full", path=str(self._files[0]), free_bytes=self._free(), new_work="refused with 507")

    def give_back(self) -> bool:
        """Free a piece of the reserve; False when nothing was left of it."""
        with self._lock:
            held = self._held()
            if held:
                os.truncate(self._reserve, max(held - PIECE_BYTES, 0))
            return held > 0

    def keep_reserve(self) -> None:
        """Make the reserve whole where there is room for it, and take new work again once it is."""
        with self._lock:
            missing = RESERVE_BYTES - self._held()
            if missing <= 0 and not self.is_full:
                return
            if self._free() < missing + (ROOM_BYTES if self.is_full else 0) or not self._allocate():
                self.run_short()
            elif self.is_full:
                self.is_full = False
                log.info("disk_has_room", path=str(self._files[0]), free_bytes=self._free())

    def _allocate(self) -> bool:
        file = os.open(self._reserve, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            return False
        finally:
            os.close(file)
        return True

    def _held(self) -> int:
        try:
            return os.stat(self._reserve).st_size
        except FileNotFoundError:
            return 0

    def _free(self) -> int:
        found = os.statvfs(self._reserve.parent)
        return found.f_bavail * found.f_frsize

    def _seen(self) -> list[int]:
        try:
            return [os.stat(path).st_ino for path in self._files]
        except FileNotFoundError:
            return []
