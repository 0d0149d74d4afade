"""The Python agent as a process, for tests that kill it and start it again on the same projects."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
START_SECONDS = 30
STOP_SECONDS = 15


class AgentProcess:
    """`async with AgentProcess(server, directory) as agent:` an agent that is connected, and gone afterwards."""

    def __init__(self, server: ServerProcess, projects_dir: Path, *arguments: str) -> None:
        self._arguments = arguments
        self._env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SERVER_URL": server.ws_url,
            "AGENT_SECRET_TOKEN": server.agent_token,
            "AGENT_HOSTNAME": "e2e-agent",
            "PROJECTS_DIR": str(projects_dir),
        }
        self._cwd = projects_dir.parent
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self.output = ""

    async def start(self) -> None:
        """Start it and return when it has a connection."""
        self._connected.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent",
            *self._arguments,
            cwd=self._cwd,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        await self.until_connected()

    async def until_connected(self) -> None:
        """Return when it has (again) got a connection since its start or the last `forget_connection`."""
        try:
            await asyncio.wait_for(self._connected.wait(), START_SECONDS)
        except TimeoutError:
            raise AssertionError(f"the agent is not connected within {START_SECONDS} s\n{self.output}") from None

    def forget_connection(self) -> None:
        """From here on `until_connected` means a connection still to be made."""
        self._connected.clear()

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would; its `docker compose` goes on."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def terminate(self) -> int:
        """Ask it to stop; return its exit status."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.terminate()
        finally:
            await self.kill()
            assert self._reader is not None
            await self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.output += line.decode(errors="replace")
            if b"Connected to " in line:
                self._connected.set()
