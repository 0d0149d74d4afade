"""What agents may send, and how much of the event loop that may take: uvicorn's WebSocket protocol, metered.

`AgentSocketProtocol` is built on it. However much comes of however many sockets, a turn of the event loop spends
milliseconds on it, so that other agents and REST go on; a socket whose messages are heavy is then left unread for
a while, and one that sends more than it may is heard no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

SLICE_BYTES = 4096
"""Parsed at a time of what came at once: 680 of the smallest frames, in 5 ms."""
TURN_STEPS = 20
"""At most in a turn: each handshake and each end leaves some 0.3 ms of work to a task."""
SMALL_FRAGMENT_BYTES = 1024
"""Installed agents cut long messages into pieces of 4 KiB; shorter pieces count as if they were messages."""
HEAVY_SECONDS = 0.005
REST_FACTOR = 10
"""A message that took long to take in is followed by a rest as many times as long: no agent has over a tenth."""
MAX_REST_SECONDS = 2.0
"""Short beside the 10 s within which a ping must be answered."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a turn of such work may take, and how long the event loop is left to others before the next."""

    turn_seconds: float
    pause_seconds: float


PACES = {
    "agents": Pace(0.001, 0.004),
    "arrivals": Pace(0.002, 0.001),
    "handshakes": Pace(0.003, 0.001),
    "ends": Pace(0.003, 0.005),
}
"""What agents say in bulk can wait, and the ends of many for their new beginnings, whose first half are `arrivals`. In
the pauses the event loop sleeps if it can: the store's threads need Python's lock, and wait 5 ms for it each time while
the event loop never rests."""


class Turns:
    """Lets sockets that bring much at once, and crowds that come or go, be served one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Pace) -> None:
        self._loop = loop
        self._pace = pace
        self._queue: deque[Callable[[], bool]] = deque()
        self._running = False

    def join(self, step: Callable[[], bool]) -> None:
        """Call `step` from the next turn of the event loop on, until it returns False."""
        self._queue.append(step)
        if not self._running:
            self._running = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        ends = perf_counter() + self._pace.turn_seconds
        try:
            for _ in range(TURN_STEPS):
                if not self._queue or perf_counter() >= ends:
                    break
                step = self._queue.popleft()
                if step():
                    self._queue.append(step)
        finally:
            self._running = bool(self._queue)
            if self._running:
                self._loop.call_later(self._pace.pause_seconds, self._serve)


def turns_of(whose: str, loop: asyncio.AbstractEventLoop, app_state: dict[str, Any]) -> Turns:
    """Return the turns of one of PACES, which all sockets of an app share."""
    turns = app_state.get(f"turns_of_{whose}")
    if turns is None:
        turns = app_state[f"turns_of_{whose}"] = Turns(loop, PACES[whose])
    return cast("Turns", turns)


class MeteredProtocol(WebSocketsSansIOProtocol):
    """Given whole messages and everything else that a peer sends, in slices."""

    heard_at = 0.0
    """Time of the last bytes from the peer, on the event loop's clock."""
    on_text: Callable[[str], None] | None = None
    on_frame: Callable[[], None] | None = None
    _kept: memoryview | None = None
    """What came and waits for its turn."""
    _resting = False
    _deaf = False
    """Set once the peer has sent what must end its connection: nothing more of it is taken."""

    def listen(self, on_text: Callable[[str], None], on_frame: Callable[[], None]) -> None:
        """Give every text message to `on_text` as it comes, without a queue and a task between.

        `on_frame` is called for whatever else costs as much as a message. What came before is still in the queue,
        and so is, as `fault`, an error that one of them raises.
        """
        self.on_text = on_text
        self.on_frame = on_frame

    def data_received(self, data: bytes) -> None:
        """Take a little at once, keep much, and every handshake, for its turn."""
        self.heard_at = self.loop.time()
        if self._kept is None and len(data) <= SLICE_BYTES and self.handshake_initiated and not self._resting:
            self._take(data)
        else:
            self._keep(data)

    def take_slice(self) -> bool:
        """Take the next slice of what is kept; whether there is more to be taken soon."""
        if self._kept is not None:
            self._take_next(self._kept)
        if self._resting:
            return False
        if self._kept is None:
            self._read_on()
        return self._kept is not None

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message on."""
        if self._deaf:
            self.frames = []
            return
        if self.on_text is None or self.curr_msg_data_type != "text" or self.close_sent or not self.queue.empty():
            super().send_receive_event_to_app()
            return
        try:
            text = b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self._deaf = True
            super().send_receive_event_to_app()
            return
        self.frames = []
        began = perf_counter()
        self._hand_on(self.on_text, text)
        if (spent := perf_counter() - began) > HEAVY_SECONDS:
            self._rest(min(spent * REST_FACTOR, MAX_REST_SECONDS))

    def handle_ping(self) -> None:
        """Answer a ping, and count it."""
        super().handle_ping()
        self._count()

    def handle_pong(self, event: Frame) -> None:
        """Count a pong."""
        super().handle_pong(event)
        self._count()

    def handle_cont(self, event: Frame) -> None:
        """Count the pieces of messages that are cut smaller than any agent needs to."""
        if len(event.data) < SMALL_FRAGMENT_BYTES and not event.fin:
            self._count()
        super().handle_cont(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """End soon, after what had come before; nobody waits for a handshake any more."""
        if not self.handshake_initiated:
            self._kept = None
        self._turns("ends").join(partial(self._end, exc))

    def _end(self, exc: Exception | None) -> bool:
        while self._kept is not None:
            self._take_next(self._kept)
        self.tell_of_end()
        super().connection_lost(exc)
        return False

    def tell_of_end(self) -> None:
        """Tell the application what uvicorn would not, before uvicorn tells it that the connection has ended."""

    def _take(self, data: bytes) -> None:
        super().data_received(data)

    def _take_next(self, kept: memoryview) -> None:
        self._kept = kept[SLICE_BYTES:] or None
        self._take(bytes(kept[:SLICE_BYTES]))

    def _keep(self, data: bytes) -> None:
        if self._deaf:
            return
        first = self._kept is None
        self._kept = memoryview(data if self._kept is None else bytes(self._kept) + data)
        if self.handshake_initiated or not first:
            self.transport.pause_reading()
        if first and not self._resting:
            self._turns("agents" if self.handshake_initiated else "handshakes").join(self.take_slice)

    def _turns(self, whose: str) -> Turns:
        # Handshakes by the thousand must not hold up agents that are in, nor the other way about.
        return turns_of(whose, self.loop, self.app_state)

    def _count(self) -> None:
        if self.on_frame is not None and not self._deaf:
            self._hand_on(self.on_frame)

    def _hand_on(self, listener: Callable[..., None], *heard: str) -> None:
        try:
            listener(*heard)
        except Exception as fault:
            self._deaf = True
            self._kept = None
            self.queue.put_nowait(cast("Any", {"type": "websocket.receive", "fault": fault}))

    def _rest(self, seconds: float) -> None:
        self._resting = True
        self.transport.pause_reading()
        self.loop.call_later(seconds, self._end_rest)

    def _end_rest(self) -> None:
        self._resting = False
        if self._kept is not None:
            self._turns("agents" if self.handshake_initiated else "handshakes").join(self.take_slice)
        else:
            self._read_on()

    def _read_on(self) -> None:
        if not (self.read_paused or self._deaf or self.transport.is_closing()):
            self.transport.resume_reading()
