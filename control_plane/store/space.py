"""Space: gives pages that removed rows have left behind back to the file system, a few at a time.

For operations.retaining. SQLite keeps a freed page for later rows; only a database that was made with
`auto_vacuum=INCREMENTAL` can also move its last pages into the gaps and become shorter while it is used.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlmodel import Session

KEPT_FREE = 0.1
"""This share of the file stays free: what goes today makes room for what comes tomorrow."""
LEAST_PAGES = 256
"""Less than 1 MiB is not worth the moves."""
HOLD_SECONDS = 0.01
"""After this long no further page is moved."""
_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Given:
    """How many pages the file became shorter by, and how long that held the writer."""

    pages: int
    held_seconds: float


def count_spare_pages(db: Session) -> int:
    """Return the pages that are free beyond KEPT_FREE; 0 if they are few, or if the file cannot become shorter."""
    mode, free, all_pages = (
        int(db.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("auto_vacuum", "freelist_count", "page_count")
    )
    spare = free - int(KEPT_FREE * all_pages)
    return spare if mode == _INCREMENTAL and spare >= LEAST_PAGES else 0


def give_pages_back(db: Connection, wishes: Sequence[int]) -> list[Given | Exception]:
    """Shorten the file by up to so many pages, as far as time allows; it happens at the next checkpoint."""
    return [_give(db, pages) for pages in wishes]


def _give(db: Connection, pages: int) -> Given:
    began = time.monotonic()
    given = 0
    while given < pages and (not given or time.monotonic() - began < HOLD_SECONDS):
        # Of a larger number Python's driver does only the first: it steps no further where no row comes.
        db.exec_driver_sql("PRAGMA incremental_vacuum(1)")
        given += 1
    return Given(given, time.monotonic() - began)
