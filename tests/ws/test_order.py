"""What an agent is sent, and when: one project's commands one after another, and never two before an answer."""

import asyncio
import random

import pytest

from control_plane.fleet import dispatcher
from tests.ws.fleet import Fleet

pytestmark = pytest.mark.promise("19")


async def test_deploys_of_one_project_run_one_after_another_in_the_order_they_were_taken(fleet: Fleet) -> None:
    agent = await fleet.joined()
    jobs = [await fleet.start("web" if n % 2 else "WEB".lower()) for n in range(20)]
    for job in jobs:
        assert (await fleet.over(job))["status"] == "completed"
    assert [run.job_id for run in agent.executions] == jobs
    assert agent.overlaps() == []


async def test_a_stop_waits_for_the_deploy_before_it_and_a_deploy_for_the_stop(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.hold("web")
    first = await fleet.start("web")
    await agent.started(1)
    stop = (await fleet.post("/projects/web/stop"))["job_id"]
    second = await fleet.start("web")
    assert [run.job_id for run in agent.executions] == [first]
    agent.release("web")
    assert (await fleet.over(second))["status"] == "completed"
    assert [run.job_id for run in agent.executions] == [first, stop, second]
    assert agent.overlaps() == []


async def test_different_projects_run_at_the_same_time(fleet: Fleet) -> None:
    agent = await fleet.joined()
    for n in range(10):
        agent.hold(f"p-{n}")
    jobs = [await fleet.start(f"p-{n}") for n in range(10)]
    await agent.started(10)
    assert all(run.ended_at is None for run in agent.executions)
    for n, job in enumerate(jobs):
        agent.release(f"p-{n}")
        assert (await fleet.over(job))["status"] == "completed"


async def test_a_status_passes_a_long_deploy_and_a_queue_behind_it(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.hold("web")
    running = await fleet.start("web")
    waiting = await fleet.start("web")
    await agent.received(running)
    agent.host.holds.clear()  # only what has begun goes on waiting
    status = await fleet.get("/projects/web/status", wait=10)
    assert status["status"] == "completed"
    health = await fleet.post("/agents/1/health-check", wait=10)
    assert health["data"]["hostname"] == "host-1"
    assert (await fleet.get(f"/jobs/{waiting}"))["status"] == "queued"
    agent.crash()


async def test_the_next_command_goes_out_only_after_the_one_before_was_acknowledged(fleet: Fleet) -> None:
    raw = await fleet.raw()
    first, second = await fleet.start("one"), await fleet.start("two")
    assert (await raw.command())["id"] == first
    assert (await fleet.get(f"/jobs/{second}"))["attempt"] == 0
    raw.say("unknown", "FAILED", error="what was that?")
    raw.say(second, "IN_PROGRESS")
    await fleet.counted("unknown", 1)
    assert (await fleet.get(f"/jobs/{second}"))["attempt"] == 0
    raw.say(first, "IN_PROGRESS", "Command received, processing...")
    assert (await raw.command())["id"] == second


async def test_an_agent_that_never_acknowledges_holds_its_lane_up_for_a_while_only(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dispatcher.ACKNOWLEDGE_SECONDS == 10
    monkeypatch.setattr(dispatcher, "ACKNOWLEDGE_SECONDS", 0.1)
    raw = await fleet.raw()
    silent, same, other = await fleet.start("one"), await fleet.start("one"), await fleet.start("two")
    assert (await raw.command())["id"] == silent
    assert (await raw.command())["id"] == other
    raw.say(other, "COMPLETED", "fine")
    assert (await fleet.over(other))["status"] == "completed"
    assert (await fleet.get(f"/jobs/{same}"))["attempt"] == 0
    raw.say(silent, "COMPLETED", "late, and true")
    assert (await fleet.over(silent))["status"] == "completed"
    assert (await raw.command())["id"] == same


@pytest.mark.parametrize("seed", range(1))
async def test_two_hundred_commands_of_all_kinds_crash_no_agent(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    agent = await fleet.joined()
    projects = [f"p-{n}" for n in range(20)]
    for project in projects:
        assert (await fleet.deploy(project))["status"] == "completed"

    async def one(n: int) -> str:
        project = chance.choice(projects)
        kind = chance.choice(["deploy", "stop", "status", "health"])
        if kind == "deploy":
            return await fleet.start(project)
        if kind == "stop":
            return str((await fleet.post(f"/projects/{project}/stop"))["job_id"])
        if kind == "status":
            return str((await fleet.get(f"/projects/{project}/status", wait=0))["job_id"])
        return str((await fleet.post("/agents/1/health-check", wait=0))["job_id"])

    jobs = set(await asyncio.gather(*(one(n) for n in range(200))))
    for job in jobs:
        assert (await fleet.over(job))["status"] == "completed", agent
    assert agent.crashes == 0
    assert agent.overlaps() == []
    runs = [run.job_id for run in agent.executions]
    assert len(runs) == len(set(runs))
