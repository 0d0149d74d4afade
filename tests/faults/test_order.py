"""One agent's commands: a project's run one after another, each goes out when the one before was acknowledged."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.hosts import GoHostWithAgent, go_host, python_host
from tests.support.caller import Caller, calling
from tests.support.proxy import Proxy, Way
from tests.support.server import ServerProcess

ROUNDS = 4


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path) as server:
        yield server


@pytest.mark.promise("19")
async def test_on_a_real_host_one_projects_commands_run_in_their_order_and_a_status_passes_them(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with python_host(tmp_path, server) as host, calling(server) as caller:
        agent_id = await caller.online(host.hostname)
        began, steps = host.docker.fifo("began"), host.directory / "steps"
        for verb in ("up", "down"):
            script = f"echo {verb} >> {steps}; echo {verb} > {began.path}; read go < {host.gate.path}"
            host.docker.on(verb, f"{script}; echo end >> {steps}")
        jobs = [await caller.deploy("web", agent_id)]
        for _ in range(ROUNDS):
            jobs += [await caller.stop("web", agent_id), await caller.deploy("web", agent_id)]
        for verb, job in zip(["up", *["down", "up"] * ROUNDS], jobs, strict=True):
            assert await began.wait() == verb
            status = await caller.over(await caller.ask_status("web", agent_id))
            assert status["status"] == "completed"
            assert (await caller.job(job))["status"] == "in_progress"
            host.release("web")
            assert (await caller.over(job))["status"] == "completed"
        assert steps.read_text().split() == ["up", "end", *["down", "end", "up", "end"] * ROUNDS]


async def check_one_after_another(caller: Caller, host: GoHostWithAgent) -> None:
    """Deploy a project twice, and hold that the second begins when the first has ended."""
    host.agent.hold("web")
    agent_id = await caller.online(host.hostname)
    first = await caller.deploy("web", agent_id)
    await host.agent.started(1)
    second = await caller.deploy("web", agent_id)
    # What was to go out before this question has gone out when it is answered.
    assert (await caller.post(f"/agents/{agent_id}/health-check"))["status"] == "completed"
    assert host.runs() == {"web": 1}
    host.release("web")
    assert (await caller.over(second))["status"] == "completed"
    assert [run.job_id for run in host.agent.executions if run.type == "DEPLOY_COMPOSE"] == [first, second]
    assert host.agent.overlaps() == []


@pytest.mark.promise("19")
async def test_two_deploys_of_one_project_never_run_at_once_on_an_installed_agent(server: ServerProcess) -> None:
    async with go_host(server) as host, calling(server) as caller:
        await check_one_after_another(caller, host)


@pytest.mark.control("19")
async def test_without_the_order_of_a_project_they_do(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, sabotage="no_project_order") as server,
        go_host(server) as host,
        calling(server) as caller,
    ):
        with pytest.raises(AssertionError):
            await check_one_after_another(caller, host)


async def check_waits_for_the_acknowledgement(caller: Caller, host: GoHostWithAgent, proxy: Proxy) -> None:
    """Hold an acknowledgement back on its way, and hold that meanwhile no other command comes."""
    agent_id = await caller.online(host.hostname)
    proxy.hold(Way.TO_SERVER)
    first = await caller.deploy("one", agent_id)
    await host.agent.received(first)
    behind = [await caller.deploy("two", agent_id), await caller.deploy("three", agent_id)]
    assert [(await caller.job(job))["attempt"] for job in behind] == [0, 0]
    assert [command.id for command in host.agent.commands] == [first]
    proxy.let_go(Way.TO_SERVER)
    for job in (first, *behind):
        assert (await caller.over(job))["status"] == "completed"
    assert [command.id for command in host.agent.commands] == [first, *behind]
    assert host.agent.crashes == 0


@pytest.mark.promise("19")
async def test_the_next_command_goes_out_when_the_one_before_was_acknowledged(server: ServerProcess) -> None:
    async with Proxy(server.ws_url) as proxy, go_host(server, url=proxy.url) as host, calling(server) as caller:
        await check_waits_for_the_acknowledgement(caller, host, proxy)


@pytest.mark.control("19")
async def test_without_the_gate_it_goes_out_before(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, sabotage="no_acknowledgement_gate") as server,
        Proxy(server.ws_url) as proxy,
        go_host(server, url=proxy.url) as host,
        calling(server) as caller,
    ):
        with pytest.raises(AssertionError):
            await check_waits_for_the_acknowledgement(caller, host, proxy)
