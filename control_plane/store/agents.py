"""Agents' rows: who connected, from where, and whether that connection still stands."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.errors import AgentNotFoundError
from control_plane.core.events import EventKind
from control_plane.core.states import AgentStatus
from control_plane.store.bulk import Bulk
from control_plane.store.enrollment import Claimed, Enrollment, enroll, judge_arrivals
from control_plane.store.events import NewEvent, record_events
from control_plane.store.models import AGENT_IS_KNOWN, JOB_IS_ACTIVE, Agent, Job
from control_plane.store.reaching import limits, within
from control_plane.store.tables import agent_table, upsert

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """An agent's connection, as its handshake tells it. `connection_id` is unique to the socket."""

    organization_id: int
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
    token_id: int | None = None
    """The token of its own that it came with."""
    enrollment: Enrollment | None = None
    """How it is to get one now."""

    @property
    def place(self) -> tuple[int, str]:
        """Whose identity this is: the organisation and the hostname."""
        return self.organization_id, self.hostname


@dataclass(frozen=True, slots=True)
class Arrived:
    """The agent's id, whether jobs of it are queued or in flight, and the token of its own that it has by now."""

    agent_id: int
    has_work: bool
    token_id: int | None


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
        conflict=["organization_id", "hostname"],
        among=AGENT_IS_KNOWN,
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
    """Create or update the agents by hostname and mark them online.

    HostnameBoundError for one that comes without the token that its hostname is bound to, UnauthorizedError for one
    whose token, or enrolment, is not good any more.
    """
    if len(arrivals) > 1 and any(arrival.enrollment for arrival in arrivals):
        return [arrive(db, [arrival])[0] for arrival in arrivals]
    refusals = judge_arrivals(db, [Claimed(each.place, each.token_id, each.enrollment, each.at) for each in arrivals])
    admitted = [arrival for arrival, refusal in zip(arrivals, refusals, strict=True) if refusal is None]
    arrived = iter(_let_in(db, admitted) if admitted else ())
    return [next(arrived) if refusal is None else refusal for refusal in refusals]


def _let_in(db: Connection, arrivals: Sequence[Arrival]) -> list[Arrived]:
    _ARRIVE.run(
        db,
        [
            {
                "organization_id": arrival.organization_id,
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
                "cordoned": False,
                "bound": False,
            }
            for arrival in arrivals
        ],
    )
    ids = _ids(db, arrivals)
    working = select(col(Job.agent_id)).where(col(Job.agent_id).in_(ids.values()), JOB_IS_ACTIVE).distinct()
    busy = set(db.execute(working).scalars())
    record_events(db, [_arrival_event(arrival, ids[arrival.place]) for arrival in arrivals])
    return [_arrived(db, arrival, ids[arrival.place], busy) for arrival in arrivals]


def _arrived(db: Connection, arrival: Arrival, agent_id: int, busy: Collection[int]) -> Arrived:
    token_id = arrival.token_id
    if arrival.enrollment is not None:
        token_id = enroll(db, arrival.enrollment, agent_id, arrival.hostname, arrival.at)
    return Arrived(agent_id, agent_id in busy, token_id)


def _ids(db: Connection, arrivals: Sequence[Arrival]) -> dict[tuple[int, str], int]:
    agent = agent_table.c
    rows = db.execute(
        select(agent.organization_id, agent.hostname, agent.id).where(
            agent.organization_id.in_({arrival.organization_id for arrival in arrivals}),
            agent.hostname.in_([arrival.hostname for arrival in arrivals]),
            AGENT_IS_KNOWN,
        )
    )
    return {(organization_id, hostname): agent_id for organization_id, hostname, agent_id in rows}


def depart(db: Connection, departures: Sequence[Departure]) -> list[Exception | None]:
    """Mark agents offline, each only if that very connection is still the one of its row."""
    by_connection = {departure.connection_id: departure for departure in departures}
    agent = agent_table.c
    standing = select(agent.id, agent.organization_id, agent.hostname, agent.connection_id).where(
        agent.id.in_([departure.agent_id for departure in departures])
    )
    record_events(
        db,
        [
            NewEvent(
                EventKind.AGENT_DISCONNECTED, organization_id, f"Agent {agent_id} ({hostname}) disconnected.", agent_id
            )
            for agent_id, organization_id, hostname, connection_id in db.execute(standing)
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
    return NewEvent(kind, arrival.organization_id, f"{message}.", agent_id, details=details)


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


def get_agent(db: Session, reach: Reach, agent_id: int) -> Agent:
    """Return the agent. Raises AgentNotFoundError."""
    agent = db.exec(select_rows(Agent).where(Agent.id == agent_id, *_known(reach))).first()
    if agent is None:
        raise agent_not_found(agent_id)
    return agent


def agent_not_found(agent_id: int) -> AgentNotFoundError:
    """Return the error for an agent that does not exist for whoever asks."""
    return AgentNotFoundError(f"There is no agent with the id {agent_id}; GET /agents lists them.")


def find_forgotten(db: Connection, agent_ids: Collection[int]) -> set[int]:
    """Return which of these agents were taken from the fleet; within a change, which must give them nothing to do."""
    if not agent_ids:
        return set()
    agent = agent_table.c
    gone = select(agent.id).where(agent.id.in_(agent_ids), agent.forgotten_at.is_not(None))
    return set(db.execute(gone).scalars())


def list_agents(
    db: Session, reach: Reach, *, status: str | None, labels: Labels, after_id: int, limit: int
) -> tuple[Sequence[Agent], int]:
    """Return up to `limit` agents with ids above `after_id`, lowest first, and the count of all that match.

    `labels`: keys and values that they must all have.
    """
    wanted = [*_known(reach), *limits(agent_table, Reach(reach.organization_id, labels=labels))]
    if status is not None:
        wanted.append(agent_table.c.status == status)
    query = select_rows(Agent).where(col(Agent.id) > after_id, *wanted).order_by(col(Agent.id)).limit(limit)
    count = select_rows(func.count()).select_from(Agent).where(*wanted)
    return db.exec(query).all(), db.exec(count).one()


def _known(reach: Reach) -> list[ColumnElement[bool]]:
    return [*within(agent_table, reach), agent_table.c.forgotten_at.is_(None)]
