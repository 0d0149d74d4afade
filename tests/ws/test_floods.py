"""Floods: an agent that sends too much is closed with 1008 and kept out for a moment, and others do not notice."""

import asyncio
import json

import pytest

from control_plane.fleet import cooldown
from control_plane.operations import results
from control_plane.ws import endpoint, inflow
from tests.support.raw_socket import CONTINUATION, PING, PONG, TEXT, RefusalError, frame
from tests.ws.fleet import Fleet

MIB = 1024 * 1024


FRAMES = {
    "pings": frame(PING, b"x"),
    "pongs": frame(PONG),
    "fragments": frame(CONTINUATION, fin=False),
}


def flood_of(what: str, job: str) -> bytes:
    message = {"IN_PROGRESS": f'{{"job_id": "{job}", "status": "IN_PROGRESS", "logs": "x"}}'}
    message["unknown"] = '{"job_id": "unknown", "status": "FAILED", "logs": ""}'
    message["QUEUED"] = f'{{"job_id": "{job}", "status": "QUEUED", "logs": ""}}'
    message["no JSON"] = "x"
    if what in FRAMES:
        return FRAMES[what]
    return frame(TEXT, message[what].encode())


@pytest.mark.parametrize("what", ["IN_PROGRESS", "unknown", "QUEUED", "no JSON", *FRAMES])
@pytest.mark.promise("15")
async def test_a_flood_is_closed_with_1008_and_others_do_not_notice(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    good = await fleet.joined("good")
    raw = await fleet.raw("flooder")
    job = await fleet.sent(raw, "web", "flooder")
    loop = asyncio.get_running_loop()

    if what == "fragments":
        raw.send(TEXT, b"{", fin=False)

    async def pour() -> None:
        block = flood_of(what, job) * 1000
        try:
            while True:
                raw.writer.write(block)
                await raw.writer.drain()
                await asyncio.sleep(0.02)  # 50,000 a second
        except (ConnectionError, RuntimeError):  # uvloop says so of a transport that was closed
            pass

    async def deploy_meanwhile() -> float:
        slowest = 0.0
        for n in range(20):
            began = loop.time()
            assert (await fleet.deploy(f"p-{n}", agent_id=1))["status"] == "completed"
            slowest = max(slowest, loop.time() - began)
        return slowest

    pouring = asyncio.create_task(pour())
    deploys = asyncio.create_task(deploy_meanwhile())
    began = loop.time()
    assert await raw.closed(polite=False) == (1008, "too many messages")
    await pouring
    assert loop.time() - began < 5
    assert await deploys < 5  # how little they notice is measured in tests/faults
    assert (good.connections, good.closes) == (1, [])
    await fleet.offline("flooder")
    monkeypatch.setattr(cooldown, "COOLDOWN_SECONDS", 0)
    fleet.plane.cooldowns.start((1, "flooder"))
    again = await fleet.raw("flooder")
    again.say(job, "COMPLETED", "after all")
    assert (await fleet.over(job))["status"] == "completed"


async def test_as_many_messages_as_a_busy_agent_sends_are_no_flood(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    for n in range(results.MAX_MESSAGES_PER_SECOND - 10):
        raw.say(job, "IN_PROGRESS", f"{n}\n")
    raw.say(job, "COMPLETED")
    logs = (await fleet.over(job))["logs"]
    assert logs.split() == [str(n) for n in range(results.MAX_MESSAGES_PER_SECOND - 10)]


async def test_a_flooder_that_comes_back_at_once_is_told_when_it_may_and_others_are_let_in(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint.REFUSAL_DELAY_SECONDS < 10 / 2
    monkeypatch.setattr(endpoint, "REFUSAL_DELAY_SECONDS", 0.01)
    raw = await fleet.raw("flooder")
    raw.writer.write(frame(PING) * 2000)
    assert await raw.closed(polite=False) == (1008, "too many messages")
    with pytest.raises(RefusalError) as refused:
        await fleet.raw("flooder")
    assert (refused.value.status, refused.value.problem["code"]) == (429, "flooding")
    assert 0 < int(refused.value.headers["retry-after"]) <= cooldown.COOLDOWN_SECONDS
    assert f"in {refused.value.headers['retry-after']} s" in refused.value.problem["detail"]
    await fleet.raw("other")


async def test_a_long_answer_in_the_pieces_that_installed_agents_send_is_no_flood(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await fleet.sent(raw)
    text = json.dumps({"job_id": job, "status": "COMPLETED", "logs": "x" * 8 * MIB}).encode()
    raw.send(TEXT, text[:4082], fin=False)
    for at in range(4082, len(text), 4082):
        raw.send(CONTINUATION, text[at : at + 4082], fin=at + 4082 >= len(text))
    assert (await fleet.over(job))["status"] == "completed"


async def test_an_agent_whose_message_was_heavy_is_left_unread_for_a_while_and_others_go_on(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflow, "MAX_REST_SECONDS", 1.0)
    good = await fleet.joined("good")
    raw = await fleet.raw("heavy")
    job = await fleet.sent(raw, "web", "heavy")
    monkeypatch.setattr(inflow, "HEAVY_SECONDS", 0.0)
    monkeypatch.setattr(inflow, "REST_FACTOR", 1e9)
    raw.say(job, "IN_PROGRESS", "heavy")
    await fleet.counted("moved", 1)
    monkeypatch.setattr(inflow, "HEAVY_SECONDS", 60.0)
    clock = asyncio.get_running_loop().time
    began = clock()
    raw.send(PING, b"after")
    assert (await fleet.deploy("meanwhile", agent_id=1))["status"] == "completed"
    assert await raw.read() == (PONG, b"after")
    assert clock() - began > 0.5
    raw.say(job, "COMPLETED", "and done")
    assert (await fleet.over(job))["logs"] == "heavy\nand done"
    assert good.closes == []
