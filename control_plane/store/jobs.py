"""Jobs: creating those that are not deploys, claiming them for a send, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, literal, select, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.errors import JobNotFoundError
from control_plane.core.events import EventKind
from control_plane.core.logs import cut_middle
from control_plane.core.protocol import CommandType
from control_plane.core.states import ACTIVE_JOB_STATUSES, JobStatus
from control_plane.store.agents import agent_not_found, find_forgotten
from control_plane.store.bulk import Bulk
from control_plane.store.deployments import count_unsent, queue_full
from control_plane.store.disk import new_work
from control_plane.store.events import NewEvent, record_events
from control_plane.store.history import Wanted, newest
from control_plane.store.idempotency import KeyedRequest, judge_requests, keep_answers, share_a_key
from control_plane.store.models import (
    JOB_HAS_FAILED,
    JOB_IS_ACTIVE,
    JOB_IS_UNSENT,
    Job,
    JobLog,
)
from control_plane.store.moves import NotMovedError
from control_plane.store.reaching import within
from control_plane.store.tables import compose_file_table, deployment_table, job_table, without

MAX_COUNTED = 100_000
"""Queued jobs beyond which a scrape counts no further: the answer is the same, "far too many"."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A command other than a deploy. `max_queued` counts the agent's unsent jobs; None does not."""

    job_id: str
    organization_id: int
    agent_id: int
    project_name: str | None
    deployment_id: int | None
    kind: CommandType
    timeout_seconds: int
    deadline_at: datetime
    at: datetime
    max_queued: int | None
    request: KeyedRequest | None = None
    """Set when its caller gave a key."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The decision to send a job now. `attempt` is the count of sends before this one."""

    job_id: str
    attempt: int
    instance: str
    sent_at: datetime
    deadline_at: datetime


@dataclass(frozen=True, slots=True)
class Unclaim:
    """A claimed job of which certainly nothing reached the agent."""

    job_id: str
    attempt: int
    at: datetime
    deadline_at: datetime


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class AgentJob:
    """An active job of an agent, as its dispatcher needs it."""

    id: str
    kind: CommandType
    project_name: str | None
    status: JobStatus
    attempt: int
    timeout_seconds: int
    deadline_at: datetime
    sent: bool
    sent_instance: str


_WITHOUT_TEXT = without(Job, "logs", "data")
_INSERT = Bulk(insert(job_table))
_CLAIM = Bulk(
    update(job_table)
    .where(
        job_table.c.id == bindparam("job"),
        job_table.c.attempt == bindparam("sends"),
        JOB_IS_ACTIVE,
    )
    .values(
        attempt=job_table.c.attempt + 1,
        sent_at=bindparam("sent"),
        sent_instance=bindparam("instance"),
        deadline_at=bindparam("deadline"),
        updated_at=bindparam("sent"),
    )
)
_UNCLAIM = Bulk(
    update(job_table)
    .where(
        job_table.c.id == bindparam("job"),
        job_table.c.attempt == bindparam("sends"),
        job_table.c.status == JobStatus.QUEUED.value,
    )
    .values(sent_at=None, sent_instance="", deadline_at=bindparam("deadline"), updated_at=bindparam("at"))
)
_COMPOSE_OF_JOB = (
    select(compose_file_table.c.content)
    .join(deployment_table, deployment_table.c.compose_file_hash == compose_file_table.c.sha256)
    .join(job_table, job_table.c.deployment_id == deployment_table.c.id)
    .where(job_table.c.id == bindparam("job"))
)


@new_work
def add_jobs(db: Connection, items: Sequence[NewJob]) -> list[str | Exception]:
    """Store jobs and return their ids.

    STATUS and HEALTH_CHECK: if one like it is already active, its id is returned and nothing is stored, so that
    callers share it. Others: QueueFullError when the agent has `max_queued` unsent ones; AgentNotFoundError when
    it was forgotten; AnsweredBeforeError or IdempotencyKeyReusedError when the caller's key was used.
    """
    requests = [item.request for item in items if item.request is not None]
    if share_a_key(requests):
        return [add_jobs(db, [item])[0] for item in items]
    used = judge_requests(db, requests, items[0].at)
    shared = _active_questions(db, {item.agent_id for item in items if not item.kind.changes_project})
    queued = count_unsent(db, {item.agent_id for item in items if item.max_queued is not None})
    forgotten = find_forgotten(db, {item.agent_id for item in items})
    outcomes: list[str | Exception] = []
    added: list[NewJob] = []
    for item in items:
        question = (item.agent_id, item.kind, item.project_name)
        if item.request is not None and item.request.place in used:
            outcomes.append(used[item.request.place])
        elif item.agent_id in forgotten:
            outcomes.append(agent_not_found(item.agent_id))
        elif item.max_queued is not None and queued.get(item.agent_id, 0) >= item.max_queued:
            outcomes.append(queue_full(item.agent_id, item.max_queued))
        elif question in shared:
            outcomes.append(shared[question])
        else:
            if not item.kind.changes_project:
                shared[question] = item.job_id
            queued[item.agent_id] = queued.get(item.agent_id, 0) + 1
            added.append(item)
            outcomes.append(item.job_id)
    if added:
        _INSERT.run(db, [_new_row(item) for item in added])
        keep_answers(db, [(item.request, item.job_id, None, item.at) for item in added if item.request is not None])
        record_events(db, [_accepted(item) for item in added if item.kind.changes_project])
    return outcomes


def _accepted(item: NewJob) -> NewEvent:
    message = f"A stop of '{item.project_name}' was accepted for agent {item.agent_id}."
    about = (item.agent_id, item.project_name, item.deployment_id, item.job_id)
    return NewEvent(EventKind.STOP_ACCEPTED, item.organization_id, message, *about)


def _new_row(item: NewJob) -> dict[str, object]:
    return {
        "id": item.job_id,
        "organization_id": item.organization_id,
        "deployment_id": item.deployment_id,
        "agent_id": item.agent_id,
        "project_name": item.project_name,
        "command_type": item.kind.value,
        "status": JobStatus.QUEUED.value,
        "logs": "",
        "attempt": 0,
        "timeout_seconds": item.timeout_seconds,
        "created_at": item.at,
        "updated_at": item.at,
        "deadline_at": item.deadline_at,
        "sent_instance": "",
    }


def _active_questions(db: Connection, agent_ids: set[int]) -> dict[tuple[int, CommandType, str | None], str]:
    if not agent_ids:
        return {}
    job = job_table.c
    questions = [CommandType.STATUS.value, CommandType.HEALTH_CHECK.value]
    active = select(job.agent_id, job.command_type, job.project_name, job.id).where(
        job.agent_id.in_(agent_ids), job.command_type.in_(questions), JOB_IS_ACTIVE
    )
    return {(agent_id, CommandType(kind), project): job_id for agent_id, kind, project, job_id in db.execute(active)}


def claim_jobs(db: Connection, claims: Sequence[Claim]) -> list[Exception | None]:
    """Count a send of each job before its command is written. NotMovedError: it is over, or was claimed already."""
    rows = [
        {
            "job": claim.job_id,
            "sends": claim.attempt,
            "instance": claim.instance,
            "sent": claim.sent_at,
            "deadline": claim.deadline_at,
        }
        for claim in claims
    ]
    if _CLAIM.run(db, rows) != len(rows):
        raise NotMovedError
    return [None] * len(rows)


def unclaim_jobs(db: Connection, unclaims: Sequence[Unclaim]) -> list[Exception | None]:
    """Put jobs back into the queue that certainly did not reach their agent; others are left as they are."""
    rows = [
        {"job": item.job_id, "sends": item.attempt, "at": item.at, "deadline": item.deadline_at} for item in unclaims
    ]
    _UNCLAIM.run(db, rows)
    return [None] * len(rows)


def list_agent_jobs(db: Session, agent_id: int) -> list[AgentJob]:
    """Return the agent's active jobs, oldest first."""
    # Sorted by an expression, lest SQLite read the agent's whole history because that is in order already.
    active = select_rows(Job).where(Job.agent_id == agent_id, JOB_IS_ACTIVE)
    query = active.options(*_WITHOUT_TEXT).order_by(col(Job.id).concat(""))
    return [
        AgentJob(
            id=job.id,
            kind=CommandType(job.command_type),
            project_name=job.project_name,
            status=JobStatus(job.status),
            attempt=job.attempt,
            timeout_seconds=job.timeout_seconds,
            deadline_at=job.deadline_at,
            sent=job.sent_at is not None,
            sent_instance=job.sent_instance,
        )
        for job in db.exec(query)
    ]


def get_compose_of_job(db: Session, job_id: str) -> bytes:
    """Return the Compose file that a deploy's job carries."""
    source: bytes = db.execute(_COMPOSE_OF_JOB, {"job": job_id}).scalar_one()
    return source


def list_overdue_jobs(db: Session, now: datetime, limit: int) -> Sequence[Job]:
    """Return active jobs whose deadline has passed, longest overdue first."""
    query = (
        select_rows(Job).where(JOB_IS_ACTIVE, col(Job.deadline_at) <= now).order_by(col(Job.deadline_at)).limit(limit)
    )
    return db.exec(query).all()


def count_queued(db: Session) -> int:
    """Return how many jobs are stored and not sent, MAX_COUNTED at most."""
    unsent = select(literal(1)).where(JOB_IS_ACTIVE, JOB_IS_UNSENT).select_from(job_table).limit(MAX_COUNTED)
    return int(db.execute(select(func.count()).select_from(unsent.subquery())).scalar_one())


def get_job(db: Session, reach: Reach, job_id: str) -> Job:
    """Return the job with its log as it stands, pieces included. Raises JobNotFoundError."""
    job = db.exec(select_rows(Job).where(Job.id == job_id, *within(job_table, reach))).first()
    if job is None:
        raise JobNotFoundError(f"There is no job with the id '{job_id}'; GET /jobs lists them.")
    pieces = db.exec(select_rows(JobLog.text).where(JobLog.job_id == job_id).order_by(col(JobLog.position))).all()
    if pieces:
        db.expunge(job)
        job.logs = cut_middle("".join((job.logs, *pieces)))
    return job


def list_jobs(
    db: Session,
    reach: Reach,
    *,
    project_name: str | None,
    agent_id: int | None,
    status: JobStatus | None,
    before_id: str | None,
    limit: int,
) -> Sequence[Job]:
    """Return up to `limit` jobs older than `before_id`, newest first, without the pieces of running logs."""
    wanted = Wanted(reach, project_name, agent_id, status.value if status else None, before_id, limit)
    query = newest(
        Job,
        wanted,
        few=JOB_IS_ACTIVE if status in ACTIVE_JOB_STATUSES else None,
        many=JOB_HAS_FAILED if status is JobStatus.FAILED else None,
    )
    return db.exec(query.options(*_WITHOUT_TEXT)).all()
