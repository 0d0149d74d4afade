"""Children: starts a program and waits for it without owning its life.

`commands` and `host` run Docker through this. A child writes to an unnamed file, never to a pipe, and has a
session of its own: it goes on undisturbed when the agent stops, is killed, or its terminal is closed.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1
"""How often a running child's output is looked at; a quarter second is the fastest it is sent."""

READ_BYTES = 256 * 1024
MAX_BACKLOG_BYTES = 8 * 1024 * 1024
"""How far reading may be behind a child that prints; beyond it the middle is skipped, as the log would cut it."""

MAX_CAPTURE_BYTES = 4 * 1024 * 1024
"""What is read of a short command's output: a `ps` of some thousand containers."""

MAX_OUTPUT_FILE_BYTES = 64 * 1024 * 1024
"""What a child's output may take on disk; beyond it, what has been read is given back."""

_LIBC = ctypes.CDLL(None)
_FALLOCATE = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
"""Of linux/falloc.h; Python's own `os.posix_fallocate` cannot do this."""


@dataclass(frozen=True)
class Captured:
    """A short command's end. `exit_status` is negative when a signal ended it."""

    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Surroundings:
    """Where children run: their environment, and a directory for the files that they write to."""

    environ: Mapping[str, str]
    output_dir: Path


class Child:
    """One started program. Dropping this object leaves it running."""

    def __init__(
        self,
        argv: Sequence[str],
        around: Surroundings,
        cwd: Path,
        stdout: IO[bytes],
        stderr: IO[bytes],
        keep_open: Sequence[int] = (),
    ) -> None:
        """Start `argv`; descriptors in `keep_open` are inherited. Raises OSError if it cannot be started."""
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(around.environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=keep_open,
            start_new_session=True,
        )
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        # A daemon, for the agent's exit must not wait for a child that outlives it.
        threading.Thread(target=self._reap, daemon=True).start()

    async def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Return the exit status, or None if it still runs after `timeout_seconds`."""
        await asyncio.wait({self._ended}, timeout=timeout_seconds)
        return self._ended.result() if self._ended.done() else None

    def kill(self) -> None:
        """End it and what it started; only for short commands that answer nobody any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent is on its way out
            self._loop.call_soon_threadsafe(self._end, status)

    def _end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)


async def stream(
    argv: Sequence[str], around: Surroundings, cwd: Path, keep_open: int, on_output: Callable[[bytes], None]
) -> int:
    """Run `argv` to its end and return its exit status; `on_output` gets stdout and stderr as they come.

    `keep_open` is a descriptor that the child inherits. Cancelling leaves the child running. Raises OSError.
    """
    with tempfile.TemporaryFile(dir=around.output_dir) as output:
        descriptor = output.fileno()
        child = Child(argv, around, cwd, output, output, (keep_open,))
        position = freed = 0
        while True:
            status = await child.wait(POLL_SECONDS)
            position = await _forward(descriptor, position, on_output)
            if status is not None:
                return status
            if position - freed >= MAX_OUTPUT_FILE_BYTES:
                _free(descriptor, position)
                freed = position


def _free(descriptor: int, end: int) -> None:
    """Give the disk back what a file holds before `end`, and leave the file's length and offset as they are.

    Truncating would also throw away what the child has written since. A file system without holes keeps it all.
    """
    if _FALLOCATE is not None:  # it is, on systems other than Linux
        _FALLOCATE(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(end))


async def _forward(descriptor: int, position: int, on_output: Callable[[bytes], None]) -> int:
    """Hand on what is there now, and no more: a child that never pauses must not keep the agent here."""
    end = os.fstat(descriptor).st_size
    if end - position > MAX_BACKLOG_BYTES:
        skipped_to = end - MAX_BACKLOG_BYTES // 2
        on_output(os.pread(descriptor, MAX_BACKLOG_BYTES // 2, position))
        position = skipped_to
    while position < end:
        data = os.pread(descriptor, min(READ_BYTES, end - position), position)
        if not data:
            break
        on_output(data)
        position += len(data)
        await asyncio.sleep(0)
    return position


async def capture(
    argv: Sequence[str], around: Surroundings, cwd: Path, timeout_seconds: float | None = None
) -> Captured:
    """Run a short, read-only command and return what it printed, at most MAX_CAPTURE_BYTES of each stream.

    Raises OSError if it cannot be started, TimeoutError if it was ended for taking too long.
    """
    with (
        tempfile.TemporaryFile(dir=around.output_dir) as stdout,
        tempfile.TemporaryFile(dir=around.output_dir) as stderr,
    ):
        child = Child(argv, around, cwd, stdout, stderr)
        status = await child.wait(timeout_seconds)
        if status is None:
            child.kill()
            raise TimeoutError(f"`{' '.join(argv)}` did not answer within {timeout_seconds:g} seconds.")
        return Captured(status, _read(stdout), _read(stderr))


def _read(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), MAX_CAPTURE_BYTES, 0).decode("utf-8", "replace")
