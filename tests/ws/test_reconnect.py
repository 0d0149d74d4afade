"""Connections that end at bad moments: nothing runs twice, nothing that can still be answered is given up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.fleet import session
from control_plane.fleet.reconcile import MAX_SENDS
from control_plane.store.agents import arrive
from control_plane.store.deployments import accept_deployments
from control_plane.store.jobs import claim_jobs
from tests.support.raw_socket import Header
from tests.ws.conftest import OpenFleet
from tests.ws.fleet import Fleet
from tests.ws.test_takeover import fill_buffer

RESEND: Header = ("X-Agent-Capabilities", "resend")


def process(name: str) -> Header:
    return ("X-Agent-Instance", name)


@contextlib.asynccontextmanager
async def cutting_claims(fleet: Fleet, how: str) -> AsyncIterator[None]:
    """End the agent's connection in the instant between the commit of each send and its write."""
    store = fleet.plane.store
    real_write = store.write

    async def write(change: Any, item: Any, audit: Any = None) -> Any:
        result = await real_write(change, item, audit)
        if change is claim_jobs or (change is accept_deployments and item.sent_to is not None):
            for each in fleet.plane.manager.get_connected_agents():
                if how == "cut":
                    each.socket.abort()
                else:
                    await fleet.plane.manager.disconnect(each)
        return result

    store.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.write = real_write  # type: ignore[method-assign]


async def test_a_deploy_that_comes_while_its_agent_is_being_let_in_is_not_forgotten(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.unplug()
    await fleet.offline("host-1")
    store = fleet.plane.store
    real_write = store.write
    jobs: list[str] = []

    async def write(change: Any, item: Any, audit: Any = None) -> Any:
        result = await real_write(change, item, audit)
        if change is arrive and not jobs:  # the agent's queue was looked at, and it is not served yet
            jobs.append(await fleet.start("web", agent_id=1, when_offline="queue"))
        return result

    store.write = write  # type: ignore[method-assign]
    agent.plug_in()
    await agent.connected(2)
    assert (await fleet.over(jobs[0], wait=5))["status"] == "completed"


@pytest.mark.parametrize("how", ["cut", "told"])
async def test_a_command_whose_connection_ended_before_its_write_goes_out_on_the_next_one(
    fleet: Fleet, how: str
) -> None:
    agent = await fleet.joined(reconnect=False)
    async with cutting_claims(fleet, how):
        job = await fleet.start("web")
        await fleet.offline("host-1")
    queued = await fleet.get(f"/jobs/{job}")
    assert (queued["status"], queued["attempt"], queued["sent_at"]) == ("queued", 1, None)
    assert agent.commands == []
    again = await fleet.joined()
    ended = await fleet.over(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 2)
    assert [run.job_id for run in again.executions] == [job]


@pytest.mark.promise("6")
async def test_after_three_sends_that_failed_the_job_fails_with_dispatch_failed(fleet: Fleet) -> None:
    await fleet.joined(reconnect=False)
    async with cutting_claims(fleet, "cut"):
        job = await fleet.start("web")
        for sends in range(1, MAX_SENDS + 1):
            await fleet.offline("host-1")
            assert (await fleet.get(f"/jobs/{job}"))["attempt"] == sends
            await fleet.agents.enter_async_context(last := fleet.go_agent(reconnect=False))
            await last.connected()
    ended = await fleet.over(job)
    assert (ended["status"], ended["reason"], ended["attempt"]) == ("failed", "dispatch_failed", MAX_SENDS)
    assert last.commands == []
    assert (await fleet.deploy("web"))["status"] == "completed"


async def test_an_agent_that_reads_nothing_is_cut_and_what_was_not_written_goes_out_later(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.SEND_TIMEOUT_SECONDS == 30
    monkeypatch.setattr(session, "SEND_TIMEOUT_SECONDS", 0.3)
    good = await fleet.joined("good")
    stalled = await fleet.raw("stalled", receive_buffer=4096)
    await fill_buffer(fleet, stalled, agent_id=2)
    unsent = await fleet.start("unsent", agent_id=2)
    assert (await fleet.deploy("meanwhile", agent_id=1))["status"] == "completed"
    await fleet.offline("stalled")
    queued = await fleet.get(f"/jobs/{unsent}")
    assert (queued["status"], queued["sent_at"]) == ("queued", None)
    again = await fleet.joined("stalled")
    assert (await fleet.over(unsent))["status"] == "completed"
    assert [run.job_id for run in again.executions] == [unsent]
    assert good.closes == []


@pytest.mark.promise("12")
async def test_a_peer_that_answers_no_ping_is_shown_offline_in_time(open_fleet: OpenFleet) -> None:
    fleet = await open_fleet(agent_ping_interval_seconds=0.2, agent_ping_timeout_seconds=0.3)
    good = await fleet.joined("good")
    frozen = await fleet.joined("frozen", reconnect=False)
    frozen.freeze()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await fleet.offline("frozen")
    assert loop.time() - began < 1.5
    assert good.closes == []


@pytest.mark.promise("8")
async def test_what_runs_when_the_connection_drops_is_not_sent_again_and_answers_on_a_later_one(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.hold("web")
    job = await fleet.start("web")
    await agent.started(1)
    for connection in range(2, 5):
        agent.drop()
        await agent.connected(connection)
    behind = await fleet.start("web")
    elsewhere = await fleet.deploy("other")
    assert elsewhere["status"] == "completed"
    assert (await fleet.get(f"/jobs/{behind}"))["attempt"] == 0
    agent.release("web")
    assert (await fleet.over(job))["status"] == "completed"
    assert (await fleet.over(behind))["status"] == "completed"
    runs = [run.job_id for run in agent.executions]
    assert sorted(runs) == sorted({job, behind, elsewhere["job_id"]})
    assert agent.overlaps() == []


@pytest.mark.promise("6")
async def test_a_command_that_was_never_acknowledged_is_not_sent_again_to_an_agent_that_would_run_it_twice(
    fleet: Fleet,
) -> None:
    first = await fleet.raw()
    job = await fleet.start("web")
    assert (await first.command())["id"] == job
    first.cut()
    await fleet.offline("host-1")
    second = await fleet.raw()
    other = await fleet.start("other")
    assert (await second.command())["id"] == other
    second.say(other, "IN_PROGRESS")
    second.say(job, "COMPLETED", "it had come")
    assert (await fleet.over(job))["attempt"] == 1


async def test_a_deploy_is_answered_at_once_although_its_agent_does_not_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SEND_TIMEOUT_SECONDS", 60)
    stalled = await fleet.raw(receive_buffer=4096)
    await fill_buffer(fleet, stalled)
    async with asyncio.timeout(5):
        job = await fleet.start("web")
    assert (await fleet.get(f"/jobs/{job}"))["status"] == "queued"


@pytest.mark.parametrize("next_process", ["process-1", "process-2"])
async def test_an_agent_that_knows_its_jobs_gets_an_unacknowledged_command_again(
    fleet: Fleet, next_process: str
) -> None:
    first = await fleet.raw("host-1", process("process-1"), RESEND)
    job = await fleet.start("web")
    before = await first.command()
    first.cut()
    await fleet.offline("host-1")
    second = await fleet.raw("host-1", process(next_process), RESEND)
    assert await second.command() == before
    second.say(job, "COMPLETED", "done")
    ended = await fleet.over(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 2)


async def test_a_second_send_that_fails_does_not_unsay_the_first(fleet: Fleet) -> None:
    first = await fleet.raw("host-1", process("process-1"), RESEND)
    job = await fleet.start("web")
    await first.command()
    first.cut()
    await fleet.offline("host-1")
    async with cutting_claims(fleet, "cut"):
        await fleet.raw("host-1", process("process-1"), RESEND)
        await fleet.offline("host-1")
    assert (await fleet.get(f"/jobs/{job}"))["sent_at"] is not None
    third = await fleet.raw("host-1", process("process-1"), RESEND)
    third.say(job, "COMPLETED", "of the first send")
    assert (await fleet.over(job))["status"] == "completed"


@pytest.mark.parametrize("next_process", ["process-1", "process-2"])
async def test_an_agent_that_knows_its_jobs_is_asked_again_for_what_it_had_acknowledged(
    fleet: Fleet, next_process: str
) -> None:
    # Its answer may have reached a control plane that was killed before it had stored it.
    first = await fleet.raw("host-1", process("process-1"), RESEND)
    job = await fleet.start("web")
    await first.command()
    first.say(job, "IN_PROGRESS", "working")
    await fleet.counted("moved", 1)
    first.cut()
    await fleet.offline("host-1")
    second = await fleet.raw("host-1", process(next_process), RESEND)
    assert (await second.command())["id"] == job
    second.say(job, "COMPLETED", "found in the journal")
    ended = await fleet.over(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 2)


async def test_a_new_process_that_knows_no_jobs_fails_what_the_old_one_ran_at_once(fleet: Fleet) -> None:
    first = await fleet.raw("host-1", process("process-1"))
    job, behind = await fleet.start("web"), await fleet.start("web")
    await first.command()
    first.say(job, "IN_PROGRESS", "working")
    await fleet.counted("moved", 1)
    first.cut()
    await fleet.offline("host-1")
    second = await fleet.raw("host-1", process("process-2"))
    lost = await fleet.over(job, wait=5)
    assert (lost["status"], lost["reason"]) == ("failed", "agent_lost")
    assert (await second.command())["id"] == behind
    second.say(job, "COMPLETED", "too late")
    await fleet.counted("late", 1)
    assert (await fleet.get(f"/jobs/{job}"))["reason"] == "agent_lost"


@pytest.mark.promise("6")
async def test_a_command_is_sent_three_times_at_most(fleet: Fleet) -> None:
    raw = await fleet.raw("host-1", process("process-1"), RESEND)
    job = await fleet.start("web")
    for _ in range(MAX_SENDS):
        assert (await raw.command())["id"] == job
        raw.cut()
        await fleet.offline("host-1")
        raw = await fleet.raw("host-1", process("process-1"), RESEND)
    probe = await fleet.start("probe")
    assert (await raw.command())["id"] == probe
    raw.say(job, "COMPLETED", "it had come three times")
    assert (await fleet.over(job))["attempt"] == MAX_SENDS


async def test_a_deploy_for_an_agent_that_is_away_goes_out_when_it_comes(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.unplug()
    await fleet.offline("host-1")
    jobs = [await fleet.start(f"p-{n}", agent_id=1, when_offline="queue") for n in range(5)]
    agent.plug_in()
    for job in jobs:
        assert (await fleet.over(job))["status"] == "completed"
    assert [run.job_id for run in agent.executions] == jobs


async def test_commands_for_an_agent_that_does_not_read_are_not_made_ready_before_there_is_room(fleet: Fleet) -> None:
    stalled = await fleet.raw(receive_buffer=4096)
    await fill_buffer(fleet, stalled)

    def heard() -> int:
        return fleet.counts.get("moved", 0) + fleet.counts.get("forged", 0)

    waiting = []
    for n in range(5):
        waiting.append(job := await fleet.start(f"behind-{n}", agent_id=1))
        before = heard()
        stalled.say(job, "IN_PROGRESS")  # of what it has not read
        async with asyncio.timeout(10):
            while heard() == before:
                await fleet.get("/health")
    assert sum([(await fleet.get(f"/jobs/{job}"))["attempt"] for job in waiting]) == 0
