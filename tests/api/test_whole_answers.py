"""An answer's head and the beginning of its body leave in one piece, whatever kind of answer it is."""

from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from control_plane.api.whole_answers import _Answer

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


class Wire:
    """A transport that notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def _cycle(wire: Wire, method: str = "GET", *, keep_alive: bool = True, expects_100: bool = False) -> Any:
    flow: Any = type("Flow", (), {"write_paused": False, "resume_reading": lambda _: None})()
    event: Any = type("Event", (), {"set": lambda _: None})()
    options: dict[str, Any] = {"scope": {"method": method}, "transport": wire, "flow": flow, "message_event": event}
    options |= {"logger": None, "access_logger": None, "access_log": False, "default_headers": []}
    ended: list[bool] = []
    cycle = RequestResponseCycle(
        **options, expect_100_continue=expects_100, keep_alive=keep_alive, on_response=lambda: ended.append(True)
    )
    answer = _Answer(cycle)
    cycle.transport = cast("Any", answer)
    cycle.on_response = answer.on_response
    return cycle


async def test_head_and_body_are_one_write() -> None:
    wire = Wire()
    cycle = _cycle(wire)
    await cycle.send(START)
    assert wire.writes == []
    await cycle.send({"type": "http.response.body", "body": b"body"})
    [whole] = wire.writes
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\nbody")


async def test_a_body_in_pieces_is_written_as_it_comes() -> None:
    wire = Wire()
    cycle = _cycle(wire)
    await cycle.send(START)
    await cycle.send({"type": "http.response.body", "body": b"bo", "more_body": True})
    await cycle.send({"type": "http.response.body", "body": b"dy"})
    assert [write[-2:] for write in wire.writes] == [b"bo", b"dy"]


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_head_without_a_body_is_written_at_the_end(keep_alive: bool) -> None:
    wire = Wire()
    cycle = _cycle(wire, "HEAD", keep_alive=keep_alive)
    await cycle.send(START)
    await cycle.send({"type": "http.response.body", "body": b""})
    assert wire.writes[0].endswith(b"\r\n\r\n")
    assert wire.closed is not keep_alive


async def test_a_caller_that_asks_first_is_told_to_go_on_at_once() -> None:
    wire = Wire()
    cycle = _cycle(wire, expects_100=True)
    cycle.message_event = type("Event", (), {"set": lambda _: None, "clear": lambda _: None, "wait": _nothing})()
    await cycle.receive()
    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def _nothing(_: object) -> None:
    return None
