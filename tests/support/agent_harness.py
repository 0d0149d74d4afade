"""Runs the real agent as a process, against a real WebSocket server and a stand-in for Docker's program.

Process tests use it. The stand-in is a shell script named `docker` that records its calls and does what the
test's own script for that command says; everything is waited for through frames and FIFOs, never by the clock.
"""

import asyncio
import base64
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from control_plane.core.protocol import MAX_MESSAGE_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a-token-that-must-not-leak"
PATIENCE_SECONDS = 30
WEB = "services:\n  web:\n    image: example.invalid/web:1\n"

_TOOLS = ("basename", "env", "timeout", "yes")
"""What scripts may use: PATH holds nothing else, so that no real Docker of the machine is found."""

_DOCKER = """#!/bin/sh
home={home}
if [ "$1" = compose ]; then verb=$2; else verb=engine-$1; fi
[ "$3" = --all ] && verb=ps-json
printf '%s\\t%s\\t%s\\n' "$verb" "$(basename "$PWD")" "$*" >> "$home/calls"
[ -e "$home/on-$verb" ] && . "$home/on-$verb"
exit 0
"""


class Fifo:
    """A named pipe between a test and a child's script: either side waits for the other, without a clock."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Open both ways, so that opening never blocks and no end is ever missing.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def release(self) -> None:
        """Let one `read` in a script return."""
        os.write(self._descriptor, b"go\n")

    async def wait(self) -> str:
        """Return the next line that a script writes."""
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, readable.set)
        try:
            line = b""
            while not line.endswith(b"\n"):
                readable.clear()
                await asyncio.wait_for(readable.wait(), PATIENCE_SECONDS)
                line += os.read(self._descriptor, 1)
            return line.decode().rstrip("\n")
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class StandInDocker:
    """A directory for PATH whose `docker` does as told. Commands are named `up`, `down`, `ps`, `engine-version`."""

    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.path = directory / "bin"
        self.path.mkdir(parents=True)
        self._fifos: list[Fifo] = []
        for tool in _TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        program = self.path / "docker"
        program.write_text(_DOCKER.format(home=shlex.quote(str(directory))))
        program.chmod(0o755)
        self.on("version", "echo 5.6.1")
        self.on("engine-version", "echo 28.2.2")
        self.on("ps", "echo NAME IMAGE; echo web-1 example.invalid/web:1")
        self.on("ps-json", """echo '{"Name":"web-1","State":"running"}'; echo '{"Name":"db-1","State":"exited"}'""")

    def on(self, verb: str, script: str) -> None:
        """Run `script` (sh) for every later call of `verb`."""
        (self.home / f"on-{verb}").write_text(script)

    def fifo(self, name: str) -> Fifo:
        self._fifos.append(Fifo(self.home / name))
        return self._fifos[-1]

    def calls(self, *verbs: str) -> list[tuple[str, str, str]]:
        """Return (verb, directory name, arguments) of the calls so far, in order; all, or those of `verbs`."""
        try:
            lines = (self.home / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = [line.split("\t") for line in lines]
        return [(row[0], row[1], row[2]) for row in rows if not verbs or row[0] in verbs]

    def close(self) -> None:
        for each in self._fifos:
            each.close()


@dataclass
class Link:
    """One connection of the agent, seen from the control plane."""

    socket: ServerConnection
    frames: list[dict[str, Any]] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def headers(self) -> Mapping[str, str]:
        assert self.socket.request is not None
        return self.socket.request.headers

    async def read(self) -> None:
        try:
            async for text in self.socket:
                async with self._news:
                    self.frames.append(json.loads(text))
                    self.arrived_at.append(time.monotonic())
                    self._news.notify_all()
        except ConnectionClosed:
            pass
        finally:
            self.ended.set()

    async def send(self, job_id: str, kind: str, **payload: Any) -> None:
        await self.socket.send(json.dumps({"id": job_id, "type": kind, "payload": payload}))

    async def deploy(self, job_id: str, project: str = "web", compose_file: str = WEB) -> None:
        encoded = base64.b64encode(compose_file.encode()).decode()
        await self.send(job_id, "DEPLOY_COMPOSE", project_name=project, compose_file_base64=encoded)

    async def wait_for(self, matches: Callable[[dict[str, Any]], bool], count: int = 1) -> dict[str, Any]:
        """Return the `count`-th frame that matches, once it has come."""

        def found() -> list[dict[str, Any]]:
            return [frame for frame in self.frames if matches(frame)]

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(found()) >= count), PATIENCE_SECONDS)
        return found()[count - 1]

    async def final(self, job_id: str, count: int = 1) -> dict[str, Any]:
        return await self.wait_for(lambda frame: is_final(frame) and frame["job_id"] == job_id, count)

    async def log(self, job_id: str, text: str) -> dict[str, Any]:
        """Return the first answer of the job whose logs hold `text`."""
        return await self.wait_for(lambda frame: frame["job_id"] == job_id and text in frame["logs"])

    def of(self, job_id: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["job_id"] == job_id]


def is_final(frame: dict[str, Any]) -> bool:
    return frame["status"] in {"COMPLETED", "FAILED"}


class ControlPlaneStandIn:
    """A WebSocket server on a free port that hands each connection to the test."""

    def __init__(self) -> None:
        self.refuse_with: list[int] = []
        self.refused = asyncio.Event()
        self._links: asyncio.Queue[Link] = asyncio.Queue()
        self._server: Server | None = None
        self.port = 0

    async def open(self) -> None:
        self._server = await serve(
            self._handle, "127.0.0.1", self.port, process_request=self._admit, max_size=MAX_MESSAGE_BYTES
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """Drop every connection and stop listening; `open` listens again on the same port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def link(self) -> Link:
        """Return the next connection."""
        return await asyncio.wait_for(self._links.get(), PATIENCE_SECONDS)

    async def _handle(self, socket: ServerConnection) -> None:
        link = Link(socket)
        self._links.put_nowait(link)
        await link.read()

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if not self.refuse_with:
            return None
        status = self.refuse_with.pop(0)
        self.refused.set()
        return socket.respond(HTTPStatus(status), "no\n")


class AgentProcess:
    """`python -m agent` with an environment of its own; its stderr is kept in a file."""

    def __init__(self, url: str, path: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.projects = directory / "projects"
        self.extra_environ: dict[str, str] = {}
        self._path = path
        self._log = directory / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *flags: str) -> None:
        environ = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        environ |= {
            "PATH": self._path,
            "HOME": str(self.directory),
            "SERVER_URL": self.url,
            "AGENT_SECRET_TOKEN": TOKEN,
            "AGENT_HOSTNAME": "host-a",
            "PROJECTS_DIR": str(self.projects),
            **self.extra_environ,
        }
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "agent",
                *flags,
                env=environ,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def wait(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to its process group, as a terminal or a service manager does; return the exit code."""
        os.killpg(self.process.pid, number)
        return await self.wait()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop()

    async def logged(self, text: str) -> None:
        """Wait until the agent has logged `text`; the file's end is watched as `tail -f` does."""
        follower = await asyncio.create_subprocess_exec(
            "tail", "-c", "+1", "-f", str(self._log), stdout=asyncio.subprocess.PIPE
        )
        assert follower.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while text not in (await follower.stdout.readline()).decode():
                    pass
        finally:
            follower.kill()
            await follower.communicate()

    def log(self) -> str:
        return self._log.read_text()

    def peak_memory_bytes(self) -> int:
        """Return the most memory that the process has had resident so far (proc(5))."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def kept_answers(self, state: str) -> int:
        """Return how many answers the agent keeps on disk as `unsent` or `sent`."""
        return len(list((self.projects / ".instadeploy" / state).glob("*.json")))


@dataclass(frozen=True)
class Stage:
    """A control plane, a Docker and an agent that is not started yet."""

    control_plane: ControlPlaneStandIn
    docker: StandInDocker
    agent: AgentProcess


@asynccontextmanager
async def set_stage(directory: Path) -> AsyncIterator[Stage]:
    """Yield a stage in `directory`, and end on it what was started."""
    control_plane, docker = ControlPlaneStandIn(), StandInDocker(directory / "docker")
    await control_plane.open()
    agent = AgentProcess(control_plane.url, str(docker.path), directory)
    try:
        yield Stage(control_plane, docker, agent)
    finally:
        await agent.close()
        await control_plane.close()
        docker.close()
