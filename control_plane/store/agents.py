"""Agents' rows: who connected, from where, and whether that connection still stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.errors import AgentNotFoundError
from control_plane.core.events import EventKind
from control_plane.core.states import AgentStatus
from control_plane.store.bulk import Bulk
from control_plane.store.events import NewEvent, record_events
from control_plane.store.models import JOB_IS_ACTIVE, Agent, Job
from control_plane.store.tables import agent_table, upsert


@dataclass(frozen=True, slots=True)
class Arrival:
    """An agent's connection, as its handshake tells it. `connection_id` is unique to the socket."""

    hostname: str
    ip_address: str
    version: str
    architecture: str
    capabilities: str
    instance: str
    connection_id: str
    at: datetime
    replaces: str | None = None
    """The address of an earlier connection under this hostname that had to go."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """The agent's id, and whether jobs of it are queued or in flight."""

    agent_id: int
    has_work: bool


@dataclass(frozen=True, slots=True)
class Departure:
    """The end of one connection."""

    agent_id: int
    connection_id: str
    at: datetime


ON_CONNECTION = (agent_table.c.id == bindparam("agent"), agent_table.c.connection_id == bindparam("connection"))
"""What came late, over a connection that is no more, changes nothing."""
_ARRIVE = Bulk(
    upsert(
        agent_table,
        conflict=["hostname"],
        change=[
            "ip_address",
            "status",
            "last_seen",
            "version",
            "architecture",
            "capabilities",
            "instance",
            "connection_id",
            "missed_checks",
        ],
    )
)
_DEPART = Bulk(
    update(agent_table)
    .where(*ON_CONNECTION)
    .values(status=AgentStatus.OFFLINE.value, last_seen=bindparam("at"), connection_id="")
)
_SEEN = Bulk(update(agent_table).where(agent_table.c.id == bindparam("agent")).values(last_seen=bindparam("at")))


def arrive(db: Connection, arrivals: Sequence[Arrival]) -> list[Arrived | Exception]:
    """Create or update the agents by hostname and mark them online."""
    _ARRIVE.run(
        db,
        [
            {
                "hostname": arrival.hostname,
                "ip_address": arrival.ip_address,
                "status": AgentStatus.ONLINE.value,
                "last_seen": arrival.at,
                "version": arrival.version,
                "architecture": arrival.architecture,
                "created_at": arrival.at,
                "capabilities": arrival.capabilities,
                "instance": arrival.instance,
                "connection_id": arrival.connection_id,
                "missed_checks": 0,
            }
            for arrival in arrivals
        ],
    )
    hostnames = [arrival.hostname for arrival in arrivals]
    rows = db.execute(select(agent_table.c.hostname, agent_table.c.id).where(agent_table.c.hostname.in_(hostnames)))
    ids = {hostname: agent_id for hostname, agent_id in rows}  # noqa: C416 - rows are not plain tuples
    working = select(col(Job.agent_id)).where(col(Job.agent_id).in_(ids.values()), JOB_IS_ACTIVE).distinct()
    busy = set(db.execute(working).scalars())
    record_events(db, [_arrival_event(arrival, ids[arrival.hostname]) for arrival in arrivals])
    return [Arrived(ids[hostname], ids[hostname] in busy) for hostname in hostnames]


def depart(db: Connection, departures: Sequence[Departure]) -> list[Exception | None]:
    """Mark agents offline, each only if that very connection is still the one of its row."""
    by_connection = {departure.connection_id: departure for departure in departures}
    standing = select(agent_table.c.id, agent_table.c.hostname, agent_table.c.connection_id).where(
        agent_table.c.id.in_([departure.agent_id for departure in departures])
    )
    record_events(
        db,
        [
            NewEvent(EventKind.AGENT_DISCONNECTED, f"Agent {agent_id} ({hostname}) disconnected.", agent_id)
            for agent_id, hostname, connection_id in db.execute(standing)
            if connection_id in by_connection
        ],
    )
    _DEPART.run(
        db,
        [
            {"agent": departure.agent_id, "connection": departure.connection_id, "at": departure.at}
            for departure in departures
        ],
    )
    return [None] * len(departures)


def _arrival_event(arrival: Arrival, agent_id: int) -> NewEvent:
    message = f"Agent {agent_id} ({arrival.hostname}) connected from {arrival.ip_address}"
    kind, details = EventKind.AGENT_CONNECTED, {"address": arrival.ip_address, "version": arrival.version}
    if arrival.replaces is not None:
        kind, details = EventKind.AGENT_REPLACED, {**details, "replaced_address": arrival.replaces}
        message += f" and took the place of its connection from {arrival.replaces}"
    return NewEvent(kind, f"{message}.", agent_id, details=details)


def see(db: Connection, sightings: Sequence[dict[int, datetime]]) -> list[Exception | None]:
    """Set `last_seen` by agent id."""
    rows = [{"agent": agent_id, "at": at} for seen in sightings for agent_id, at in seen.items()]
    if rows:
        _SEEN.run(db, rows)
    return [None] * len(sightings)


def forget_connections(db: Connection, items: Sequence[None]) -> list[int | Exception]:
    """Mark every agent offline: at start-up no socket stands. Returns how many had not been."""
    result = db.execute(
        update(agent_table)
        .where(agent_table.c.status != AgentStatus.OFFLINE.value)
        .values(status=AgentStatus.OFFLINE.value, connection_id="")
    )
    return [result.rowcount] * len(items)


def find_agent(db: Session, agent_id: int) -> Agent | None:
    """Return the agent, or None."""
    return db.get(Agent, agent_id)


def get_agent(db: Session, agent_id: int) -> Agent:
    """Return the agent. Raises AgentNotFoundError."""
    agent = db.get(Agent, agent_id)
    if agent is None:
        raise AgentNotFoundError(f"There is no agent with the id {agent_id}; GET /agents lists them.")
    return agent


def list_agents(db: Session, *, status: str | None, after_id: int, limit: int) -> tuple[Sequence[Agent], int]:
    """Return up to `limit` agents with ids above `after_id`, lowest first, and the count of all that match."""
    query = select_rows(Agent).where(col(Agent.id) > after_id).order_by(col(Agent.id)).limit(limit)
    count = select_rows(func.count()).select_from(Agent)
    if status is not None:
        query = query.where(Agent.status == status)
        count = count.where(Agent.status == status)
    return db.exec(query).all(), db.exec(count).one()
