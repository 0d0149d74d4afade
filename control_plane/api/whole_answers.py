"""Writes the head of an HTTP answer together with the beginning of its body.

`serve` gives the protocol to uvicorn, which writes them one after the other, and uvloop hands each write to the
kernel at once: two packets, and a caller that is woken twice. Invariant: the same bytes leave in the same order, and
no later than the first of the body, the end of the answer or that of the connection.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class WholeAnswerProtocol(HttpToolsProtocol):
    """Gives each answer a transport that keeps its head for a moment."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        answer = _Answer(cycle)
        cycle.transport = cast("asyncio.Transport", answer)
        cycle.on_response = answer.on_response
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]


class _Answer:
    """What uvicorn needs of a transport for one answer."""

    __slots__ = ("_cycle", "_head", "_head_is_out", "_on_response", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._on_response: Callable[[], None] = cycle.on_response
        self._head = b""
        self._head_is_out = False

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif self._head_is_out or not self._cycle.response_started:  # the latter is "100 Continue"
            self._transport.write(data)
        else:
            self._head, self._head_is_out = data, True

    def close(self) -> None:
        self._write_head()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def on_response(self) -> None:
        """Nothing has followed the head of an answer without a body, as to HEAD."""
        self._write_head()
        self._on_response()

    def _write_head(self) -> None:
        if self._head:
            self.write(b"")
