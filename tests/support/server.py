"""The real server as a process, for tests that kill, restart and connect to it.

Used by the process and end-to-end tests. Each server has its own directory, and so its own database and secrets;
it keeps its port over a restart. Nothing of the developer's own settings reaches it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import ssl
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from control_plane.config import Settings

RUN = Path(__file__).parents[2] / "run.py"
START_SECONDS = 30
STOP_SECONDS = 45
"""Longer than the server's own grace of 30 s."""


class ServerFailedError(AssertionError):
    """The server did not do what the test needs; the text ends with what it wrote."""


class ServerProcess:
    """`async with ServerProcess(tmp_path) as server:` a server that is ready, and gone afterwards.

    `env` is laid over settings made for tests: loopback, a free port, JSON logs, random tokens, one second of grace;
    a value of None leaves that variable unset. `directory` is where it is started, by default a temporary one.
    `sabotage` takes one guard out of it, by the name of a module of tests.support.sabotage; `wrapper` is a command
    to start it by, such as strace with its options. `trust` is what clients of a server with TLS need.
    """

    def __init__(
        self,
        directory: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        *,
        sabotage: str | None = None,
        wrapper: Sequence[str] = (),
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="control-plane-")
        self.directory = directory or Path(self._temporary.name if self._temporary else "")
        self.env = _environment(env or {})
        self.api_token = self.env.get("API_TOKEN", "")
        self.agent_token = self.env.get("AGENT_SECRET_TOKEN", "")
        sabotaged = ("-m", "tests.support.sabotage", sabotage)
        self._trust = trust
        self._command = [*wrapper, sys.executable, *(sabotaged if sabotage else (str(RUN),))]
        if sabotage:
            self.env["PYTHONPATH"] = str(RUN.parent)
        self.stdout = ""
        self.stderr = ""
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._listening = asyncio.Event()
        self._logged = asyncio.Condition()

    @property
    def output(self) -> str:
        """Everything that it wrote, over all its starts."""
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def ws_url(self) -> str:
        """Where agents connect."""
        return self.url.replace("http", "ws", 1) + "/ws"

    @property
    def database_path(self) -> Path:
        """The database's file."""
        url = self.env.get("DATABASE_URL") or str(Settings.model_fields["database_url"].default)
        return (self.directory / url.removeprefix("sqlite:///")).absolute()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """Return a client of the API that presents `token`, or the API's own."""
        headers = {"Authorization": f"Bearer {token or self.api_token}"}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=self._trust or True
        )

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            try:
                await self.terminate()
            except ServerFailedError:
                await self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def start(self) -> None:
        """Start it and return when `/ready` says 200."""
        await self.launch()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._until_listening()
                await self._until_ready()
        except (TimeoutError, httpx.TransportError) as error:
            raise ServerFailedError(f"not ready within {START_SECONDS} s: {error!r}\n{self.output}") from None

    async def launch(self) -> None:
        """Start it without waiting for anything, for tests of a start that fails."""
        self._listening.clear()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self.directory,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read_stdout(process.stdout)),
            asyncio.create_task(self._read_stderr(process.stderr)),
        ]

    async def logged(self, event: str) -> None:
        """Return once it has logged an event of this name."""
        async with asyncio.timeout(START_SECONDS), self._logged:
            await self._logged.wait_for(lambda: f'"event": "{event}"' in self.stderr)

    async def wait(self) -> int:
        """Wait until it ends by itself; return its exit status (negative: the signal that it died of)."""
        process = self._running()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                status = await process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            raise ServerFailedError(f"the server still runs after {STOP_SECONDS} s\n{self.output}") from None
        self._process = None
        return status

    async def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._running().send_signal(number)
        return await self.wait()

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._running().kill()
        await self.wait()

    async def restart(self) -> None:
        """Start it again, after stopping it if it runs, on the same port and database."""
        if self._process is not None:
            await self.terminate()
        await self.start()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ServerFailedError(f"the server does not run\n{self.output}")
        return self._process

    async def _until_listening(self) -> None:
        ended = asyncio.create_task(self._running().wait())
        listening = asyncio.create_task(self._listening.wait())
        done, pending = await asyncio.wait({ended, listening}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if listening not in done:
            status = await self.wait()
            raise ServerFailedError(f"the server ended with status {status}\n{self.output}")

    async def _until_ready(self) -> None:
        async with self.client() as client:
            for _ in itertools.count():
                if (await client.get("/ready")).status_code == 200:
                    return
                await asyncio.sleep(0.02)

    async def _read_stdout(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.stdout += line.decode()
            if found := re.search(r"--token ([\w-]{43})$|Bearer ([\w-]{43})\"", line.decode()):
                self.agent_token = found[1] or self.agent_token
                self.api_token = found[2] or self.api_token

    async def _read_stderr(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            async with self._logged:
                self.stderr += line.decode()
                self._logged.notify_all()
            event = _json_event(line)
            if event.get("event") == "listening":
                self.url = str(event["url"])
                # A restart takes the same port, so that agents find it again.
                self.env["PORT"] = self.url.rpartition(":")[2]
                self._listening.set()


def _environment(overrides: Mapping[str, str | None]) -> dict[str, str]:
    settings = {name.upper() for name in Settings.model_fields}
    wanted: dict[str, str | None] = {name: value for name, value in os.environ.items() if name not in settings}
    wanted |= {"HOST": "127.0.0.1", "PORT": "0", "LOG_FORMAT": "json", "SHUTDOWN_GRACE_SECONDS": "1"}
    wanted |= {"HEALTH_CHECK_INTERVAL_SECONDS": "0"}  # tests count what agents are sent
    wanted |= {"API_TOKEN": secrets.token_urlsafe(32), "AGENT_SECRET_TOKEN": secrets.token_urlsafe(32)}
    wanted |= overrides
    return {name: value for name, value in wanted.items() if value is not None}


def _json_event(line: bytes) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
