"""The late clean-up of a replaced connection marks its agent offline, whichever connection stands by then."""

from sqlalchemy import bindparam, update

from control_plane.core.states import AgentStatus
from control_plane.store import agents
from control_plane.store.bulk import Bulk
from control_plane.store.tables import agent_table
from tests.support.sabotage import late_cleanup


def apply() -> None:
    """End connections late, and by the agent's id alone."""
    late_cleanup.apply()
    agents._DEPART = Bulk(
        update(agent_table)
        .where(agent_table.c.id == bindparam("agent"))
        .values(status=AgentStatus.OFFLINE.value, last_seen=bindparam("at"), connection_id="")
    )
