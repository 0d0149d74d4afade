"""Bounds what a request's head may cost, request line and headers, before anybody knows who sends it.

`serve` gives the protocol to uvicorn, which waits for a head as long as it takes and keeps all of it. Bodies have
bounds of their own in `body_limit`. Invariant: a connection either gets its head through in time or is closed.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from control_plane.api.problem_types import PROTOCOL_ERRORS
from control_plane.api.problems import http_problem

HEAD_SECONDS = 15.0
"""From the connection, or from the first byte of a later request on it, to the end of the headers; while an earlier
request is being answered nothing is counted. Agents give a handshake 10 s."""
MAX_HEAD_BYTES = 64 * 1024
"""What usual servers take is 8 to 32 KiB. What comes in one piece is only looked at as a whole: up to 256 KiB more."""
SWEEP_SECONDS = 1.0


class HeadClock:
    """Knows which connections still owe a head, and ends those that are late. One for all of a server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[HeadLimitProtocol, float] = {}
        """In the order of their deadlines, for all get the same time."""
        self._sweeping = False

    def start(self, connection: "HeadLimitProtocol") -> None:
        """Begin to wait for a connection's head, unless that is waited for already."""
        self._due.setdefault(connection, self._loop.time() + HEAD_SECONDS)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def stop(self, connection: "HeadLimitProtocol") -> None:
        """Note that it has come, or that nobody waits for it any more."""
        self._due.pop(connection, None)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in [connection for connection, due in self._due.items() if due <= now]:
            del self._due[connection]
            connection.give_up()
        self._sweeping = bool(self._due)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)


class HeadLimitProtocol(HttpToolsProtocol):
    """Answers 408 to a head that is late, 431 to one that is too large, 400 to what is no HTTP, and closes."""

    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._clock.start(self)

    def data_received(self, data: bytes) -> None:
        """Take what came, and look at what of a head is still to come."""
        super().data_received(data)
        if not self._in_head:
            return
        if not self._is_busy:
            self._clock.start(self)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._answer_and_close(431)

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that the head is there."""
        self._in_head = False
        self._head_bytes = 0
        self._clock.stop(self)
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._clock.stop(self)
        super().connection_lost(exc)

    def give_up(self) -> None:
        """End the wait for a head: with an answer if a request had begun, else in silence, as of an idle connection."""
        if self._in_head:
            self._answer_and_close(408)
        elif not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read in the one shape of all errors."""
        self._answer_and_close(400)

    @property
    def _clock(self) -> HeadClock:
        clock = self.app_state.get("head_clock")
        if clock is None:
            clock = self.app_state["head_clock"] = HeadClock(self.loop)
        return cast("HeadClock", clock)

    @property
    def _is_busy(self) -> bool:
        """Whether an earlier request on this connection is still to be answered: that answer must come first."""
        return self.cycle is not None and not self.cycle.response_complete

    def _answer_and_close(self, status: int) -> None:
        if self.transport.is_closing():
            return
        self._in_head = False
        self._clock.stop(self)
        if not self._is_busy:
            self.transport.write(_answer(status))
        self.transport.close()


def _answer(status: int) -> bytes:
    code, sentence = PROTOCOL_ERRORS[status]
    if status == 408:
        sentence = "The request did not arrive in time; send it again over a faster connection."
    answer = http_problem(status, code, sentence, headers={"Connection": "close"})
    headers = [b"%b: %b\r\n" % header for header in answer.raw_headers]
    return b"".join([STATUS_LINE[status], *headers, b"\r\n", bytes(answer.body)])
