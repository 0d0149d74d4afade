"""The process of an installed Go agent: dial, keep alive, read, run and answer, with the real one's faults.

`GoAgent` gives tests their hands on it. Each command runs at once in a task of its own and nothing orders
their writes: a second answer written while another is under way kills the process, and with it the
answers of its running work. Work outlives a connection; its answer goes out on whichever is up then.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.support.go_agent_work import Command, GoHost, Outcome, Work, answer_text, read_command

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 120.0
SERVICE_RESTART_SECONDS = 1.0
RECEIVED = Outcome("IN_PROGRESS", "Command received, processing...")


class GoProcess:
    """The agent's process and the machine (`host`) that it works on; what it saw is in the public lists."""

    def __init__(
        self,
        url: str,
        token: str,
        hostname: str,
        *,
        headers: Mapping[str, str] | None = None,
        version: str = "1.0.0",
        architecture: str = "linux-amd64",
        reconnect: bool = True,
        time_scale: float = 0.02,
        write_seconds: float = 0.0,
        ping_interval_seconds: float = 30.0,
        pong_timeout_seconds: float = 60.0,
        handshake_timeout_seconds: float = 10.0,
    ) -> None:
        self.url = url
        self.hostname = hostname
        self.headers = {
            "Authorization": f"Bearer {token}",
            "X-Agent-Version": version,
            "X-Agent-Architecture": architecture,
            "X-Agent-Hostname": hostname,
            **(headers or {}),
        }
        self.reconnect = reconnect
        self.time_scale = time_scale
        self.write_seconds = write_seconds
        self.ping_interval_seconds = ping_interval_seconds
        self.pong_timeout_seconds = pong_timeout_seconds
        self.handshake_timeout_seconds = handshake_timeout_seconds

        self.host = GoHost(version, architecture, hostname)
        self.work: Work = self.host.compose
        self.connections = 0
        self.attempts = 0
        self.crashes = 0
        self.refusals: list[int] = []
        """HTTP statuses of refused handshakes, and in `refusal_texts` what came with them."""
        self.refusal_texts: list[str] = []
        self.closes: list[tuple[int, str]] = []
        """Code and reason with which each connection ended; 1006 when it was cut."""
        self.failures: list[Exception] = []
        """Dials that came to nothing for other reasons: nobody there, time-out, no WebSocket."""
        self.pauses: list[float] = []
        """Seconds waited before each dial but the first, before `time_scale`."""
        self.pongs = 0
        self.frames: list[str | bytes] = []
        self.commands: list[Command] = []
        self.answers: list[tuple[str, Outcome]] = []
        """What was written to a socket, acknowledgements included, in order."""
        self.lost: list[str] = []
        """Job ids whose final answer no connection was up for."""

        self._socket: ClientConnection | None = None
        self._goroutines: set[asyncio.Task[None]] = set()
        self._writing = False
        self._plugged = asyncio.Event()
        self._plugged.set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._changed = asyncio.Event()
        self._errors: list[BaseException] = []

    def start(self) -> None:
        """Start the process, as its service manager does at boot."""
        self._start_process(after_seconds=0.0)

    def stop(self) -> None:
        """Kill the process for good. The answers of running work are lost."""
        for task in tuple(self._goroutines):
            task.cancel()
        self._writing = False
        self._cut()

    def crash(self) -> None:
        """Kill the process; the service manager starts it again."""
        self.crashes += 1
        self.stop()
        if self.reconnect:
            self._start_process(after_seconds=SERVICE_RESTART_SECONDS * self.time_scale)
        self._notify()

    @property
    def is_connected(self) -> bool:
        """Whether a connection is up, as far as the agent knows."""
        return self._socket is not None

    def _start_process(self, after_seconds: float) -> None:
        self._watched(self._dial_for_ever(after_seconds))

    async def _dial_for_ever(self, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        retry = FIRST_RETRY_SECONDS
        while True:
            await self._plugged.wait()
            await self._thawed.wait()
            socket = await self._dial()
            if socket is None:
                pause, retry = retry, min(2 * retry, LONGEST_RETRY_SECONDS)
            else:
                await self._converse(socket)
                pause = retry = FIRST_RETRY_SECONDS
            if not self.reconnect:
                return
            self.pauses.append(pause)
            await asyncio.sleep(pause * self.time_scale)

    async def _dial(self) -> ClientConnection | None:
        self.attempts += 1
        try:
            return await connect(
                self.url,
                additional_headers=self.headers,
                user_agent_header=None,
                compression=None,
                proxy=None,
                open_timeout=self.handshake_timeout_seconds,
                ping_interval=None,
                close_timeout=1,
                max_size=None,
            )
        except InvalidStatus as refusal:
            self.refusals.append(refusal.response.status_code)
            self.refusal_texts.append(bytes(refusal.response.body or b"").decode())
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            self.failures.append(error)
        self._notify()
        return None

    async def _converse(self, socket: ClientConnection) -> None:
        if not self._plugged.is_set():
            socket.transport.abort()
            return
        self._socket = socket
        self.connections += 1
        self._notify()
        keeper = self._watched(self._keep_alive(socket))
        try:
            async for frame in socket:
                await self._thawed.wait()
                self._take(frame)
        except ConnectionClosed:
            pass
        finally:
            keeper.cancel()
            socket.transport.abort()
            if self._socket is socket:
                self._socket = None
            self.closes.append((socket.close_code or 1006, socket.close_reason or ""))
            self._notify()

    async def _keep_alive(self, socket: ClientConnection) -> None:
        """Ping, and cut the connection when no pong has come for long; nothing else extends the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.pong_timeout_seconds

        def extend(pong: asyncio.Future[float]) -> None:
            nonlocal deadline
            if not pong.cancelled() and pong.exception() is None:
                deadline = loop.time() + self.pong_timeout_seconds
                self.pongs += 1
                self._notify()

        next_ping = loop.time() + self.ping_interval_seconds
        while True:
            await asyncio.sleep(max(0.0, min(next_ping, deadline) - loop.time()))
            await self._thawed.wait()
            if loop.time() >= deadline:
                socket.transport.abort()
                return
            if loop.time() >= next_ping:
                next_ping += self.ping_interval_seconds
                try:
                    asyncio.ensure_future(await socket.ping()).add_done_callback(extend)
                except ConnectionClosed:
                    return

    def _take(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        self._watched(self._run(text))

    async def _run(self, text: str) -> None:
        """Do what a goroutine does for one command, from the acknowledgement to the final answer."""
        try:
            command = read_command(text)
        except (ValueError, TypeError) as error:
            await self._write("unknown", Outcome.failed(f"failed to parse command: {error}"))
            return
        self.commands.append(command)
        self._notify()
        await self._write(command.id, RECEIVED)
        outcome = await self._execute(command)
        await self._thawed.wait()
        if not await self._write(command.id, outcome):
            self.lost.append(command.id)
            self._notify()

    async def _execute(self, command: Command) -> Outcome:
        execution = self.host.begin(command)
        self._notify()
        try:
            execution.outcome = await self.host.perform(command, self.work)
            return execution.outcome
        finally:
            execution.ended_at = time.monotonic()
            self._notify()

    async def _write(self, job_id: str, outcome: Outcome) -> bool:
        """Write an answer on the connection that is up; return whether there was one to write to."""
        await self._thawed.wait()
        socket = self._socket
        if socket is None:
            return False
        if self._writing:
            self.crash()
            await asyncio.sleep(0)  # this goroutine has died with the process: here it is cancelled
        self._writing = True
        try:
            await asyncio.sleep(self.write_seconds)
            await socket.send(answer_text(job_id, outcome))
        except ConnectionClosed:
            return False
        finally:
            self._writing = False
        self.answers.append((job_id, outcome))
        self._notify()
        return True

    def _cut(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abort()
            self._notify()

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._goroutines.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._goroutines.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._errors.append(error)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
