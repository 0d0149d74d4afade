"""The deadlines that nobody can wait for, by an injected clock: minutes and a day, as they are without any setting."""

import asyncio
from datetime import datetime, timedelta

import pytest
import time_machine

from control_plane.loops import deadlines
from tests.support.app import Answer
from tests.support.go_agent_work import Command, Outcome
from tests.ws.fleet import Fleet

LATE_SECONDS = 5
DAY_SECONDS = 24 * 60 * 60
ACTIVE = {"queued", "in_progress"}
SINCE_THE_REQUEST = {"status", "health", "queued"}
"""The others have their time from the send on."""


def deadline(job: Answer) -> datetime:
    return datetime.fromisoformat(job["deadline_at"])


async def start_everything(fleet: Fleet) -> dict[str, tuple[str, int, str]]:
    """Start one job of every kind that never ends by itself: kind → id, seconds that it has, reason at their end."""
    agent, away = await fleet.joined("host-1"), await fleet.joined("host-2")
    for project in ("to-stop", "to-ask-about"):
        await fleet.deploy(project, agent_id=1)

    async def never(command: Command) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    agent.work = never
    away.unplug()
    await fleet.offline("host-2")
    late = "execution_timeout"
    return {
        "the shortest": (await fleet.start("short", agent_id=1, timeout_seconds=10), 10, late),
        "status": ((await fleet.get("/projects/to-ask-about/status", wait=0))["job_id"], 60, late),
        "health": ((await fleet.post("/agents/1/health-check", wait=0))["job_id"], 60, late),
        "stop": ((await fleet.post("/projects/to-stop/stop"))["job_id"], 600, late),
        "deploy": (await fleet.start("web", agent_id=1), 900, late),
        "the longest": (await fleet.start("long", agent_id=1, timeout_seconds=DAY_SECONDS), DAY_SECONDS, late),
        "queued": (
            await fleet.start("later", agent_id=2, when_offline="queue"),
            DAY_SECONDS,
            "delivery_timeout",
        ),
    }


@pytest.mark.promise("9")
async def test_each_kind_of_job_ends_at_its_own_deadline_and_not_before(fleet: Fleet) -> None:
    jobs = await start_everything(fleet)
    for kind, (job, seconds, reason) in jobs.items():
        began = await fleet.get(f"/jobs/{job}")
        since = began["created_at"] if kind in SINCE_THE_REQUEST else began["sent_at"]
        assert (deadline(began) - datetime.fromisoformat(since)).total_seconds() == pytest.approx(seconds, abs=0.1), (
            kind
        )
        with time_machine.travel(deadline(began) - timedelta(seconds=2)):
            await deadlines.run_once(fleet.plane)
            assert (await fleet.get(f"/jobs/{job}"))["status"] in ACTIVE, kind
        with time_machine.travel(deadline(began)):
            ended = await fleet.over(job)
            assert (ended["status"], ended["reason"]) == ("failed", reason), kind
            late = datetime.fromisoformat(ended["finished_at"]) - deadline(ended)
            assert 0 <= late.total_seconds() < LATE_SECONDS, kind
