"""Hosts for fault tests: one with the real Python agent as a process, one with the fake Go agent, counted alike.

What a project's deploys ran is counted where they run, never by what either side says of it. Each deploy of
a test has a project of its own, so that a count by project is a count by job.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from tests.support.agent_harness import AgentProcess
from tests.support.caller import PATIENCE_SECONDS, POLL_SECONDS
from tests.support.docker_stand_in import StandInDocker
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

HELD = "held"
"""Deploys of projects whose names begin so run until they are released."""


class Host(Protocol):
    """A host with an agent, whichever that is."""

    hostname: str

    def runs(self) -> Counter[str]:
        """Return how often each project was deployed here."""
        ...

    def connections(self) -> int:
        """Return how often its agent has connected so far, by its own account."""
        ...

    def release(self, project: str) -> None:
        """Let the held deploy of a project end."""
        ...


class PythonHost:
    """`agent` is a process, and `docker` what it runs."""

    def __init__(self, directory: Path, hostname: str, url: str, token: str, wrapper: Sequence[str]) -> None:
        self.hostname = hostname
        self.directory = directory / hostname
        self.docker = StandInDocker(self.directory / "docker")
        self.gate = self.docker.fifo("gate")
        self.docker.on("up", f'case "$(basename "$PWD")" in {HELD}*) read go < {self.gate.path};; esac')
        self.agent = AgentProcess(url, str(self.docker.path), self.directory, wrapper=wrapper)
        self.agent.extra_environ = {"AGENT_HOSTNAME": hostname, "AGENT_SECRET_TOKEN": token}

    def runs(self) -> Counter[str]:
        return Counter(project for _, project, _ in self.docker.calls("up"))

    def connections(self) -> int:
        return self.agent.log().count("Connected to ")

    def hold(self, verb: str) -> None:
        """Make every later `docker compose` of this verb take until it is released."""
        self.docker.on(verb, f"read go < {self.gate.path}")

    def release(self, project: str) -> None:
        self.gate.release()


class GoHostWithAgent:
    """The fake Go agent and its own host."""

    def __init__(self, agent: GoAgent) -> None:
        self.hostname = agent.hostname
        self.agent = agent

    def runs(self) -> Counter[str]:
        return Counter(run.project for run in self.agent.executions if run.type == "DEPLOY_COMPOSE")

    def connections(self) -> int:
        return self.agent.connections

    def release(self, project: str) -> None:
        self.agent.release(project)


async def connected_again(host: Host, after: int) -> None:
    """Wait until a host's agent has connected more often than `after` times.

    What was sent before may have been lost with the connection; what is sent now comes on the new one.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in itertools.count():
            if host.connections() > after:
                return
            await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def python_host(
    directory: Path, server: ServerProcess, hostname: str = "python-1", *, url: str = "", wrapper: Sequence[str] = ()
) -> AsyncIterator[PythonHost]:
    """Yield a host whose agent was just started, by `wrapper`; it dials `url`, by default the server's own."""
    host = PythonHost(directory, hostname, url or server.ws_url, server.agent_token, wrapper)
    try:
        await host.agent.start()
        yield host
    finally:
        await host.agent.close()
        host.docker.close()


@contextlib.asynccontextmanager
async def go_host(
    server: ServerProcess, hostname: str = "go-1", *, url: str = "", resend: bool = False
) -> AsyncIterator[GoHostWithAgent]:
    """Yield a host whose agent is connected. `resend`: it says that it answers known jobs without running them."""
    headers = {"X-Agent-Instance": "process-1", "X-Agent-Capabilities": "resend"} if resend else {}
    async with GoAgent(url or server.ws_url, server.agent_token, hostname, headers=headers) as agent:
        await agent.connected()
        yield GoHostWithAgent(agent)
