"""What the figures depend on besides the program: cores, Python, file system, fsync latency, open files.

Changes nothing but this process's limit of open files.
"""

import os
import platform
import resource
import sqlite3
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

FSYNC_SAMPLES = 200
NOT_DISKS = {"tmpfs", "ramfs"}


class UnfitMachineError(Exception):
    """The benchmark cannot give a meaningful figure here; the text says what to change."""


@dataclass(frozen=True)
class Machine:
    """The facts that are printed above the figures."""

    cores: int
    python: str
    sqlite: str
    kernel: str
    file_system: str
    fsync_median_ms: float
    fsync_p99_ms: float
    load_average: float
    """Over the last minute, before the run: more than about 0.3 means that something else runs, too."""


def examine(directory: Path) -> Machine:
    """Return the facts; `directory` is where the databases will be. Raises UnfitMachineError."""
    file_system = _file_system_of(directory)
    if file_system.split()[0] in NOT_DISKS:
        raise UnfitMachineError(f"{directory} is on {file_system}: pass --directory with a path on a real disk.")
    samples = sorted(_fsync_samples(directory / "fsync-probe"))
    return Machine(
        cores=os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system,
        fsync_median_ms=statistics.median(samples) * 1000,
        fsync_p99_ms=samples[int(len(samples) * 0.99)] * 1000,
        load_average=os.getloadavg()[0],
    )


def busy_seconds() -> float:
    """Return the processor time that all processes of the machine have used since it started, all cores added."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def raise_open_files(needed: int) -> None:
    """Let this process, and those it starts, open `needed` files. Raises UnfitMachineError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UnfitMachineError(f"{needed} open files are needed and {hard} allowed: raise `ulimit -Hn {needed}`.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _file_system_of(directory: Path) -> str:
    """Return type and device of the mount that holds `directory`, from the longest mount point above it."""
    place = directory.resolve()
    best = ("", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        mount_point = before.split()[4]
        kind, device = after.split()[:2]
        if place.is_relative_to(mount_point) and len(mount_point) >= len(best[0]):
            best = (mount_point, f"{kind} on {device}")
    return best[1]


def _fsync_samples(probe: Path) -> list[float]:
    """Return seconds of a 4 KiB append with fdatasync, as a WAL commit does."""
    samples = []
    file = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(FSYNC_SAMPLES):
            began = time.perf_counter()
            os.write(file, bytes(4096))
            os.fdatasync(file)
            samples.append(time.perf_counter() - began)
    finally:
        os.close(file)
        probe.unlink()
    return samples
