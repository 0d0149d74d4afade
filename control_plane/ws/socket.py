"""The agents' sockets below ASGI: uvicorn's WebSocket protocol with what a fleet needs on top of it.

ASGI has no pings and no way to cut a connection, so this subclass offers both to the endpoint through the
scope. A peer that misses its keep-alive is cut at once: waiting for a full send buffer to drain would keep a
dead agent "online" for minutes.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import InvalidState, PayloadTooBig
from websockets.frames import Frame
from websockets.http11 import Request

from control_plane.core.protocol import CloseCode
from control_plane.fleet.session import SocketClosedError
from control_plane.ws.inflow import MeteredProtocol
from control_plane.ws.oversized import ENOUGH_BYTES, START_BYTES, KeepingProtocol

EXTENSION = "control_plane.agent_socket"
CLOSE_SECONDS = 1.0
"""How long a close frame may take to reach a peer before the connection is cut."""


class AgentSocketProtocol(MeteredProtocol):
    """Given to uvicorn as its WebSocket protocol; one instance a connection."""

    oversized_start = b""
    """How a message began that was too large."""
    conn: KeepingProtocol
    _oversized_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not another one: each asks the system for a random id, which lets other threads take Python's lock.
        self.conn.__class__ = KeepingProtocol

    def handle_connect(self, event: Request) -> None:
        """Offer this object to the application, next to what uvicorn offers."""
        super().handle_connect(event)
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        if hasattr(self, "scope"):
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if not self.handshake_initiated and (refusal := self.conn.data_to_send()):
            # Headers too long or too many: uvicorn leaves the answer unsent and the connection open.
            self.transport.write(b"".join(refusal))
            self.transport.close()

    def handle_pong(self, event: Frame) -> None:
        """Tell whoever pinged; uvicorn's own keep-alive ignores pongs of other pings."""
        pong = self._pongs.pop(bytes(event.data), None)
        if pong is not None and not pong.done():
            pong.set_result(None)
        super().handle_pong(event)

    def handle_parser_exception(self) -> None:
        """Close, but first learn how a message began that is too large: it names the job whose answer is lost."""
        if not self.close_sent:
            # What came whole before the fault, and with it in one piece, is still to be handed on.
            with contextlib.suppress(InvalidState):
                self.handle_events()
        if isinstance(self.conn.parser_exc, PayloadTooBig) and not self.oversized_start:
            start = b"".join([*self.frames[:START_BYTES], self.conn.refused_start()])[:START_BYTES]
            if len(start) < ENOUGH_BYTES:
                if self._oversized_timer is None:
                    self._oversized_timer = self.loop.call_later(CLOSE_SECONDS, self.handle_parser_exception)
                if self.loop.time() < self._oversized_timer.when():
                    return
            self.oversized_start = start
        self.frames = []
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        """Cut a peer that did not answer."""
        super().keepalive_timeout()
        self.abort()

    async def ping(self, timeout_seconds: float) -> bool:
        """Send a ping; whether its pong came in time. One that is gone, but not yet told of, is not asked."""
        if self.transport.is_closing():
            return False
        payload = os.urandom(8)
        pong = self._pongs[payload] = self.loop.create_future()
        try:
            self.conn.send_ping(payload)
            self.transport.write(b"".join(self.conn.data_to_send()))
            async with asyncio.timeout(timeout_seconds):
                await pong
        except (TimeoutError, InvalidState):
            return False
        finally:
            self._pongs.pop(payload, None)
        return True

    def abort(self) -> None:
        """Cut the connection without waiting for anything."""
        self.transport.abort()

    def stop_reading(self) -> None:
        """Take nothing more of a peer that was told to go, and cut it soon: it may never answer the close."""
        self.transport.pause_reading()
        self.loop.call_later(CLOSE_SECONDS, self.abort)

    def shutdown(self) -> None:
        """Close because the server ends; what a peer does not read must not keep the server alive."""
        if self.transport.is_closing():  # its end is yet to be told; uvloop would raise, and the others stay open
            return
        with contextlib.suppress(InvalidState):
            super().shutdown()
        self.loop.call_later(CLOSE_SECONDS, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits longer for a pong than for the connection."""
        if self._oversized_timer is not None:
            self._oversized_timer.cancel()
        for pong in getattr(self, "_pongs", {}).values():
            if not pong.done():
                pong.set_exception(TimeoutError())
        super().connection_lost(exc)

    def tell_of_end(self) -> None:
        """Uvicorn says 1005 of a connection that was cut, as of one closed without a code. What came before counts."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})


class AgentSocket:
    """Implements the fleet's Socket on a Starlette WebSocket served by AgentSocketProtocol."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._protocol: Any = websocket.scope["extensions"][EXTENSION]

    @property
    def heard_at(self) -> datetime:
        """When the peer last sent anything, pongs included."""
        ago = self._protocol.loop.time() - self._protocol.heard_at
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() - ago, UTC)

    @property
    def writable(self) -> bool:
        """Whether a frame can be written without waiting for the peer to read."""
        return bool(self._protocol.writable.is_set())

    async def wait_writable(self) -> None:
        """Return when a frame can be written, or the connection has ended."""
        await self._protocol.writable.wait()

    async def send_text(self, text: str) -> None:
        """Write one text frame. Raises SocketClosedError when nothing of it was written."""
        if self._protocol.transport.is_closing():
            # Uvicorn would not notice until the loop's next turn, and drop the frame in silence.
            raise SocketClosedError
        try:
            await self._protocol.send({"type": "websocket.send", "text": text})
        except (ClientDisconnected, RuntimeError) as error:
            # Both say that the socket was closed before: by the peer, or by this side.
            raise SocketClosedError from error

    def listen(self, on_text: Callable[[str], None], on_frame: Callable[[], None]) -> None:
        """Give text messages straight to `on_text`; see MeteredProtocol.listen."""
        self._protocol.listen(on_text, on_frame)

    async def ping(self, timeout_seconds: float) -> bool:
        """Whether the peer answers a ping in time."""
        return bool(await self._protocol.ping(timeout_seconds))

    async def close(self, code: CloseCode, reason: str) -> None:
        """Start the closing handshake, or cut a peer that does not read; does nothing on a closed socket."""
        if not self.writable:
            self.abort()
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(code, reason)
        if code is CloseCode.POLICY_VIOLATION:
            self._protocol.stop_reading()

    def abort(self) -> None:
        """Cut the connection at once."""
        self._protocol.abort()


def note_refusal(websocket: WebSocket) -> None:
    """Note that a handshake ended with an HTTP answer; uvicorn logs an error for each one otherwise."""
    protocol: AgentSocketProtocol = websocket.scope["extensions"][EXTENSION]
    protocol.handshake_complete = True


def oversized_start(websocket: WebSocket) -> str:
    """Return how the message began that was too large; empty when it is not known."""
    protocol: AgentSocketProtocol = websocket.scope["extensions"][EXTENSION]
    return protocol.oversized_start.decode("utf-8", "replace")


def peer_certificate(websocket: WebSocket) -> dict[str, Any] | None:
    """Return the certificate that the peer has shown and TLS has found valid; None without one, or without TLS."""
    protocol: AgentSocketProtocol = websocket.scope["extensions"][EXTENSION]
    certificate: dict[str, Any] | None = protocol.transport.get_extra_info("peercert")
    return certificate
