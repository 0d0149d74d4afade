"""Agents that read nothing: closed within 30 s, cheap until then, unnoticed by others; their jobs end truthfully.

The guarded server and the one without the guard are watched in the same half minute, for nothing can hurry it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.stalled import DEPLOYS_EACH, StalledFigures, hostname, stall
from tests.faults.loads import measured
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

STALLED, GOOD = 100, 100
SHARED_CORES_RISE = 3.0
"""Two servers and their loads share the cores with whatever else runs."""

Jobs = list[dict[str, Any]]


async def stalled(sabotage: str | None) -> tuple[StalledFigures, Jobs]:
    """Return the figures, and what had become of one stalled agent's jobs after an agent of its name was back."""
    async with ServerProcess(sabotage=sabotage) as server:
        figures = await stall(measured(server), STALLED, GOOD)
        if sabotage:
            return figures, []
        async with GoAgent(server.ws_url, server.agent_token, hostname(0)) as back, server.client() as client:
            await back.connected()
            agents = (await client.get("/agents", params={"limit": 1000})).json()["agents"]
            agent_id = next(one["id"] for one in agents if one["hostname"] == hostname(0))
            jobs = (await client.get("/jobs", params={"agent_id": agent_id})).json()["jobs"]
            return figures, [(await client.get(f"/jobs/{job['id']}", params={"wait": 30})).json() for job in jobs]


@pytest.fixture(scope="module")
def watched() -> Mapping[str, tuple[StalledFigures, Jobs]]:
    async def both() -> Any:
        return await asyncio.gather(stalled(None), stalled("no_pings"))

    guarded, unguarded = asyncio.run(both())
    return {"guarded": guarded, "unguarded": unguarded}


def check_they_are_closed_and_nobody_noticed(figures: StalledFigures) -> None:
    assert figures.broken(SHARED_CORES_RISE) == [], figures


@pytest.mark.promise("14")
def test_agents_that_read_nothing_are_closed_in_time_and_nobody_notices(
    watched: Mapping[str, tuple[StalledFigures, Jobs]],
) -> None:
    check_they_are_closed_and_nobody_noticed(watched["guarded"][0])


@pytest.mark.promise("14")
def test_jobs_of_an_agent_that_read_nothing_end_truthfully(
    watched: Mapping[str, tuple[StalledFigures, Jobs]],
) -> None:
    """What may have been sent is not said to have run, and what was not goes out to the agent that comes back."""
    jobs = watched["guarded"][1]
    assert len(jobs) == DEPLOYS_EACH
    ends = {(job["status"], job["reason"]) for job in jobs}
    assert ends <= {("completed", None), ("failed", "agent_lost"), ("failed", "execution_timeout")}, jobs
    assert ("completed", None) in ends
    assert len(ends) > 1


@pytest.mark.control("14")
def test_without_pings_they_are_not_closed_in_time(watched: Mapping[str, tuple[StalledFigures, Jobs]]) -> None:
    with pytest.raises(AssertionError, match="the last was closed after"):
        check_they_are_closed_and_nobody_noticed(watched["unguarded"][0])
