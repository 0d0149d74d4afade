"""What the dispatcher knows of an agent that it serves: its session, its lane, and who has the right to send.

Invariant: one thing at a time takes commands to an agent, its task or a reservation.
"""

import asyncio
import math
from dataclasses import dataclass, field

from control_plane.fleet.lane import Lane
from control_plane.fleet.session import AgentSession
from control_plane.store.jobs import AgentJob


@dataclass(eq=False, slots=True)
class ServedAgent:
    """A connected agent's lane, and the task that empties it, which lives only while something can be sent."""

    session: AgentSession
    lane: Lane = field(default_factory=Lane)
    must_read: bool = False
    task: asyncio.Task[None] | None = None
    written_at: float = math.inf
    """When the command was written whose acknowledgement is awaited, on the event loop's clock."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to send one job to an agent at once, if it is stored as sent to `instance`."""

    job: AgentJob
    agent: ServedAgent

    @property
    def instance(self) -> str:
        """The agent's process, as far as it names it."""
        return self.agent.session.identity.instance
