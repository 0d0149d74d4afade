"""An agent's socket without a network: what the fleet writes is in a list, and the test is the agent.

Used where the fleet is driven step by step, or where thousands of agents are needed; everything above and below it
is the real thing.
"""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from control_plane.core.protocol import CloseCode
from control_plane.fleet.session import AgentSession, Identity, SocketClosedError


class MemorySocket:
    """Implements the fleet's Socket."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        """What was written, decoded, in order."""
        self.writable = True
        self.is_open = True

    @property
    def heard_at(self) -> datetime:
        return datetime.now(UTC)

    async def wait_writable(self) -> None:
        if not self.writable:
            await asyncio.Event().wait()

    async def send_text(self, text: str) -> None:
        if not self.is_open:
            raise SocketClosedError
        self.commands.append(json.loads(text))

    async def ping(self, timeout_seconds: float) -> bool:
        return self.is_open

    async def close(self, code: CloseCode, reason: str) -> None:
        self.is_open = False

    def abort(self) -> None:
        self.is_open = False


def identity(hostname: str = "host-1", *, instance: str = "", capabilities: str = "") -> Identity:
    return Identity(1, hostname, "192.0.2.1", "1.0.0", "linux-amd64", instance, frozenset(capabilities.split()))


def session_of(socket: MemorySocket, agent_id: int, **who: str) -> AgentSession:
    """Return a session that no handshake has made."""
    return AgentSession(agent_id, f"c{agent_id}", identity(f"host-{agent_id}", **who), socket)
