"""Promise 10: twenty restarts, by signal and by kill, and nothing is declared lost that its agent may still answer."""

import itertools
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.hosts import go_host
from tests.support.caller import Document, calling
from tests.support.server import ServerProcess

RESTARTS = 20
IN_FLIGHT = 25
NO_GRACE = {"SHUTDOWN_GRACE_SECONDS": "0"}


async def restart_again_and_again(server: ServerProcess, restarts: int) -> tuple[list[Document], Counter[str]]:
    """Restart the server with jobs in flight, one of which ends after each restart; return all and what ran."""
    projects = [f"p-{number}" for number in range(IN_FLIGHT)]
    async with go_host(server) as host, calling(server) as caller:
        host.agent.time_scale = 0.01
        agent_id = await caller.online(host.hostname)
        for project in projects:
            host.agent.hold(project)
        jobs = [await caller.deploy(project, agent_id) for project in projects]
        await host.agent.started(IN_FLIGHT)
        ended = []
        for number, (job, project) in enumerate(zip(jobs, projects, strict=True)):
            if number < restarts:
                await server.terminate(signal.SIGKILL if number % 2 else signal.SIGTERM)
                await server.start()
                await caller.online(host.hostname)
            host.release(project)
            ended.append(await caller.over(job))
        return ended, Counter(itertools.chain(run.job_id for run in host.agent.executions))


def check_nothing_lost(jobs: list[Document], runs: Counter[str]) -> None:
    """Hold that every job completed, and that none was sent again."""
    assert [(job["status"], job["reason"], job["attempt"]) for job in jobs] == [("completed", None, 1)] * IN_FLIGHT
    assert runs == dict.fromkeys((job["id"] for job in jobs), 1)


@pytest.mark.timeout(300)
@pytest.mark.promise("10")
async def test_twenty_restarts_with_jobs_in_flight_declare_nothing_lost(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, NO_GRACE) as server:
        check_nothing_lost(*await restart_again_and_again(server, RESTARTS))


@pytest.mark.control("10")
async def test_taken_for_lost_with_their_connection_jobs_fail_that_their_agent_answers(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, NO_GRACE, sabotage="sent_is_lost") as server:
        jobs, runs = await restart_again_and_again(server, 1)
        assert set(runs.values()) == {1}
        with pytest.raises(AssertionError):
            check_nothing_lost(jobs, runs)
        assert "agent_lost" in {job["reason"] for job in jobs}
