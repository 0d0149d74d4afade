"""New files that are whole or not there: written beside their place, synced, and moved there in one step.

For the commands backup and restore. What is unfinished is removed, also when the command is told to end.
"""

import contextlib
import errno
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from control_plane.commands.refusals import CommandError, reason_of

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def unfinished(place: Path) -> Iterator[Path]:
    """Make an empty file of mode 0600 in the directory of `place`; whatever of it is left at the end is removed."""
    path = place.with_name(f".{place.name[:100]}.{secrets.token_hex(4)}.unfinished")
    with _removed_when_told_to_end(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise CommandError(f"No file can be made in {place.parent}: {reason_of(error)}.") from None
        try:
            yield path
        finally:
            _remove(path)


def publish(path: Path, place: Path) -> None:
    """Move a finished file to a place that nothing has taken. Raises FileExistsError, OSError."""
    try:
        os.link(path, place)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, "it exists", str(place)) from None
        path.rename(place)
    else:
        path.unlink()
    sync_directory(place.parent)


def sync_directory(directory: Path) -> None:
    """Write names to the disk: only then does a moved file survive a power cut."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # network file systems that have no such thing
            raise
    finally:
        os.close(file)


@contextlib.contextmanager
def _removed_when_told_to_end(path: Path) -> Iterator[None]:
    def end(number: int, _frame: object) -> None:
        # At once: a SQLite statement that is under way would keep an exception for minutes, or swallow it.
        _remove(path)
        sys.stderr.write("\nEnded before it was done; nothing was changed.\n")
        sys.stderr.flush()
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-anew", f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)
