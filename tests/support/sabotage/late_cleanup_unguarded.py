"""The late clean-up of a replaced connection marks its agent offline, whichever connection stands by then."""

from datetime import UTC, datetime

from sqlalchemy import bindparam, update

from control_plane.core.states import AgentStatus
from control_plane.fleet.manager import ConnectionManager
from control_plane.fleet.session import AgentSession
from control_plane.store import agents
from control_plane.store.bulk import Bulk
from control_plane.store.tables import agent_table
from tests.support.sabotage import late_cleanup


def apply() -> None:
    """End connections late, and without either guard: nobody asks who has the hostname now, nor whose row it is."""

    async def disconnect(self: ConnectionManager, session: AgentSession) -> bool:
        departure = agents.Departure(session.agent_id, session.connection_id, datetime.now(UTC))
        await self._store.write(agents.depart, departure)
        return True

    ConnectionManager.disconnect = disconnect  # type: ignore[method-assign]
    agents._DEPART = Bulk(
        update(agent_table)
        .where(agent_table.c.id == bindparam("agent"))
        .values(status=AgentStatus.OFFLINE.value, last_seen=bindparam("at"), connection_id="")
    )
    late_cleanup.apply()
