"""Health checks as agents meet them: what a row shows of the answers, who is unresponsive, and what waits for what."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.fleet import dispatcher
from control_plane.fleet.encoding import encode_job
from control_plane.loops import health_checks
from tests.support.app import WEB, Answer
from tests.support.raw_socket import RawSocket
from tests.ws.conftest import OpenFleet
from tests.ws.fleet import Fleet

INTERVAL = 0.05
CAPABLE = ("X-Agent-Capabilities", "resend")


@pytest.fixture
async def fleet(open_fleet: OpenFleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A control plane that asks often."""
    monkeypatch.setattr(health_checks, "INTERVAL_SECONDS", INTERVAL / 5)
    return await open_fleet(health_check_interval_seconds=INTERVAL)


def checks(fleet: Fleet, outcome: str) -> int:
    """Return how many health checks came to this outcome."""
    value = fleet.plane.metrics.registry.get_sample_value("instadeploy_health_checks_total", {"outcome": outcome})
    assert value is not None
    return int(value)


async def shown(fleet: Fleet, hostname: str = "host-1", **fields: Any) -> Answer:
    """Return an agent's row once these fields of it are so."""
    async with asyncio.timeout(20):
        row = await fleet.row(hostname)
        while {name: row[name] for name in fields} != fields:
            row = await fleet.row(hostname)
    return row


async def told(fleet: Fleet, hostname: str = "host-1") -> Answer:
    """Return what an agent has told, once it has."""
    async with asyncio.timeout(20):
        while (health := (await fleet.row(hostname))["health"]) is None:
            pass
    assert isinstance(health, dict)
    return health


async def take_commands(raw: RawSocket, freed: asyncio.Event) -> None:
    """Acknowledge every command, and bring it to its end once `freed`."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            command_id = (await raw.command())["id"]
            raw.say(command_id, "IN_PROGRESS", "Command received, processing...")
            if freed.is_set():
                raw.say(command_id, "COMPLETED")


@contextlib.asynccontextmanager
async def stuck(raw: RawSocket) -> AsyncIterator[asyncio.Event]:
    """Let an agent take commands and do none of them, until the event that this yields is set."""
    freed = asyncio.Event()
    task = asyncio.create_task(take_commands(raw, freed))
    yield freed
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_an_answer_is_kept_on_the_agents_row_and_is_no_job(fleet: Fleet) -> None:
    raw = await fleet.raw()
    check = await raw.command()
    assert (check["type"], check["payload"]) == ("HEALTH_CHECK", {})
    raw.say(check["id"], "IN_PROGRESS", "Command received, processing...")
    raw.say(check["id"], "COMPLETED", data={"version": "1.4.2", "hostname": "host-1", "disk_free_bytes": 7, "x": "y"})
    health = await told(fleet)
    assert 0 < health.pop("latency_seconds") < 20
    assert {name: value for name, value in health.items() if value is not None} == {
        "version": "1.4.2",
        "disk_free_bytes": 7,
    }
    row = await shown(fleet, missed_checks=0, status="online")
    assert row["health_at"] > row["created_at"]
    assert (await fleet.get("/jobs"))["jobs"] == []
    assert not any(fleet.counts.values())


async def test_an_installed_go_agent_is_healthy(fleet: Fleet) -> None:
    agent = await fleet.joined()
    assert (await told(fleet))["version"] == "1.0.0"
    await fleet.until(lambda: checks(fleet, "answered") >= 10)
    assert (agent.crashes, any(fleet.counts.values())) == (0, False)


async def test_hostile_answers_are_cut_to_size_and_cost_nobody_anything(fleet: Fleet) -> None:
    raw = await fleet.raw()
    hostile = {
        "version": "\x1b[31m\x00" + "v" * 10_000,
        "docker_error": "\ud800",
        "disk_free_bytes": 10**400,
    }
    hostile |= {"load_average": [float("nan"), 1e999, 1], **{f"key {n}": "x" for n in range(10_000)}}
    raw.say((await raw.command())["id"], "COMPLETED", data=hostile)
    health = await told(fleet)
    assert health["version"] == "[31m" + "v" * 196
    assert (health["docker_error"], health["disk_free_bytes"], health["load_average"]) == ("\ufffd", None, None)
    assert (await fleet.row("host-1"))["status"] == "online"


async def test_an_agent_whose_work_is_stuck_is_unresponsive_until_it_answers(fleet: Fleet) -> None:
    raw = await fleet.raw("host-1", CAPABLE)
    async with stuck(raw) as freed:
        row = await shown(fleet, status="unresponsive")
        assert row["missed_checks"] >= 3
        page = await fleet.get("/agents", status="unresponsive")
        assert ([each["id"] for each in page["agents"]], page["total"]) == ([row["id"]], 1)
        assert (await fleet.get("/agents", status="online"))["total"] == 0
        health = await fleet.get("/health")
        assert (health["connected_agents"], health["unresponsive_agents"]) == (1, 1)
        freed.set()
        await shown(fleet, status="online", missed_checks=0)


async def test_an_unresponsive_agent_gets_what_names_it_and_no_new_project(fleet: Fleet) -> None:
    raw = await fleet.raw("host-1", CAPABLE)
    async with stuck(raw):
        agent_id = (await shown(fleet, status="unresponsive"))["id"]
        refused = await fleet.client.post("/deploy", json={"project_name": "new", "compose_file": WEB})
        assert (refused.status_code, refused.json()["code"]) == (503, "no_agents")
        assert "answers its health checks" in refused.json()["detail"]
        await fleet.joined("good")
        await fleet.deploy("first")
        assert (await fleet.deploy("second"))["agent_id"] != agent_id
        named = await fleet.start("named", agent_id=agent_id)
        async with asyncio.timeout(20):
            while (await fleet.get(f"/jobs/{named}"))["status"] != "in_progress":
                pass


async def test_an_agent_that_connects_again_is_online(fleet: Fleet) -> None:
    raw = await fleet.raw("host-1", CAPABLE)
    async with stuck(raw):
        agent_id = (await shown(fleet, status="unresponsive"))["id"]
    raw.cut()
    await fleet.offline("host-1")
    await fleet.raw()
    row = await fleet.row("host-1")
    assert (row["id"], row["status"], row["missed_checks"]) == (agent_id, "online", 0)


async def test_answers_from_before_a_restart_or_for_nothing_move_no_job_and_are_no_forgeries(fleet: Fleet) -> None:
    raw = await fleet.raw()
    check = (await raw.command())["id"]
    for check_id in ("health-0123abcd-0", "health-", check + "9"):
        for status in ("QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED"):
            raw.say(check_id, status, "from another time", error="e", data={"version": "9"})
    await fleet.until(lambda: checks(fleet, "late") == 6)
    assert (await fleet.row("host-1"))["health"] is None
    assert ((await fleet.get("/jobs"))["jobs"], any(fleet.counts.values())) == ([], False)


async def test_nobody_answers_for_another_agent(fleet: Fleet) -> None:
    victim, forger = await fleet.raw("victim", CAPABLE), await fleet.raw("forger", CAPABLE)
    async with stuck(victim), stuck(forger):
        await shown(fleet, "victim", status="unresponsive")
        for check_id in list(next(s for s in sessions(fleet) if s.identity.hostname == "victim").pulse.asked):
            forger.say(check_id, "COMPLETED", data={"version": "forged"})
        await fleet.until(lambda: checks(fleet, "late") >= 1)
        await shown(fleet, "forger", status="online")
        row = await fleet.row("victim")
        assert (row["status"], row["health"]) == ("unresponsive", None)
        assert (await fleet.row("forger"))["health"] is None


def sessions(fleet: Fleet) -> list[Any]:
    return fleet.plane.manager.get_connected_agents()


async def test_an_answer_too_large_to_be_taken_fails_no_job(fleet: Fleet) -> None:
    raw = await fleet.raw()
    check = (await raw.command())["id"]
    raw.say(check, "COMPLETED", "x" * (16 * 1024 * 1024))
    assert (await raw.closed())[0] == 1009
    await fleet.offline("host-1")
    assert not any(fleet.counts.values())


async def test_a_check_waits_for_the_acknowledgement_of_the_command_before_it(fleet: Fleet) -> None:
    raw = await fleet.raw("host-1", CAPABLE)
    raw.say((await raw.command())["id"], "COMPLETED")
    async with asyncio.timeout(20):
        while (command := await raw.command())["type"] != "DEPLOY_COMPOSE":
            raw.say(command["id"], "COMPLETED")
            await fleet.start("web", agent_id=1)
    skipped = checks(fleet, "skipped")
    await fleet.until(lambda: checks(fleet, "skipped") >= skipped + 3)
    raw.say(command["id"], "IN_PROGRESS")
    assert (await raw.command())["type"] in {"HEALTH_CHECK", "DEPLOY_COMPOSE"}
    assert (await fleet.row("host-1"))["status"] == "online"


@pytest.mark.parametrize(("headers", "goes_after"), [([CAPABLE], "IN_PROGRESS"), ([], "COMPLETED")])
async def test_a_deploy_waits_for_the_acknowledgement_of_a_check_and_of_a_go_agent_for_its_end(
    open_fleet: OpenFleet, headers: list[tuple[str, str]], goes_after: str
) -> None:
    fleet = await open_fleet(health_check_interval_seconds=1.5)
    raw = await fleet.raw("host-1", *headers)
    check = await raw.command()
    job = await fleet.start("web")
    for said in ("IN_PROGRESS", "COMPLETED"):
        assert (await fleet.get(f"/jobs/{job}"))["attempt"] == 0
        raw.say(check["id"], said)
        if said == goes_after:
            break
        raw.say("unknown", "FAILED")
        await fleet.counted("unknown", 1)
    assert (await raw.command())["id"] == job


async def test_an_agent_that_never_acknowledges_a_check_holds_a_deploy_up_for_a_while_only(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "ACKNOWLEDGE_SECONDS", 0.1)
    raw = await fleet.raw()
    await raw.command()
    job = await fleet.start("web")
    async with asyncio.timeout(20):
        while (await raw.command())["id"] != job:
            pass


async def test_an_installed_agent_is_not_asked_while_it_deploys_and_misses_nothing(fleet: Fleet) -> None:
    agent = await fleet.joined()
    agent.hold("web")
    job = await fleet.start("web")
    await agent.received(job)
    await fleet.until(lambda: checks(fleet, "skipped") >= 1)
    asked, skipped = len(agent.commands), checks(fleet, "skipped")
    await fleet.until(lambda: checks(fleet, "skipped") >= skipped + 5)
    assert len(agent.commands) == asked
    assert (await fleet.row("host-1"))["status"] == "online"
    agent.release("web")
    assert (await fleet.over(job))["status"] == "completed"
    await fleet.until(lambda: len(agent.commands) > asked)


async def test_an_agent_whose_answers_cannot_collide_is_asked_while_it_deploys(fleet: Fleet) -> None:
    agent = await fleet.joined(headers={CAPABLE[0]: CAPABLE[1]})
    agent.hold("web")
    await agent.received(await fleet.start("web"))
    answered = checks(fleet, "answered")
    await fleet.until(lambda: checks(fleet, "answered") >= answered + 3)


async def commands_among_checks(fleet: Fleet) -> int:
    """Deploy, stop and ask a fragile agent again and again while it is checked all the time; return its crashes."""
    agent = await fleet.joined(write_seconds=0.001)
    chance = random.Random(7)
    commands = 0
    while not agent.crashes and (commands < 40 or checks(fleet, "answered") < 10):
        project = f"p-{commands % 5}"
        job = await fleet.start(project) if chance.random() < 0.7 else await status(fleet, project)
        await fleet.get(f"/jobs/{job}", wait=5)
        commands += 1
    return agent.crashes


async def status(fleet: Fleet, project: str) -> str:
    await fleet.deploy(project)
    return str((await fleet.get(f"/projects/{project}/status", wait=0))["job_id"])


@pytest.mark.promise("19")
async def test_checks_among_commands_crash_no_installed_agent(fleet: Fleet) -> None:
    assert await commands_among_checks(fleet) == 0


@pytest.mark.control("19")
async def test_a_check_that_goes_past_the_lane_crashes_an_installed_agent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_at_once(self: Any, session: Any, question: Any, *, alone: bool) -> bool:
        return bool(await session.send(await encode_job(self._store, question)))

    monkeypatch.setattr(dispatcher.Dispatcher, "ask", ask_at_once)
    assert await commands_among_checks(fleet) > 0
