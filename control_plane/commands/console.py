"""What commands show: the result on stdout, and on a terminal how far a long one is."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PAGE_BYTES = 4096
FIRST_SECONDS = 1.0
"""What takes no longer shows no progress."""
BETWEEN_SECONDS = 0.1


def say(text: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(f"{text}\n")


def size_of(path: Path) -> str:
    """Return a file's size for people."""
    return size(path.stat().st_size)


def size(count: int) -> str:
    """Return a number of bytes for people: `12.3 MiB`."""
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KiB"
    return f"{count / 1024**2:.1f} MiB" if count < 1024**3 else f"{count / 1024**3:.2f} GiB"


class ProgressLine:
    """One line on stderr that is written over and over, and is gone at the end; nothing where no terminal is."""

    def __init__(self) -> None:
        self._shown = sys.stderr is not None and sys.stderr.isatty()
        self._next_at = time.monotonic() + FIRST_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def copied(self, pages: int, of_pages: int) -> None:
        """Show how many of how many pages are copied."""
        if time.monotonic() >= self._next_at:
            self.show(f"Copying: {100 * pages // max(of_pages, 1)} % of {size(of_pages * PAGE_BYTES)}")
            self._next_at = time.monotonic() + BETWEEN_SECONDS

    def show(self, text: str) -> None:
        """Show what is done now."""
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
