"""Events: what happened, for operators. Written in the transaction of what they tell, never changed, newest first.

`agents`, `deployments`, `jobs` and `outcomes` write theirs here; those that stand for themselves come through
the writer. A deploy or a stop writes two, its acceptance and its end; questions to agents none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, insert, select, union_all
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import DEFAULT_REACH, Reach
from control_plane.core.events import EventKind
from control_plane.core.protocol import CommandType
from control_plane.core.states import FailureReason, JobStatus
from control_plane.store.bulk import Bulk
from control_plane.store.history import agent_if_there, first_id_since, name_if_placed, unindexed
from control_plane.store.models import EVENT_ACCEPTS_DEPLOY, EVENT_HAS_AGENT, EVENT_HAS_PROJECT, Event
from control_plane.store.moves import Answer, JobFacts
from control_plane.store.reaching import limits
from control_plane.store.tables import deployment_table, event_table

MAX_ERROR_CHARACTERS = 300
"""Of an error in a message; all of it is in the job."""

_event = event_table.c
_INSERT = Bulk(insert(event_table))
_ENDS = {
    (CommandType.DEPLOY_COMPOSE, JobStatus.COMPLETED): EventKind.DEPLOY_COMPLETED,
    (CommandType.DEPLOY_COMPOSE, JobStatus.FAILED): EventKind.DEPLOY_FAILED,
    (CommandType.STOP_COMPOSE, JobStatus.COMPLETED): EventKind.STOP_COMPLETED,
    (CommandType.STOP_COMPOSE, JobStatus.FAILED): EventKind.STOP_FAILED,
}


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class NewEvent:
    """What happened, as one sentence, and what it is about. `details` is small, plain JSON without secrets."""

    kind: EventKind
    organization_id: int
    message: str
    agent_id: int | None = None
    project_name: str | None = None
    deployment_id: int | None = None
    job_id: str | None = None
    details: dict[str, Any] | None = None


def record_events(db: Connection, events: Sequence[NewEvent]) -> list[Exception | None]:
    """Write events, in their order, as of now."""
    if events:
        at = datetime.now(UTC)
        _INSERT.run(
            db,
            [
                {
                    "at": at,
                    "organization_id": event.organization_id,
                    "kind": event.kind.value,
                    "agent_id": event.agent_id,
                    "project_name": event.project_name,
                    "deployment_id": event.deployment_id,
                    "job_id": event.job_id,
                    "message": event.message,
                    "details": event.details,
                }
                for event in events
            ],
        )
    return [None] * len(events)


def end_of_change(answer: Answer, row: JobFacts) -> NewEvent:
    """Return the event of a deploy or a stop that `answer` has just ended."""
    command = CommandType(row.command_type)
    deploys = command is CommandType.DEPLOY_COMPOSE
    what = f"Deployment {row.deployment_id} of '{row.project_name}'" if deploys else f"The stop of '{row.project_name}'"
    kind, details = _ENDS[command, answer.status], None
    if answer.reason is FailureReason.CANCELED:
        kind = EventKind.DEPLOY_CANCELED if deploys else EventKind.STOP_CANCELED
        message = f"{what} was canceled before it was sent to agent {row.agent_id}."
    elif answer.status is JobStatus.COMPLETED:
        message = f"{what} is done on agent {row.agent_id}."
    else:
        reason = answer.reason.value if answer.reason else "unknown"
        message = f"{what} on agent {row.agent_id} failed ({reason}): {_one_line(answer.error or 'no error was given')}"
        details = {"reason": reason}
    return NewEvent(
        kind, row.organization_id, message, row.agent_id, row.project_name, row.deployment_id, row.id, details
    )


def _one_line(error: str) -> str:
    words = " ".join(error[: 4 * MAX_ERROR_CHARACTERS].split())
    return words if len(words) <= MAX_ERROR_CHARACTERS else f"{words[: MAX_ERROR_CHARACTERS - 1]}…"


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """What a page is to hold: at most `limit` events within reach, older than `before_id`, from `since` to `until`."""

    reach: Reach
    limit: int
    kind: EventKind | None = None
    agent_id: int | None = None
    project_name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_id: int | None = None


def list_events(db: Session, wanted: WantedEvents) -> Sequence[Event]:
    """Return a page of events, newest first."""
    query = select_rows(Event).order_by(col(Event.id).desc()).limit(wanted.limit)
    bounds = _bounds(db, wanted)
    # Each kind has its own stretch of an index, so that a rare one is not sought among all of an agent's events.
    kinds = [wanted.kind] if wanted.kind else list(EventKind)
    placed = wanted.agent_id is not None or wanted.project_name is not None
    newest = [
        _accepted(wanted, bounds) if placed and kind is EventKind.DEPLOY_ACCEPTED else _newest(kind, wanted, bounds)
        for kind in kinds
    ]
    query = query.where(unindexed(col(Event.organization_id)) == wanted.reach.organization_id)
    return db.exec(query.where(col(Event.id).in_(union_all(*(select(one.subquery().c.id) for one in newest))))).all()


def find_last_event(db: Session, kind: EventKind) -> Event | None:
    """Return the newest event of a kind that tells of the control plane itself."""
    return next(iter(list_events(db, WantedEvents(DEFAULT_REACH, limit=1, kind=kind))), None)


def _bounds(db: Session, wanted: WantedEvents) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        bounds.append(_event.id >= first_id_since(db, event_table, wanted.since))
    if wanted.until is not None:
        bounds.append(_event.id < first_id_since(db, event_table, wanted.until))
    if wanted.before_id is not None:
        bounds.append(_event.id < wanted.before_id)
    return bounds


def _at_place(wanted: WantedEvents, table: FromClause) -> list[ColumnElement[bool]]:
    """Return the conditions on reach, agent and project; with both it is the project's index that is followed."""
    agent: ColumnElement[Any] = table.c.agent_id
    organization: ColumnElement[Any] = table.c.organization_id
    if wanted.agent_id is not None and wanted.project_name is None:
        organization = unindexed(organization)
    place = [organization == wanted.reach.organization_id, *limits(table, wanted.reach)]
    if wanted.project_name is not None:
        place.append(table.c.project_name == name_if_placed(wanted.project_name, wanted.agent_id, wanted.reach))
        agent = unindexed(agent)
    if wanted.agent_id is not None:
        place.append(agent == agent_if_there(wanted.agent_id, wanted.reach))
    return place


def _newest(kind: EventKind, wanted: WantedEvents, bounds: Sequence[ColumnElement[bool]]) -> Select[Any]:
    index = [] if wanted.agent_id is None else [EVENT_HAS_AGENT]
    if wanted.project_name is not None:
        index = [EVENT_HAS_PROJECT]
    found = select(_event.id).where(_event.kind == kind.value, *index, *_at_place(wanted, event_table), *bounds)
    return found.order_by(_event.id.desc()).limit(wanted.limit)


def _accepted(wanted: WantedEvents, bounds: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return the ids of accepted deploys, through their deployments: they were written together, in one order."""
    of_organization = _event.organization_id == wanted.reach.organization_id
    accepted = select(_event.deployment_id).where(of_organization, EVENT_ACCEPTS_DEPLOY, *bounds).limit(1)
    first = accepted.order_by(_event.id).scalar_subquery()
    last = accepted.order_by(_event.id.desc()).scalar_subquery()
    deployment = deployment_table.c
    return (
        select(_event.id)
        .select_from(deployment_table.join(event_table, _event.deployment_id == deployment.id))
        .where(EVENT_ACCEPTS_DEPLOY, *_at_place(wanted, deployment_table), deployment.id.between(first, last))
        .order_by(deployment.id.desc())
        .limit(wanted.limit)
    )
