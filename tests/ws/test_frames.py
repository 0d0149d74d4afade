"""Frames that no agent should send: each has its own end, costs no other agent anything, and wedges no job."""

import asyncio
import json

import pytest
from websockets.server import ServerProtocol

from control_plane.core.protocol import MAX_MESSAGE_BYTES
from control_plane.operations import results
from control_plane.ws.oversized import KeepingProtocol
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, frame
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


pytestmark = [pytest.mark.promise("16"), pytest.mark.usefixtures("bystander")]


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


async def test_a_message_nested_too_deeply_costs_its_job_the_data_and_nothing_else(fleet: Fleet) -> None:
    raw = await fleet.raw()
    for depth in (100, 101, 300, 500, 900, 100_000):
        job = await in_flight(fleet, raw, f"deep-{depth}")
        raw.send(
            TEXT, f'{{"job_id":"{job}","status":"COMPLETED","logs":"up","data":{"[" * depth}{"]" * depth}}}'.encode()
        )
        ended = await fleet.over(job)
        assert (ended["status"], ended["logs"].splitlines()[-1]) == ("completed", "up")
        assert (ended["data"] is None) == (depth > results.MAX_DATA_DEPTH)


def oversized_answer(job: str, how: str) -> list[bytes]:
    """Return what an agent would write that answers with more than 16 MiB, as far as the connection lives."""
    start = json.dumps({"job_id": job, "status": "COMPLETED", "logs": "x" * 4000}).encode()[:4000]
    whole = frame(TEXT, start, declared=MAX_MESSAGE_BYTES + 1)
    return {
        "in pieces": [frame(TEXT, start, fin=False), frame(CONTINUATION, b"", declared=MAX_MESSAGE_BYTES)],
        "in tiny pieces": [
            frame(TEXT, start[:20], fin=False),
            *(frame(CONTINUATION, start[at : at + 20], fin=False) for at in range(20, 400, 20)),
            frame(CONTINUATION, b"", declared=MAX_MESSAGE_BYTES),
        ],
        "in one frame": [whole],
        "header first": [whole[:2], whole[2:9], whole[9:14], whole[14:40], whole[40:]],
    }[how]


async def check_only_its_job_is_lost(fleet: Fleet, how: str) -> None:
    """Of two jobs under way, the one whose answer is too large fails at once, and the other goes on."""
    raw = await fleet.raw()
    job, other = await in_flight(fleet, raw), await in_flight(fleet, raw, "other")
    for piece in oversized_answer(job, how):
        raw.writer.write(piece)
        await raw.writer.drain()
        await fleet.get("/health")
    assert (await raw.closed())[0] == 1009
    ended = await fleet.over(job, wait=2)
    assert (ended["status"], ended["reason"]) == ("failed", "result_lost")
    assert "16 MiB" in ended["error"]
    assert (await fleet.get(f"/jobs/{other}"))["status"] == "in_progress"


@pytest.mark.parametrize("how", ["in pieces", "in tiny pieces", "in one frame", "header first"])
async def test_an_answer_over_16_mib_closes_with_1009_and_fails_its_job_alone(fleet: Fleet, how: str) -> None:
    await check_only_its_job_is_lost(fleet, how)


@pytest.mark.control("16")
async def test_without_the_start_of_the_refused_frame_its_job_is_not_known(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeepingProtocol, "fail", ServerProtocol.fail)
    with pytest.raises(AssertionError, match="in_progress"):
        await check_only_its_job_is_lost(fleet, "in one frame")


async def test_an_answer_over_16_mib_that_names_no_job_fails_the_only_one_that_runs(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    raw.writer.write(frame(TEXT, b"", declared=MAX_MESSAGE_BYTES + 1))
    assert (await raw.closed())[0] == 1009
    assert (await fleet.over(job))["reason"] == "result_lost"


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


BROKEN = {
    "unmasked": b"\x81\x05hello",
    "reserved bits": b"\xf1\x80\x00\x00\x00\x00",
    "compressed, which was not agreed": b"\xc1\x80\x00\x00\x00\x00",
    "unknown data opcode": b"\x83\x80\x00\x00\x00\x00",
    "unknown control opcode": b"\x8b\x80\x00\x00\x00\x00",
    "nothing to continue": frame(CONTINUATION, b"alone"),
    "a message within a message": frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
    "a ping in pieces": frame(PING, b"1", fin=False),
    "a long ping": frame(PING, b"x" * 126),
    "a close within a message": frame(TEXT, b"{", fin=False) + frame(CLOSE, b"\x03\xe8"),
    "a close of one byte": frame(CLOSE, b"\x03"),
    "a close with a code that is none": frame(CLOSE, b"\x03\xed"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_what_breaks_the_framing_closes_the_connection_with_1002(fleet: Fleet, broken: bytes) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    raw.writer.write(broken)
    assert (await raw.closed())[0] == 1002
    await fleet.offline("host-1")
    again = await fleet.raw()
    again.say(job, "COMPLETED", "after all")
    assert (await fleet.over(job))["status"] == "completed"


async def test_bad_utf8_in_the_reason_of_a_close_closes_with_1007(fleet: Fleet) -> None:
    raw = await fleet.raw()
    raw.send(CLOSE, b"\x03\xe8\xff\xfe")
    assert (await raw.closed())[0] == 1007


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_close_is_answered_in_kind_and_the_agent_shown_offline(fleet: Fleet, code: int) -> None:
    raw = await fleet.raw()
    raw.send(CLOSE, code.to_bytes(2, "big") + b"bye")
    assert await raw.closed(polite=False) == (code, "bye")
    await fleet.offline("host-1")


async def test_what_came_with_a_fault_in_one_piece_still_counts(fleet: Fleet) -> None:
    raw = await fleet.raw()
    job = await in_flight(fleet, raw)
    answer = json.dumps({"job_id": job, "status": "COMPLETED", "logs": "x" * 100_000}).encode()
    raw.writer.write(frame(TEXT, answer) + frame(BINARY, b"\0"))
    assert (await raw.closed())[0] == 1003
    assert (await fleet.over(job))["status"] == "completed"


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
