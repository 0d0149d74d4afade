"""Answers that come on a later connection than their command's, also after the server was killed: all of them count."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.hosts import HELD, GoHostWithAgent, Host, go_host, python_host
from tests.support.caller import Caller, Document, calling
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess

AGENTS = 50
PROJECTS = 10
"""An agent: 500 jobs in flight together."""
QUEUED = 25


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def fleet_of(server: ServerProcess, count: int) -> AsyncIterator[list[GoHostWithAgent]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(go_host(server, f"go-{n}")) for n in range(count)]


async def answered_on_a_later_connection(caller: Caller, host: Host, proxy: Proxy) -> Document:
    """Cut the connection of an agent that has acknowledged a deploy, let that end afterwards, and return the job."""
    agent_id = await caller.online(host.hostname)
    job = await caller.deploy(HELD, agent_id)
    assert (await caller.acknowledged(job))["status"] == "in_progress"
    proxy.refusing = True
    proxy.cut()
    await caller.offline(host.hostname)
    proxy.refusing = False
    await caller.online(host.hostname)
    host.release(HELD)
    return await caller.over(job)


def check_counted(job: Document, host: Host) -> None:
    """Hold that the agent's answer counted, and that it did the work once."""
    assert (job["status"], job["reason"], host.runs()[HELD]) == ("completed", None, 1), job


@pytest.mark.promise("8")
async def test_an_installed_agents_answer_on_a_later_connection_counts(server: ServerProcess) -> None:
    async with Proxy(server.ws_url) as proxy, go_host(server, url=proxy.url) as host, calling(server) as caller:
        host.agent.hold(HELD)
        check_counted(await answered_on_a_later_connection(caller, host, proxy), host)


@pytest.mark.promise("8")
async def test_the_python_agents_answer_on_a_later_connection_counts(server: ServerProcess, tmp_path: Path) -> None:
    async with (
        Proxy(server.ws_url) as proxy,
        python_host(tmp_path, server, url=proxy.url) as host,
        calling(server) as caller,
    ):
        check_counted(await answered_on_a_later_connection(caller, host, proxy), host)


@pytest.mark.control("8")
async def test_bound_to_the_connection_of_its_command_the_answer_is_lost(tmp_path: Path) -> None:
    env = {"DEPLOY_TIMEOUT_SECONDS": "3"}
    async with (
        ServerProcess(tmp_path, env, sabotage="answers_bound_to_connection") as server,
        Proxy(server.ws_url) as proxy,
        go_host(server, url=proxy.url) as host,
        calling(server) as caller,
    ):
        host.agent.hold(HELD)
        job = await answered_on_a_later_connection(caller, host, proxy)
        assert (await host.agent.answered(job["id"])).status == "COMPLETED"
        with pytest.raises(AssertionError):
            check_counted(job, host)


@pytest.mark.promise("8")
@pytest.mark.promise("10")
async def test_500_jobs_in_flight_and_those_queued_behind_outlive_kill_9_of_the_server(server: ServerProcess) -> None:
    async with fleet_of(server, AGENTS) as hosts, calling(server) as caller:
        projects = [f"p-{n}" for n in range(PROJECTS)]
        ids = {host.hostname: await caller.online(host.hostname) for host in hosts}
        for host in hosts:
            for project in projects:
                host.agent.hold(project)
        flying = [
            await asyncio.gather(*(caller.deploy(project, ids[host.hostname]) for host in hosts))
            for project in projects
        ]
        for host in hosts:
            await host.agent.started(PROJECTS)
        queued = await queue_behind(caller, hosts[0], projects[-1])
        await server.kill()
        await server.start()
        for host in hosts[1:]:
            await host.agent.connected(2)
        hosts[0].agent.plug_in()
        await hosts[0].agent.connected(2)
        ended = []
        for project, jobs in zip(projects, flying, strict=True):
            # Two that end in the same instant would crash an installed agent.
            for host in hosts:
                host.release(project)
            ended += await asyncio.gather(*(caller.over(job) for job in jobs))
        ended += await asyncio.gather(*(caller.over(job) for job in queued))
        everything = [*itertools.chain(*flying), *queued]
        assert Counter(job["status"] for job in ended) == {"completed": len(everything)}
        runs = Counter(run.job_id for host in hosts for run in host.agent.executions)
        assert runs == dict.fromkeys(everything, 1)
        assert [overlap for host in hosts for overlap in host.agent.overlaps()] == []


async def queue_behind(caller: Caller, host: GoHostWithAgent, project: str) -> list[str]:
    """Take an agent off the network and queue deploys behind the one of a project that it runs; return their jobs."""
    host.agent.unplug()
    agent_id = await caller.offline(host.hostname)
    return await asyncio.gather(*(caller.deploy(project, agent_id) for _ in range(QUEUED)))
