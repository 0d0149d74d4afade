"""Connections cut within every kind of bytes: one stable job id, at most three sends, never two runs at once.

A proxy between agent and server lets so many bytes pass and resets the connection: within the handshake, a
command's frame, its acknowledgement, its answer. What ran is counted on the host.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.hosts import HELD, Host, connected_again, go_host, python_host
from tests.support.caller import Caller, Document, calling
from tests.support.faults import chance
from tests.support.proxy import Proxy, Way
from tests.support.server import ServerProcess

MOST_SENDS = 3
CUTS_OF_EACH_KIND = 2
SHORTEST_COMMAND = 120
"""Bytes that every deploy takes at least: its job's id, its type and its keys."""


@dataclass(frozen=True)
class Sizes:
    """How many bytes one connection carries for its handshake and for one deploy."""

    request: int
    response: int
    command: int
    acknowledgement: int
    answer: int


@dataclass(frozen=True)
class Cut:
    """Where a connection is cut: after `at` bytes of a new connection, or of what comes from now on."""

    kind: str
    way: Way
    at: int
    new_connection: bool = False


def cuts(sizes: Sizes, choices: random.Random) -> list[Cut]:
    """Return cuts of every kind, at bytes chosen at random within each."""
    command_header, answer_header = 4, 8  # RFC 6455, 5.2: 126 to 65,535 bytes; what a client sends is masked
    first, last = sizes.acknowledgement, sizes.acknowledgement + sizes.answer
    kinds = [
        ("handshake request", Way.TO_SERVER, 0, sizes.request - 1),
        ("handshake response", Way.TO_AGENT, 0, sizes.response - 1),
        ("command header", Way.TO_AGENT, 0, command_header),
        ("command payload", Way.TO_AGENT, command_header + 1, sizes.command - 1),
        ("command's end", Way.TO_AGENT, sizes.command, sizes.command),
        ("acknowledgement header", Way.TO_SERVER, 0, answer_header),
        ("acknowledgement payload", Way.TO_SERVER, answer_header + 1, first - 1),
        ("answer header", Way.TO_SERVER, first, first + answer_header),
        ("answer payload", Way.TO_SERVER, first + answer_header + 1, last - 1),
    ]
    return [
        Cut(kind, way, choices.randint(lowest, highest), kind.startswith("handshake"))
        for kind, way, lowest, highest in kinds
        for _ in range(CUTS_OF_EACH_KIND)
    ]


async def measure(caller: Caller, host: Host, proxy: Proxy) -> Sizes:
    """Return the sizes of what the only connection so far carries, and of one deploy on it."""
    agent_id = await caller.online(host.hostname)
    hello = proxy.carried.copy()
    job = await caller.deploy(f"{HELD}-00", agent_id)
    await caller.acknowledged(job)
    begun = proxy.carried - hello
    host.release(f"{HELD}-00")
    assert (await caller.over(job))["status"] == "completed"
    ended = proxy.carried - hello - begun
    return Sizes(
        hello[Way.TO_SERVER], hello[Way.TO_AGENT], begun[Way.TO_AGENT], begun[Way.TO_SERVER], ended[Way.TO_SERVER]
    )


async def deploy_across(cut: Cut, project: str, caller: Caller, host: Host, proxy: Proxy) -> Document:
    """Deploy while the connection is cut as said; return the job when that has come to rest."""
    agent_id = await caller.online(host.hostname)
    cuts_before, connections = proxy.cuts, host.connections()
    if cut.new_connection:
        proxy.refusing = True
        proxy.cut()
        await caller.offline(host.hostname)
    proxy.cut_after(cut.at, cut.way)
    job = await caller.deploy(project, agent_id)
    proxy.refusing = False
    await proxy.until(lambda proxy: proxy.cuts > cuts_before)
    # Later work passes only when what was sent before has been judged.
    await connected_again(host, after=connections)
    assert (await caller.over(await caller.deploy(f"after-{project}", agent_id)))["status"] == "completed"
    if project.startswith(HELD):
        host.release(project)
    return await caller.job(job)


def check_sends(job: Document, runs: int) -> None:
    """Hold what every job is promised: three sends at most, and one run of each."""
    assert job["attempt"] <= MOST_SENDS, job
    assert runs <= 1, job


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path) as server:
        yield server


@pytest.mark.promise("6")
async def test_wherever_the_connection_is_cut_the_python_agent_runs_each_deploy_once(
    server: ServerProcess, tmp_path: Path
) -> None:
    choices = chance()
    async with (
        Proxy(server.ws_url) as proxy,
        python_host(tmp_path, server, url=proxy.url) as host,
        calling(server) as caller,
    ):
        sizes = await measure(caller, host, proxy)
        for number, cut in enumerate(cuts(sizes, choices)):
            project = f"p-{number:02}"
            job = await deploy_across(cut, project, caller, host, proxy)
            job = await caller.over(job["id"])
            check_sends(job, host.runs()[project])
            # It keeps its answers until they are delivered, so that none of them is lost.
            assert (job["status"], host.runs()[project]) == ("completed", 1), (cut, job)
        assert max(host.runs().values()) == 1


@pytest.mark.promise("6")
async def test_wherever_the_connection_is_cut_an_installed_agent_runs_each_deploy_once_at_most(
    server: ServerProcess,
) -> None:
    choices = chance()
    async with (
        Proxy(server.ws_url) as proxy,
        go_host(server, url=proxy.url) as host,
        calling(server) as caller,
    ):
        host.agent.hold(f"{HELD}-00")
        sizes = await measure(caller, host, proxy)
        for number, cut in enumerate(cuts(sizes, choices)):
            came = cut.kind == "command's end" or cut.kind.startswith("acknowledgement")
            project = f"{HELD if came else 'p'}-{number:02}"
            if came:  # an answer that this agent gives while no connection is up is lost for good
                host.agent.hold(project)
            job = await deploy_across(cut, project, caller, host, proxy)
            check_sends(job, host.runs()[project])
            if came or cut.kind == "handshake request":
                job = await caller.over(job["id"])
                assert (job["status"], host.runs()[project]) == ("completed", 1), (cut, job)
            elif cut.kind.startswith("answer"):
                assert (job["attempt"], host.runs()[project]) == (1, 1), (cut, job)
            elif host.runs()[project] == 0:
                # Whether it has come cannot be known here, so it is awaited and not sent again. So it is behind a
                # response to the handshake, for the server takes an agent for connected once it has written that.
                assert (job["status"], job["attempt"]) == ("queued", 1), (cut, job)
            else:
                assert cut.kind == "handshake response", (cut, job)
        assert host.agent.overlaps() == []


async def sent_while_every_send_is_cut(server: ServerProcess) -> Document:
    """Deploy to an agent that may be sent a command again, over connections that each die within the command."""
    choices = chance()
    async with (
        Proxy(server.ws_url) as proxy,
        go_host(server, url=proxy.url, resend=True) as host,
        calling(server) as caller,
    ):
        handshake = proxy.carried[Way.TO_AGENT]
        proxy.cut_after(choices.randint(0, SHORTEST_COMMAND))
        for _ in range(MOST_SENDS):
            proxy.cut_after(handshake + choices.randint(0, SHORTEST_COMMAND))
        agent_id = await caller.online(host.hostname)
        job = await caller.deploy("web", agent_id)
        await proxy.until(lambda proxy: proxy.cuts >= MOST_SENDS)
        await host.agent.connected(MOST_SENDS + 1)
        proxy.forget_plans()
        assert (await caller.over(await caller.deploy("after", agent_id)))["status"] == "completed"
        return await caller.job(job)


@pytest.mark.promise("6")
async def test_a_command_whose_every_send_is_cut_is_sent_three_times_and_no_more(server: ServerProcess) -> None:
    job = await sent_while_every_send_is_cut(server)
    check_sends(job, runs=0)
    assert (job["status"], job["attempt"]) == ("queued", MOST_SENDS)


@pytest.mark.control("6")
async def test_without_the_limit_of_sends_it_is_sent_more_often(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, sabotage="no_send_limit") as server:
        job = await sent_while_every_send_is_cut(server)
    with pytest.raises(AssertionError):
        check_sends(job, runs=0)


async def run_while_the_connection_is_cut(server: ServerProcess) -> tuple[Document, int]:
    """Cut an installed agent's connection when it has begun a deploy, and its acknowledgement is still on its way.

    Returns the job and how often it was run, once later work has passed.
    """
    async with Proxy(server.ws_url) as proxy, go_host(server, url=proxy.url) as host, calling(server) as caller:
        host.agent.hold("web")
        agent_id = await caller.online(host.hostname)
        proxy.hold(Way.TO_SERVER)
        job = await caller.deploy("web", agent_id)
        await host.agent.started(1)
        proxy.cut()
        proxy.let_go(Way.TO_SERVER)
        await connected_again(host, after=1)
        assert (await caller.over(await caller.deploy("after", agent_id)))["status"] == "completed"
        return await caller.job(job), host.runs()["web"]


@pytest.mark.promise("6")
async def test_an_installed_agent_that_may_be_running_a_command_is_not_sent_it_again(server: ServerProcess) -> None:
    job, runs = await run_while_the_connection_is_cut(server)
    check_sends(job, runs)
    assert (job["status"], job["attempt"]) == ("queued", 1)


@pytest.mark.control("6")
async def test_sent_again_an_installed_agent_runs_it_twice_at_once(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, sabotage="resend_to_all") as server:
        job, runs = await run_while_the_connection_is_cut(server)
    with pytest.raises(AssertionError):
        check_sends(job, runs)


@pytest.mark.promise("6")
async def test_a_connection_that_is_half_closed_is_made_anew_and_nothing_runs_twice(server: ServerProcess) -> None:
    async with Proxy(server.ws_url) as proxy, go_host(server, url=proxy.url) as host, calling(server) as caller:
        agent_id = await caller.online(host.hostname)
        for number, way in enumerate(Way, start=2):
            proxy.half_close(way)
            job = await caller.deploy(f"p-{number}", agent_id)
            await host.agent.connected(number)
            async with asyncio.timeout(20):
                after = await caller.over(await caller.deploy(f"after-{number}", agent_id))
            assert after["status"] == "completed"
            check_sends(await caller.job(job), host.runs()[f"p-{number}"])
