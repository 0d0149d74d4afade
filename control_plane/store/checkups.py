"""Checkups: what health checks leave on agents' rows, many of them in one change. The health loop writes them.

Only the connection that was asked is told about: an answer or a silence of an earlier one changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from control_plane.core.events import EventKind
from control_plane.core.states import AgentStatus
from control_plane.store.agents import ON_CONNECTION
from control_plane.store.bulk import Bulk
from control_plane.store.events import NewEvent, record_events
from control_plane.store.tables import agent_table


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """What an agent answered to a health check, on which connection."""

    agent_id: int
    connection_id: str
    health: dict[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How many health checks in a row an agent has missed, and what that makes of it."""

    agent_id: int
    connection_id: str
    missed: int
    status: AgentStatus


@dataclass(frozen=True, slots=True)
class Checkup:
    """What many agents' health checks have come to, by agent id."""

    answers: Mapping[int, CheckAnswer]
    standings: Mapping[int, Standing]


_ANSWERED = Bulk(update(agent_table).where(*ON_CONNECTION).values(health=bindparam("told"), health_at=bindparam("at")))
_STANDS = Bulk(
    update(agent_table).where(*ON_CONNECTION).values(missed_checks=bindparam("missed"), status=bindparam("standing"))
)


def note_checkup(db: Connection, checkups: Sequence[Checkup]) -> list[Exception | None]:
    """Keep what health checks have come to, each only if the agent's connection is still the one that was asked."""
    told = [
        {"agent": answer.agent_id, "connection": answer.connection_id, "told": answer.health, "at": answer.at}
        for checkup in checkups
        for answer in checkup.answers.values()
    ]
    stands = [
        {"agent": each.agent_id, "connection": each.connection_id, "missed": each.missed, "standing": each.status.value}
        for checkup in checkups
        for each in checkup.standings.values()
    ]
    record_events(db, _turns(db, [each for checkup in checkups for each in checkup.standings.values()]))
    for statement, rows in ((_ANSWERED, told), (_STANDS, stands)):
        if rows:
            statement.run(db, rows)
    return [None] * len(checkups)


def _turns(db: Connection, standings: Sequence[Standing]) -> list[NewEvent]:
    """Return the events of agents that become unresponsive, or answer again."""
    if not standings:
        return []
    agent = agent_table.c
    rows = db.execute(
        select(agent.id, agent.organization_id, agent.connection_id, agent.hostname, agent.status).where(
            agent.id.in_([each.agent_id for each in standings])
        )
    )
    now = {(row.id, row.connection_id): row for row in rows}
    events = []
    for each in standings:
        row = now.get((each.agent_id, each.connection_id))
        if row is None or row.status == each.status.value:
            continue
        who = f"Agent {each.agent_id} ({row.hostname})"
        if each.status is AgentStatus.UNRESPONSIVE:
            said = f"{who} is connected and left {each.missed} health checks unanswered; it gets no new project."
            events.append(NewEvent(EventKind.AGENT_UNRESPONSIVE, row.organization_id, said, each.agent_id))
        else:
            told = f"{who} answers again."
            events.append(NewEvent(EventKind.AGENT_RESPONSIVE, row.organization_id, told, each.agent_id))
    return events
