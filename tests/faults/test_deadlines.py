"""Every job is over by its deadline and five seconds, whenever its agent is killed, and says truthfully why."""

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.hosts import HELD, PythonHost, python_host
from tests.support.caller import Caller, Document, calling
from tests.support.proxy import Proxy, Way
from tests.support.server import ServerProcess

LATE_SECONDS = 5
SECONDS = "6"
"""Long enough for an agent on a busy machine to be in the phase in which it is killed."""
SHORT = {
    "DEPLOY_TIMEOUT_SECONDS": SECONDS,
    "STOP_TIMEOUT_SECONDS": SECONDS,
    "QUERY_TIMEOUT_SECONDS": SECONDS,
    "QUEUE_TIMEOUT_SECONDS": SECONDS,
}
KINDS = ("deploy", "stop", "status")


async def command(kind: str, caller: Caller, agent_id: int) -> str:
    """Have an agent told to do something that it will be at until it is killed; return the job's id."""
    if kind == "deploy":
        return await caller.deploy(HELD, agent_id)
    if kind == "stop":
        return await caller.stop("to-stop", agent_id)
    return await caller.ask_status("to-ask-about", agent_id)


async def over_in_time(caller: Caller, job_id: str) -> Document:
    """Return a job that failed by its deadline, after holding that it was in time and says why."""
    deadline = datetime.fromisoformat((await caller.job(job_id))["deadline_at"])
    left = deadline + timedelta(seconds=LATE_SECONDS) - datetime.now(UTC)
    job = await caller.get(f"/jobs/{job_id}", wait=max(1, math.ceil(left.total_seconds())))
    assert job["status"] == "failed", job
    late = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["deadline_at"])
    assert 0 <= late.total_seconds() < LATE_SECONDS, job
    assert job["error"], job
    return job


@contextlib.asynccontextmanager
async def prepared_host(
    directory: Path, server: ServerProcess, caller: Caller, hostname: str, url: str = ""
) -> AsyncIterator[tuple[PythonHost, int]]:
    """Yield a host that has the projects of `command`, and whose later work takes until it is released; and its id."""
    async with python_host(directory, server, hostname, url=url) as host:
        agent_id = await caller.online(hostname)
        for project in ("to-stop", "to-ask-about"):
            deployed = await caller.over(await caller.deploy(project, agent_id))
            assert deployed["status"] == "completed", deployed
        for verb in ("down", "ps"):
            host.hold(verb)
        yield host, agent_id


async def killed_before_the_send(directory: Path, server: ServerProcess, caller: Caller) -> dict[str, str]:
    async with prepared_host(directory, server, caller, "before") as (host, agent_id):
        host.agent.process.send_signal(signal.SIGSTOP)
        await caller.deploy("in-front", agent_id)  # not acknowledged, so that nothing else is sent
        jobs = [await command(kind, caller, agent_id) for kind in KINDS]
        await host.agent.stop(signal.SIGKILL)
        return dict.fromkeys(jobs, "delivery_timeout")


async def killed_before_the_acknowledgement(
    directory: Path, server: ServerProcess, caller: Caller, kind: str
) -> dict[str, str]:
    async with prepared_host(directory, server, caller, f"sent-{kind}") as (host, agent_id):
        host.agent.process.send_signal(signal.SIGSTOP)
        job = await command(kind, caller, agent_id)
        async with asyncio.timeout(int(SECONDS)):
            while (await caller.job(job))["sent_at"] is None:
                pass
        await host.agent.stop(signal.SIGKILL)
        return {job: "agent_lost"}


async def killed_at_work(directory: Path, server: ServerProcess, caller: Caller) -> dict[str, str]:
    async with prepared_host(directory, server, caller, "working") as (host, agent_id):
        jobs = [await command(kind, caller, agent_id) for kind in KINDS]
        for job in jobs:
            assert (await caller.acknowledged(job))["status"] == "in_progress"
        await host.agent.stop(signal.SIGKILL)
        return dict.fromkeys(jobs, "agent_lost")


async def killed_while_answering(directory: Path, server: ServerProcess, caller: Caller) -> dict[str, str]:
    async with (
        Proxy(server.ws_url) as proxy,
        prepared_host(directory, server, caller, "answering", proxy.url) as (host, agent_id),
    ):
        jobs = [await command(kind, caller, agent_id) for kind in KINDS]
        for job in jobs:
            assert (await caller.acknowledged(job))["status"] == "in_progress"
        proxy.hold(Way.TO_SERVER)
        for _ in jobs:
            host.release("")
        for job in jobs:
            await host.agent.logged(f"Job '{job}'")
        await host.agent.stop(signal.SIGKILL)
        return dict.fromkeys(jobs, "agent_lost")


@pytest.mark.promise("9")
async def test_whenever_the_agent_is_killed_its_jobs_are_over_in_time_and_say_why(tmp_path: Path) -> None:
    async with ServerProcess(env=SHORT) as server, calling(server) as caller:
        phases = await asyncio.gather(
            killed_before_the_send(tmp_path, server, caller),
            *(killed_before_the_acknowledgement(tmp_path, server, caller, kind) for kind in KINDS),
            killed_at_work(tmp_path, server, caller),
            killed_while_answering(tmp_path, server, caller),
        )
        expected = {job: reason for phase in phases for job, reason in phase.items()}
        ended = await asyncio.gather(*(over_in_time(caller, job) for job in expected))
        assert {job["id"]: job["reason"] for job in ended} == expected
        for status in ("queued", "in_progress"):
            assert (await caller.get("/jobs", status=status))["jobs"] == []


@pytest.mark.control("9")
async def test_with_nobody_watching_the_clock_a_killed_agents_job_stays(tmp_path: Path) -> None:
    env = {"DEPLOY_TIMEOUT_SECONDS": "1"}
    async with (
        ServerProcess(env=env, sabotage="no_deadlines") as server,
        calling(server) as caller,
        python_host(tmp_path, server) as host,
    ):
        job = await command("deploy", caller, await caller.online(host.hostname))
        await caller.acknowledged(job)
        await host.agent.stop(signal.SIGKILL)
        with pytest.raises(AssertionError):
            await over_in_time(caller, job)
