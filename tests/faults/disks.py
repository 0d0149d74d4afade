"""Disks of a test's own: a small one that can be filled, and one whose power can be cut.

Mounted for one test and gone afterwards. Needs root.
"""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class Disk:
    """A mounted file system of a test's own."""

    path: Path

    def fill(self) -> None:
        """Take all room there is, at once, as another program does; others may write meanwhile."""
        with (self.path / "ballast").open("ab") as file:
            piece = self._free()
            while piece >= os.sysconf("SC_PAGESIZE"):
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2

    def clear(self) -> None:
        """Give the room back."""
        (self.path / "ballast").unlink()

    def sync(self) -> None:
        """Bring everything that was written so far to the disk."""
        _run("sync", "--file-system", self.path)

    def _free(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def mounted_tmpfs(place: Path, size_mib: int) -> Iterator[Disk]:
    """Mount a file system in memory at `place`."""
    place.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", place)
    with _unmounted_afterwards(place):
        yield Disk(place)


@contextlib.contextmanager
def mounted_ext4(image: Path, place: Path, size_mib: int = 0) -> Iterator[Disk]:
    """Mount the ext4 in the file `image` at `place`, as Debian does by default; `size_mib`: make it first.

    What programs write stays in the page cache of this file system, and comes to `image` by their fsyncs
    (or by the kernel's own writeback, half a minute later).
    """
    if size_mib:
        with image.open("wb") as file:
            file.truncate(size_mib * MIB)
        _run("mkfs.ext4", "-q", image)
    place.mkdir()
    _run("mount", "-o", "loop", image, place)
    with _unmounted_afterwards(place):
        yield Disk(place)


def copy_as_it_is(image: Path, copy: Path) -> None:
    """Copy the file below a mounted disk as it would be found after a power cut now.

    The kernel may write to it meanwhile: it is copied until nothing has changed from the start of a copy to its end.
    """
    while not copy.exists() or copy.read_bytes() != image.read_bytes():
        copy.write_bytes(image.read_bytes())


@contextlib.contextmanager
def _unmounted_afterwards(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _run("umount", place)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
