"""Promise 21: restarts that nobody notices. Under load, agents of both kinds at work, callers that only send again."""

import asyncio
import contextlib
import os
import random
import secrets
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.faults.hosts import Host, go_host, python_host
from tests.support.app import WEB
from tests.support.caller import TERMINAL, Document, calling
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome
from tests.support.raw_socket import RawSocket
from tests.support.server import ServerProcess

GO_AGENTS = 10
RESTARTS = 3
LONGEST_WORK_SECONDS = 0.6
DEPLOYS_BETWEEN = GO_AGENTS
QUIET_AGENTS = 900
EXPECTED_SPREAD_SECONDS = (QUIET_AGENTS / 100 - 1) * 0.05
"""A hundred at once, two thousand a second."""


class Load:
    """One caller an agent, who deploys one project after the other and waits for each; `ended` are its jobs."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._progress = asyncio.Event()
        self._enough = False
        self.ended: list[Document] = []

    async def call(self, agent_id: int) -> None:
        """Deploy until it is enough. What is not answered to the end is sent again with the same key."""
        async with self._server.client() as client:
            for number in range(10_000):
                if self._enough:
                    return
                self.ended.append(await self._deploy(client, agent_id, f"p-{agent_id}-{number}"))
                self._progress.set()

    async def _deploy(self, client: httpx.AsyncClient, agent_id: int, project: str) -> Document:
        body = {"project_name": project, "compose_file": WEB, "agent_id": agent_id, "when_offline": "queue"}
        while True:
            with contextlib.suppress(httpx.TransportError):
                headers = {"Idempotency-Key": project}
                answer = await client.post("/deploy", json=body, headers=headers, params={"wait": 20})
                assert answer.status_code in {200, 503}, answer.text
                document: Document = answer.json()
                if document["status"] in TERMINAL:
                    return document
            await asyncio.sleep(0.02)

    async def more(self, deploys: int) -> None:
        """Wait until so many more deploys have ended."""
        wanted = len(self.ended) + deploys
        async with asyncio.timeout(60):
            while len(self.ended) < wanted:
                self._progress.clear()
                await self._progress.wait()

    def enough(self) -> None:
        self._enough = True


async def restart_under_load(
    server: ServerProcess, directory: Path, restarts: int
) -> tuple[list[Document], list[Host]]:
    """Restart the server again and again while every agent works; return the jobs and where they ran."""
    load = Load(server)
    async with contextlib.AsyncExitStack() as stack:
        hosts: list[Host] = [await stack.enter_async_context(python_host(directory, server))]
        for number in range(GO_AGENTS):
            host = await stack.enter_async_context(go_host(server, f"go-{number}"))
            host.agent.time_scale = 0.01
            work_slowly(host.agent)
            hosts.append(host)
        async with calling(server) as caller:
            ids = [await caller.online(host.hostname) for host in hosts]
        calls = [asyncio.create_task(load.call(agent_id)) for agent_id in ids]
        for _ in range(restarts):
            await load.more(DEPLOYS_BETWEEN)
            assert await server.terminate() == 0, server.output
            await server.start()
        await load.more(DEPLOYS_BETWEEN)
        load.enough()
        await asyncio.gather(*calls)
        return load.ended, hosts


def work_slowly(agent: GoAgent) -> None:
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbits(32))
    print(f"FAULT_SEED={seed} {agent.hostname}")  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)

    async def work(command: Command) -> Outcome:
        await asyncio.sleep(chance.uniform(0, LONGEST_WORK_SECONDS))
        return await agent.host.compose(command)

    agent.work = work


def check_nothing_noticed(jobs: list[Document], hosts: list[Host]) -> None:
    """Hold that every job completed and ran once."""
    assert Counter(job["status"] for job in jobs) == {"completed": len(jobs)}
    assert len({job["job_id"] for job in jobs}) == len(jobs)
    runs = sum((host.runs() for host in hosts), Counter[str]())
    assert set(runs.values()) == {1}
    assert len(runs) == len(jobs)


@pytest.mark.promise("21")
@pytest.mark.promise("5")
async def test_rolling_restarts_under_load_fail_no_job(tmp_path: Path) -> None:
    async with ServerProcess(None, {"SHUTDOWN_GRACE_SECONDS": None}) as server:
        check_nothing_noticed(*await restart_under_load(server, tmp_path, RESTARTS))
        assert server.stderr.count('"event": "stopped"') == RESTARTS
        assert '"level": "error"' not in server.stderr, server.output


@pytest.mark.control("21")
async def test_without_the_drain_a_restart_under_load_loses_what_ends_meanwhile(tmp_path: Path) -> None:
    env = {"SHUTDOWN_GRACE_SECONDS": None, "DEPLOY_TIMEOUT_SECONDS": "4"}
    async with ServerProcess(None, env, sabotage="no_drain") as server:
        jobs, hosts = await restart_under_load(server, tmp_path, 1)
        with pytest.raises(AssertionError):
            check_nothing_noticed(jobs, hosts)
        assert {"execution_timeout", "agent_lost"} & {job["reason"] for job in jobs}


async def seconds_between_first_and_last_close(server: ServerProcess) -> float:
    """Connect a fleet, stop the server, and measure how far apart the agents heard of it."""
    heard: list[tuple[float, bytes]] = []

    async def listen(number: int) -> None:
        async with gate:
            raw = await RawSocket.open(server.ws_url, server.agent_token, f"host-{number}")
        async with raw:
            connected.append(number)
            frame = await raw.reader.read(4)
            heard.append((time.monotonic(), frame))

    gate = asyncio.Semaphore(50)
    connected: list[int] = []
    listening = [asyncio.create_task(listen(number)) for number in range(QUIET_AGENTS)]
    async with calling(server) as caller, asyncio.timeout(40):
        while (await caller.get("/health"))["connected_agents"] < QUIET_AGENTS or len(connected) < QUIET_AGENTS:
            pass
    assert await server.terminate() == 0, server.output
    await asyncio.gather(*listening)
    codes = Counter(int.from_bytes(frame[2:4], "big") for _, frame in heard)
    assert codes == {1012: QUIET_AGENTS}
    return max(heard)[0] - min(heard)[0]


def check_bounded_rate(seconds: float) -> None:
    """Hold that the fleet was not told all at once."""
    assert seconds > 0.9 * EXPECTED_SPREAD_SECONDS, seconds


@pytest.mark.promise("21")
async def test_sockets_are_closed_at_a_bounded_rate(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, {"SHUTDOWN_GRACE_SECONDS": None}) as server:
        check_bounded_rate(await seconds_between_first_and_last_close(server))


@pytest.mark.control("21")
async def test_without_the_drain_the_whole_fleet_is_told_at_once(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, {"SHUTDOWN_GRACE_SECONDS": None}, sabotage="no_drain") as server:
        with pytest.raises(AssertionError):
            check_bounded_rate(await seconds_between_first_and_last_close(server))
