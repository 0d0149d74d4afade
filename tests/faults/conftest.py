"""What fault tests need of the machine, tried for real, and the disks that they break.

`@pytest.mark.usefixtures("strace")` skips a test where strace is missing, or fails it; see tests.support.faults.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import Disk, mounted_tmpfs
from tests.support.faults import cannot, need


@pytest.fixture(scope="session")
def strace() -> None:
    need("strace")
    if not _works("strace", "-o", os.devnull, "true"):
        cannot("needs the right to trace processes")


@pytest.fixture(scope="session")
def mount() -> None:
    need("mount", root=True)
    with tempfile.TemporaryDirectory() as place:
        if not _works("mount", "-t", "tmpfs", "tmpfs", place):
            cannot("needs the right to mount, which root has not got here")
        subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="session")
def loop(mount: None) -> None:
    need("losetup", "mkfs.ext4")
    if not _works("losetup", "--find"):
        cannot("needs loop devices")


@pytest.fixture
def small_disk(mount: None, tmp_path: Path) -> Iterator[Disk]:
    """A file system of 64 MiB, in memory."""
    with mounted_tmpfs(tmp_path / "disk", 64) as disk:
        yield disk


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
