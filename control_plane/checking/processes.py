"""ProcessChecker: judges Compose files in two processes: small files in one, large or aliasing ones in the other.

Judging took a quarter of a deploy's time under the server's one Python lock, and what a hostile file breaks is
now a process that holds nothing. One that dies or hangs is replaced; the file that did it is refused, and those
that were merely with it are judged again, one at a time.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

import control_plane
from control_plane.checking import frames
from control_plane.checking.base import quick_to_judge
from control_plane.core.compose import MAX_COMPOSE_BYTES, ComposeFile
from control_plane.core.compose.encoding import too_large
from control_plane.core.compose.problems import invalid, problem
from control_plane.core.errors import OverloadedError

WORKER = "control_plane.checking.worker"
SMALL_BYTES = 8 * 1024
"""Larger files, and those with aliases, of which the worst take 300 ms, must not hold up the others."""
MAX_WAITING = 1000
WINDOW_BYTES = 256 * 1024
"""Of files with one process at a time: hundreds of usual ones, or one of the largest."""
FAILURES = 3
RESTART_SECONDS = 1.0
HANG_SECONDS = 10.0
"""Thirty times what the worst file takes."""

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class _Request:
    source: bytes
    project_name: str
    verdict: asyncio.Future[ComposeFile]
    suspect: bool = False
    """It was with a process that died."""


class ProcessChecker:
    """Two workers; see the module."""

    def __init__(self) -> None:
        """Start them; on the running event loop."""
        self._small, self._large = _Worker(), _Worker()

    async def check(self, source: bytes, project_name: str) -> ComposeFile:
        """Judge one file; see Checker.check. Raises OverloadedError while too many wait."""
        if len(source) > MAX_COMPOSE_BYTES:
            raise too_large()
        worker = self._small if quick_to_judge(source, SMALL_BYTES) else self._large
        return await worker.judge(source, project_name)

    @property
    def pids(self) -> tuple[int, int]:
        """The workers' process ids: of the one for quick files, and of the other."""
        return self._small.pid, self._large.pid

    async def close(self) -> None:
        """End both processes; return when they are gone."""
        await asyncio.gather(self._small.close(), self._large.close())


class _Worker(asyncio.Protocol):
    """One process, and who waits for it. A new process takes the place of one that ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sent: deque[_Request] = deque()
        self._suspects: deque[_Request] = deque()
        """To be judged alone, for one of them may have killed the process."""
        self._unsent: deque[_Request] = deque()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ready = False
        self._closing = False
        self._failures = 0
        """Processes in a row that ended without a verdict."""
        self._patience: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._starting = self._loop.create_task(self._start(), name="compose-check-start")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def judge(self, source: bytes, project_name: str) -> ComposeFile:
        if len(self._sent) + len(self._suspects) + len(self._unsent) >= MAX_WAITING:
            raise OverloadedError("Too many Compose files wait to be checked; try again in a moment.")
        request = _Request(source, project_name, self._loop.create_future())
        self._unsent.append(request)
        if len(self._unsent) == 1:
            # With what else this turn of the loop brings: each write to a sleeping process costs its waking.
            self._loop.call_soon(self._send_next)
        return await request.verdict

    async def close(self) -> None:
        self._closing = True
        await self._starting
        if self._transport is not None:
            # Not only closed: it may still be starting, which nobody should have to wait for.
            self._process.kill()
            self._transport.close()
        await self._gone.wait()

    async def _start(self) -> None:
        while not self._closing:
            try:
                self._process, ours = await asyncio.to_thread(_start_process)
            except OSError as error:  # no memory or no process to be had
                log.warning("compose_check_not_started", error=str(error))
                await self._bear_failure()
            else:
                await self._loop.create_connection(lambda: self, sock=ours)
                return
        self._gone.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._received.clear()

    def data_received(self, data: bytes) -> None:
        self._received += data
        for text in frames.take_verdicts(self._received):
            if not self._ready:
                self._ready = True
                continue
            verdict = frames.verdict_of(text, self._sent[0].source)
            request = self._sent.popleft()
            if request.verdict.done():  # its caller has gone
                continue
            if isinstance(verdict, Exception):
                request.verdict.set_exception(verdict)
            else:
                request.verdict.set_result(verdict)
        if not self._ready:
            return
        self._failures = 0
        self._be_patient(anew=True)
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ready = False
        self._be_patient(anew=True)
        self._starting = self._loop.create_task(self._replace(), name="compose-check-replace")

    async def _replace(self) -> None:
        status = await asyncio.to_thread(self._process.wait)
        if self._closing:
            self._gone.set()
            return
        log.error("compose_check_ended", status=status, files=len(self._sent))
        if len(self._sent) == 1 and self._sent[0].suspect:
            _refuse(self._sent.popleft())
        for request in self._sent:
            request.suspect = True
        self._suspects.extend(self._sent)
        self._sent.clear()
        await self._bear_failure()
        await self._start()

    async def _bear_failure(self) -> None:
        """Pause before another attempt; after some, tell those who wait that no process can be started."""
        self._failures += 1
        if self._failures > 1:
            await asyncio.sleep(RESTART_SECONDS)
        if self._failures <= FAILURES:
            return
        for request in (*self._suspects, *self._unsent):
            if not request.verdict.done():
                request.verdict.set_exception(
                    OverloadedError("The control plane cannot check Compose files now; see its log, and try again.")
                )
        self._suspects.clear()
        self._unsent.clear()

    def _send_next(self) -> None:
        """Send one suspect once it is alone, or everything that waits, if the process is ready."""
        if self._transport is None or not self._ready or (self._sent and (self._suspects or self._sent[0].suspect)):
            return
        chosen = [self._suspects.popleft()] if self._suspects else self._take_unsent()
        if chosen:
            self._sent.extend(chosen)
            self._be_patient(anew=False)
            self._transport.write(b"".join(frames.request(one.source, one.project_name) for one in chosen))

    def _take_unsent(self) -> list[_Request]:
        """Take what may be with the process at once; the rest waits here, where it is not copied."""
        chosen: list[_Request] = []
        room = WINDOW_BYTES - sum(len(request.source) for request in self._sent)
        while self._unsent and (room >= len(self._unsent[0].source) or not (chosen or self._sent)):
            chosen.append(self._unsent.popleft())
            room -= len(chosen[-1].source)
        return chosen

    def _be_patient(self, *, anew: bool) -> None:
        """End the process when it has said nothing for too long while somebody waits."""
        if self._patience is not None and anew:
            self._patience.cancel()
            self._patience = None
        if self._patience is None and self._sent and self._ready:
            self._patience = self._loop.call_later(HANG_SECONDS, self._kill)

    def _kill(self) -> None:
        self._patience = None
        log.error("compose_check_hangs", seconds=HANG_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)


def _start_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Return a new process and this end of the connection to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONPATH": str(Path(control_plane.__file__).parents[1])},
                cwd="/",
            )
        except OSError:
            ours.close()
            raise
    ours.setblocking(False)
    return process, ours


def _refuse(request: _Request) -> None:
    if not request.verdict.done():
        reason = "could not be checked, for checking it took too long or too much memory: simplify it"
        request.verdict.set_exception(invalid([problem((), reason, None)]))
