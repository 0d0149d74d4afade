"""RefusedHostnames: tells operators of second agents under a hostname, without letting them fill the events.

The connection manager calls it for each refusal. A twin knocks for ever, so that of one hostname at most one event a
minute is written; it counts the refusals that it stands for.
"""

import asyncio
from dataclasses import dataclass

import structlog

from control_plane.core.errors import ControlPlaneError
from control_plane.core.events import EventKind
from control_plane.fleet.session import AgentSession, Identity
from control_plane.store.events import NewEvent, record_events
from control_plane.store.store import Store

EVENT_SECONDS = 60
"""Between two events of one hostname."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Refused:
    """A hostname's refusals since its last event."""

    told_at: float
    untold: int = 0


class RefusedHostnames:
    """Remembers the hostnames of the last minute or two, and no more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused: dict[tuple[int, str], _Refused] = {}
        self._swept_at = 0.0

    async def note(self, incumbent: AgentSession, newcomer: Identity) -> None:
        """Count a refusal, and write its event unless there was one a moment ago. A store that is away only logs."""
        now = asyncio.get_running_loop().time()
        refused = self._refused.get(newcomer.place)
        if refused is not None and now - refused.told_at < EVENT_SECONDS:
            refused.untold += 1
            return
        count = 1 + (refused.untold if refused else 0)
        self._sweep(now)
        refused = self._refused[newcomer.place] = _Refused(now)
        try:
            await self._store.write(record_events, _event(incumbent, newcomer, count))
        except ControlPlaneError as error:
            refused.untold = count
            log.warning("event_lost", kind=EventKind.HOSTNAME_REFUSED.value, error=error.detail)

    def _sweep(self, now: float) -> None:
        """Forget hostnames that were not refused again within a minute of their minute."""
        if now - self._swept_at < EVENT_SECONDS:
            return
        self._swept_at = now
        self._refused = {
            place: refused for place, refused in self._refused.items() if now - refused.told_at < 2 * EVENT_SECONDS
        }


def _event(incumbent: AgentSession, newcomer: Identity, count: int) -> NewEvent:
    message = (
        f"An agent at {newcomer.address} was refused: agent {incumbent.agent_id} at {incumbent.identity.address} is "
        f"connected as '{newcomer.hostname}'. Give one of them another hostname."
    )
    details = {
        "hostname": newcomer.hostname,
        "incumbent_address": incumbent.identity.address,
        "newcomer_address": newcomer.address,
        "refusals": count,
    }
    return NewEvent(
        EventKind.HOSTNAME_REFUSED, incumbent.identity.organization_id, message, incumbent.agent_id, details=details
    )
