"""AgentSession: one agent's socket, from its accepted handshake to its end.

The ws edge makes it and reads the socket; the dispatcher sends through it. Everything is on the event loop.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from control_plane.core.protocol import Capability, CloseCode
from control_plane.store.enrollment import Enrollment

SEND_TIMEOUT_SECONDS = 30
"""How long one command may wait for an agent that does not read, before its connection is closed."""


class Socket(Protocol):
    """What the fleet needs of a WebSocket."""

    @property
    def heard_at(self) -> datetime:
        """When the peer last sent anything, pongs included."""
        ...

    @property
    def writable(self) -> bool:
        """Whether a frame can be written without waiting for the peer to read."""
        ...

    async def wait_writable(self) -> None:
        """Return when `writable` is true, or the connection has ended."""
        ...

    async def send_text(self, text: str) -> None:
        """Write one text frame, whole. SocketClosedError, or a cancellation while it waits: nothing was written."""
        ...

    async def ping(self, timeout_seconds: float) -> bool:
        """Whether the peer answers a ping in time."""
        ...

    async def close(self, code: CloseCode, reason: str) -> None:
        """Start the closing handshake; the reader ends soon after."""
        ...

    def abort(self) -> None:
        """Cut the connection at once; the reader ends soon after."""
        ...


class SocketClosedError(Exception):
    """The socket was closed before anything of the frame was written."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is by its token, and what it says of itself, bounded and cleaned."""

    organization_id: int
    hostname: str
    address: str
    version: str
    architecture: str
    instance: str
    capabilities: frozenset[str]
    token_id: int | None = None
    """The token of its own that it came with; None: the secret that agents share, or an enrolment's."""
    enrollment: Enrollment | None = None
    """How it is to get a token of its own."""

    @property
    def place(self) -> tuple[int, str]:
        """What one live connection at most has: the organisation and the hostname."""
        return self.organization_id, self.hostname


class Rate:
    """Counts events within the second that runs."""

    __slots__ = ("_count", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0

    def allows(self, most: int, now: float) -> bool:
        """Count one event at `now` (seconds, monotonic); False once there were more than `most` within a second."""
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= most


@dataclass(slots=True)
class Pulse:
    """How the agent of one session answers its health checks; kept by `fleet.health`. Times are the event loop's."""

    due_at: float = 0.0
    """When its next turn comes."""
    owed: bool = False
    """Whether it was asked at its last turn."""
    heard: bool = False
    """Whether it has brought any command to its end since then."""
    missed: int = 0
    """Turns in a row that found it silent."""
    asked: dict[str, float] = field(default_factory=dict)
    """Checks without an answer yet, and when each was written; the last few."""


@dataclass(eq=False, slots=True)
class AgentSession:
    """A connected agent."""

    agent_id: int
    connection_id: str
    identity: Identity
    socket: Socket
    connected_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    closed: bool = False
    rate: Rate = field(default_factory=Rate)
    """Of the messages it sends."""
    pulse: Pulse = field(default_factory=Pulse)
    token_id: int | None = None
    """The token of its own that it came with or got; None: it came with the secret that agents share."""

    @property
    def last_seen(self) -> datetime:
        """When the agent last sent anything."""
        return self.socket.heard_at

    def can(self, capability: Capability) -> bool:
        """Whether the agent has said that it can do this."""
        return capability.value in self.identity.capabilities

    async def ready(self) -> bool:
        """Wait until there is room for a command; what is made before would lie in memory beside the one in the way.

        False when the connection has ended, or was cut here because the agent has not read for too long.
        """
        if not self.closed and not self.socket.writable:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                    await self.socket.wait_writable()
            except TimeoutError:
                self.closed = True
                self.socket.abort()
        return not self.closed

    async def send(self, text: str) -> bool:
        """Write a command once there is room; True once it is written, False when certainly nothing of it was."""
        if not await self.ready():
            return False
        try:
            await self.socket.send_text(text)
        except SocketClosedError:
            self.closed = True
            return False
        return True
