"""While hostile Compose files come in without end, everybody else is served as before, and memory stays."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psutil
import pytest

from tests.support.caller import Caller, calling
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess
from tests.unit.test_compose_bombs import BOMBS, many_ports

CALLERS = 4
DEPLOYS = 30
BESIDE_BOMBS = 9
MAX_RATIO = 7
"""Two processors and the callers' own work on them leave 2 to 3; what is not kept apart, 14 and more."""
MAX_GROWTH_BYTES = 200 * 1024 * 1024
"""Of the server and its two judges together, which have about as much when they start."""

CORPUS = [
    BOMBS[name]() for name in ("lists nested 50,000 deep", "aliases of aliases", "merges of merges", "a flat mapping")
]
LARGE = [BOMBS["wrong environment list"](), BOMBS["a flat extension"](), BOMBS["unique items"]()]
SMALL = [many_ports(100, 400)]
"""5 KiB, within every bound, and a quarter of a second to judge."""


async def deploy_seconds(caller: Caller, deploys: int) -> float:
    """Return how long an ordinary deploy takes in the middle, from its request to its agent's answer."""
    took = []
    for number in range(deploys):
        body = {"project_name": f"shop-{number % 8}", "compose_file": "services: {web: {image: nginx}}"}
        started = time.perf_counter()
        answer = await caller.post("/deploy", body, wait=30)
        took.append(time.perf_counter() - started)
        assert answer["status"] == "completed"
    return statistics.median(took)


@asynccontextmanager
async def bombarded(caller: Caller, bombs: Sequence[str]) -> AsyncIterator[list[int]]:
    """Post `bombs` over and over, by several callers, while the `with` block runs; yields the statuses."""
    statuses: list[int] = []
    underway = asyncio.Event()

    async def post(source: str) -> None:
        body = {"project_name": "bomb", "compose_file": source, "agent_id": 10**6}
        statuses.append((await caller.client.post("/deploy", json=body)).status_code)
        underway.set()

    async def keep_on(first: int) -> None:
        for number in itertools.count(first):
            await post(bombs[number % len(bombs)])

    tasks = [asyncio.create_task(keep_on(number)) for number in range(CALLERS)]
    await underway.wait()
    yield statuses
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), ended


def memory(server: ServerProcess) -> int:
    """Return the bytes that the server and its judges have in memory."""
    process = psutil.Process(server.pid)
    return sum(each.memory_info().rss for each in [process, *process.children()])


async def check_bombs(server: ServerProcess, bombs: Sequence[str]) -> None:
    """Assert that ordinary deploys take about as long with bombs coming in as they do without."""
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent, calling(server) as caller:
        await agent.connected()
        await deploy_seconds(caller, 5)
        calm, before = await deploy_seconds(caller, DEPLOYS), memory(server)
        judges = {child.pid for child in psutil.Process(server.pid).children()}
        async with bombarded(caller, bombs) as statuses:
            shaken = await deploy_seconds(caller, BESIDE_BOMBS)
        print(f"calm {calm * 1000:.1f} ms, bombarded {shaken * 1000:.1f} ms, {len(statuses)} bombs")  # noqa: T201
        assert set(statuses) <= {404, 422}
        assert shaken < MAX_RATIO * calm, f"{shaken / calm:.0f} times as long beside bombs"
        assert memory(server) - before < MAX_GROWTH_BYTES
        assert {child.pid for child in psutil.Process(server.pid).children()} == judges, "a bomb killed its judge"


@pytest.mark.promise("parser bombs")
async def test_hostile_files_hold_up_nobody_elses_deploys() -> None:
    async with ServerProcess() as server:
        for bombs in (CORPUS, LARGE, SMALL):
            await check_bombs(server, bombs)


@pytest.mark.control("parser bombs")
async def test_files_judged_in_the_server_itself_would_be_noticed() -> None:
    async with ServerProcess(sabotage="files_judged_in_the_server") as server:
        with pytest.raises(AssertionError, match="times as long beside bombs"):
            await check_bombs(server, LARGE)


@pytest.mark.control("parser bombs")
async def test_aliases_judged_with_everybodys_small_files_would_be_noticed() -> None:
    async with ServerProcess(sabotage="aliases_judged_with_the_rest") as server:
        with pytest.raises(AssertionError, match="times as long beside bombs"):
            await check_bombs(server, SMALL)
