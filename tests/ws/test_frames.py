"""Frames that no agent should send: each has its own end, costs no other agent anything, and wedges no job."""

import asyncio
import json

import pytest

from control_plane.core.protocol import MAX_MESSAGE_BYTES
from tests.support.raw_socket import BINARY, CONTINUATION, PING, PONG, TEXT, RawSocket, frame
from tests.ws.fleet import Fleet


@pytest.fixture
async def bystander(fleet: Fleet) -> object:
    """Another agent, with a deploy under way that has to survive whatever the test does."""
    agent = await fleet.joined("bystander")
    agent.hold("calm")
    agent_id = (await fleet.row("bystander"))["id"]
    job = await fleet.start("calm", agent_id=agent_id)
    await agent.received(job)
    yield agent
    agent.release("calm")
    assert (await fleet.over(job))["status"] == "completed"
    assert (await fleet.deploy("after", agent_id=agent_id))["status"] == "completed"
    assert (agent.connections, agent.closes) == (1, [])


pytestmark = pytest.mark.usefixtures("bystander")


async def in_flight(fleet: Fleet, raw: RawSocket, project: str = "web") -> str:
    """Have a deploy sent to the agent of `raw`, which acknowledges it; return the job's id."""
    job = await fleet.start(project, agent_id=(await fleet.row("host-1"))["id"])
    assert (await raw.command())["id"] == job
    raw.say(job, "IN_PROGRESS", "Command received, processing...")
    return job


async def test_a_binary_frame_closes_the_connection_with_1003(fleet: Fleet) -> None:
    raw = await fleet.raw()
    raw.send(BINARY, b'{"job_id": "x", "status": "COMPLETED"}')
    assert await raw.closed() == (1003, "text frames only")


async def test_bad_utf8_closes_the_connection_with_1007(fleet: Fleet) -> None:
    raw = await fleet.raw()
    raw.send(TEXT, b'{"job_id": "\xff\xfe", "status": "COMPLETED"}')
    assert (await raw.closed())[0] == 1007


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", '{"status": "COMPLETED"}', '{"job_id": "x", "status": "DONE"}', "[" * 100_000],
    ids=lambda text: text[:20],
)
async def test_a_message_that_cannot_be_read_is_survived_and_counted(fleet: Fleet, text: str) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    raw.send(TEXT, text.encode())
    raw.say(job, "COMPLETED", "done")
    assert (await fleet.over(job))["status"] == "completed"
    assert fleet.counts["bad_message"] == 1


@pytest.mark.parametrize("named", [True, False], ids=["in-pieces", "one-frame"])
async def test_an_answer_over_16_mib_closes_with_1009_and_fails_its_job(fleet: Fleet, named: bool) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    if named:
        other = await in_flight(fleet, raw, "other")
        start = json.dumps({"job_id": job, "status": "COMPLETED", "logs": "x" * 4000}).encode()[:4000]
        raw.send(TEXT, start, fin=False)
        raw.writer.write(frame(CONTINUATION, b"", declared=MAX_MESSAGE_BYTES))
    else:
        raw.writer.write(frame(TEXT, b"", declared=MAX_MESSAGE_BYTES + 1))
    assert (await raw.closed())[0] == 1009
    ended = await fleet.over(job)
    assert (ended["status"], ended["reason"]) == ("failed", "result_lost")
    assert "16 MiB" in ended["error"]
    if named:
        assert (await fleet.get(f"/jobs/{other}"))["status"] == "in_progress"


async def test_the_largest_answer_is_taken(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    text = json.dumps({"job_id": job, "status": "COMPLETED", "logs": ""})
    whole = text.replace('"logs": ""', '"logs": "%s"' % ("x" * (MAX_MESSAGE_BYTES - len(text))))
    raw.send(TEXT, whole.encode())
    ended = await fleet.over(job)
    assert ended["status"] == "completed"
    assert 1024 * 1024 - 200 < len(ended["logs"].encode()) <= 1024 * 1024
    assert "bytes cut" in ended["logs"]


async def test_a_message_may_come_in_fragments_with_pings_between_them(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    payload = json.dumps({"job_id": job, "status": "COMPLETED", "logs": "héllo"}, ensure_ascii=False).encode()
    cut = payload.index("é".encode()) + 1
    raw.send(TEXT, payload[:cut], fin=False)
    raw.send(PING, b"between")
    raw.send(CONTINUATION, b"", fin=False)
    raw.send(CONTINUATION, payload[cut:])
    assert await raw.read() == (PONG, b"between")
    ended = await fleet.over(job)
    assert (ended["status"], ended["logs"].splitlines()[-1]) == ("completed", "héllo")


@pytest.mark.parametrize(
    "bytes_",
    [b"\x81\x05hello", b"\xf1\x80\x00\x00\x00\x00", b"\x83\x80\x00\x00\x00\x00", frame(CONTINUATION, b"alone")],
    ids=["unmasked", "reserved-bits", "unknown-opcode", "nothing-to-continue"],
)
async def test_what_breaks_the_framing_closes_the_connection_with_1002(fleet: Fleet, bytes_: bytes) -> None:
    raw = await fleet.raw()
    raw.writer.write(bytes_)
    assert (await raw.closed())[0] == 1002
    await fleet.offline("host-1")


async def test_a_connection_cut_in_the_middle_of_a_frame_loses_only_that_frame(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    raw.writer.write(frame(TEXT, b'{"job_id": "', declared=1000))
    await raw.writer.drain()
    raw.cut()
    await fleet.offline("host-1")
    again = await fleet.raw()
    again.say(job, "COMPLETED", "after all")
    assert (await fleet.over(job))["status"] == "completed"


@pytest.mark.parametrize("odd", ["NaN", '"\\ud800"', "1" + "0" * 5000, '"\\u0000\\u001b[31m"', "[" * 150 + "]" * 150])
async def test_an_odd_value_in_an_answer_costs_the_job_nothing(fleet: Fleet, odd: str) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    text = f'{{"job_id": "{job}", "status": "COMPLETED", "logs": "fine", "status": "COMPLETED", "data": {odd}}}'
    raw.send(TEXT, text.encode())
    ended = await fleet.over(job)
    assert (ended["status"], ended["logs"].splitlines()[-1]) == ("completed", "fine")


async def test_pings_are_answered_while_a_deploy_runs(fleet: Fleet) -> None:
    raw = await fleet.raw()
    await in_flight(fleet, raw)
    for n in range(3):
        raw.send(PING, f"{n}".encode())
        async with asyncio.timeout(1):
            assert await raw.read() == (PONG, f"{n}".encode())
