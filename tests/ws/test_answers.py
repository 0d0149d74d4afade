"""What becomes of answers: progress is shown as it comes, forgeries change nothing, and a flood ends in 1008."""

import asyncio
import json

import pytest

from control_plane.fleet import recorder
from tests.support.raw_socket import RawSocket
from tests.support.sabotage.no_owner_check import record_anyones_answers
from tests.ws.fleet import Fleet

MIB = 1024 * 1024


async def test_progress_appends_and_is_shown_while_the_job_runs(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    lines = [f"Pulling layer {n}\n" for n in range(100)]
    for n, line in enumerate(lines):
        raw.say(job, "IN_PROGRESS", line)
        if n % 40 == 0:
            async with asyncio.timeout(10):
                while line not in (shown := await fleet.get(f"/jobs/{job}"))["logs"]:
                    pass
            assert shown["status"] == "in_progress"
            assert shown["logs"] == "".join(lines[: n + 1])
    raw.say(job, "COMPLETED", "Started")
    ended = await fleet.over(job)
    assert ended["logs"] == "".join(lines) + "Started"


async def test_a_whole_log_takes_the_place_of_what_was_streamed(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    for n in range(5):
        raw.say(job, "IN_PROGRESS", f"piece {n}\n")
    raw.say(job, "FAILED", "piece 0\nand the rest", error="exit status 1", whole_log=True)
    ended = await fleet.over(job)
    assert (ended["status"], ended["reason"], ended["error"]) == ("failed", "agent_error", "exit status 1")
    assert ended["logs"] == "piece 0\nand the rest"


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_log_is_kept_up_to_1_mib_and_its_middle_cut(fleet: Fleet, streamed: bool) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    pieces = [f"{n:06d} " + "é" * 500 + "\n" for n in range(3000)]
    if streamed:
        for piece in range(0, 3000, 100):
            raw.say(job, "IN_PROGRESS", "".join(pieces[piece : piece + 100]))
        raw.say(job, "COMPLETED", "the end")
    else:
        raw.say(job, "COMPLETED", "".join(pieces) + "the end")
    logs = (await fleet.over(job))["logs"]
    assert MIB - 10_000 < len(logs.encode()) <= MIB
    assert logs.startswith("000000 ")
    assert logs.endswith("\nthe end")
    assert "bytes cut" in logs


async def test_a_log_of_exactly_1_mib_is_kept_whole(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    raw.say(job, "COMPLETED", "x" * MIB)
    assert (await fleet.over(job))["logs"] == "x" * MIB


async def forge(fleet: Fleet, status: str) -> tuple[RawSocket, str, str]:
    """Have an agent answer for all that it was never sent, and hold that nothing changed and all was counted.

    Returns the agent that runs a job, that job, and the one queued behind it.
    """
    victim, forger = await fleet.raw("victim"), await fleet.raw("forger")
    running = await fleet.sent(victim, "web", "victim")
    never_sent = await fleet.start("web", agent_id=(await fleet.row("victim"))["id"])
    victim.say(running, "IN_PROGRESS", "mine")
    await fleet.counted("moved", 1)
    before = await fleet.stored()
    for job in (running, never_sent, "unknown", "00000000-0000-7000-8000-000000000000", "x" * 200):
        forger.say(job, status, "forged", error="forged" if status == "FAILED" else "")
    victim.say(never_sent, status, "too early")
    victim.say("unknown", "FAILED", "what was that?")
    recorded = 0 if status == "QUEUED" else 5
    await fleet.until(lambda: sum(fleet.counts.values()) >= 1 + recorded + 2)
    assert await fleet.stored() == before
    assert "forged" not in json.dumps([await fleet.get(f"/jobs/{job}") for job in (running, never_sent)])
    # The word "unknown" twice, and two ids that no job has; QUEUED says nothing, so that nothing is looked up.
    assert (fleet.counts.get("forged", 0), fleet.counts["unknown"]) == ((3, 4) if recorded else (0, 2))
    return victim, running, never_sent


@pytest.mark.promise("18")
@pytest.mark.parametrize("status", ["IN_PROGRESS", "COMPLETED", "FAILED", "QUEUED"])
async def test_an_answer_for_what_the_agent_was_never_sent_changes_nothing(fleet: Fleet, status: str) -> None:
    victim, running, never_sent = await forge(fleet, status)
    victim.say(running, "COMPLETED", "true")
    assert (await victim.command())["id"] == never_sent
    assert (await fleet.over(running))["logs"] == "mine\ntrue"


@pytest.mark.control("18")
@pytest.mark.parametrize("status", ["IN_PROGRESS", "COMPLETED", "FAILED"])
async def test_without_the_check_of_its_owner_a_forged_answer_is_believed(
    fleet: Fleet, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "record_answers", record_anyones_answers)
    with pytest.raises(AssertionError):
        await forge(fleet, status)


@pytest.mark.promise("18")
async def test_an_agent_that_has_the_same_project_cannot_answer_for_anothers(fleet: Fleet) -> None:
    first, second = await fleet.raw("first"), await fleet.raw("second")
    mine, yours = await fleet.sent(first, "web", "first"), await fleet.sent(second, "web", "second")
    second.say(mine, "COMPLETED", "not yours to say")
    second.say(yours, "COMPLETED", "mine")
    assert (await fleet.over(yours))["status"] == "completed"
    assert (await fleet.get(f"/jobs/{mine}"))["status"] == "queued"
    first.say(mine, "FAILED", error="no space left on device")
    assert (await fleet.over(mine))["error"] == "no space left on device"


async def test_the_first_final_answer_wins(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    raw.say(job, "COMPLETED", "first")
    ended = await fleet.over(job)
    for status in ("FAILED", "IN_PROGRESS", "COMPLETED"):
        raw.say(job, status, "second", error="second")
        await fleet.counted("late", ("FAILED", "IN_PROGRESS", "COMPLETED").index(status) + 1)
    assert await fleet.get(f"/jobs/{job}") == ended
