"""Runs the real Python agent as a process, and sets the stage for it: a control plane and a Docker, both stand-ins.

Process tests use it. The agent gets an environment of its own, so that nothing of the machine or of the test run
reaches it, and what a test has started on a stage ends with it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.control_plane_stand_in import ControlPlaneStandIn
from tests.support.docker_stand_in import StandInDocker
from tests.support.patience import PATIENCE_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a-token-that-must-not-leak"


class AgentProcess:
    """`python -m agent` with an environment of its own; its stderr is kept in a file.

    `wrapper` is a command to start it by, such as `ip netns exec NAME`.
    """

    def __init__(self, url: str, path: str, directory: Path, *, wrapper: Sequence[str] = ()) -> None:
        self.url = url
        self.wrapper = wrapper
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
                *self.wrapper,
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

    def token_files(self) -> list[Path]:
        """Return the files that keep the agent's own tokens, those of unfinished writes included."""
        return sorted((self.projects / ".instadeploy" / "tokens").glob("*")) + sorted(
            (self.projects / ".instadeploy" / "tokens").glob(".*")
        )

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
