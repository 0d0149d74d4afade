"""Deployments: accepting one with all that belongs to it, and reading them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, select
from sqlmodel import Session
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.errors import DeploymentNotFoundError, NameCollisionError, QueueFullError
from control_plane.core.events import EventKind
from control_plane.core.protocol import CommandType
from control_plane.core.states import DeploymentStatus, JobStatus
from control_plane.store.agents import agent_not_found, find_forgotten
from control_plane.store.bulk import Bulk
from control_plane.store.database import each_pair, next_ids
from control_plane.store.disk import new_work
from control_plane.store.events import NewEvent, record_events
from control_plane.store.history import Wanted, newest
from control_plane.store.idempotency import KeyedRequest, KeyPlace, judge_requests, keep_answers, share_a_key
from control_plane.store.models import (
    DEPLOYMENT_HAS_ENDED,
    DEPLOYMENT_IS_ACTIVE,
    JOB_IS_ACTIVE,
    JOB_IS_UNSENT,
    PLACEMENT_HOLDS_NAME,
    ComposeFile,
    Deployment,
)
from control_plane.store.reaching import within
from control_plane.store.tables import (
    compose_file_table,
    deployment_table,
    job_table,
    placement_table,
    upsert,
    without,
)


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class NewDeployment:
    """All that one accepted POST /deploy stores: Compose file, deployment, placement and job, in one commit."""

    job_id: str
    organization_id: int
    project_name: str
    folded_name: str
    agent_id: int
    compose_sha256: str
    compose_source: bytes
    timeout_seconds: int
    deadline_at: datetime
    at: datetime
    max_queued: int
    sent_to: str | None = None
    """The agent's process (may be unknown, "") that gets the command right after the commit; None: it waits."""
    request: KeyedRequest | None = None
    """Set when its caller gave a key; `warnings` are what a repetition of it is answered beside the ids."""
    warnings: tuple[str, ...] = ()


_place = placement_table.c
_COUNT_UNSENT = (
    select(job_table.c.agent_id, func.count())
    .where(job_table.c.agent_id.in_(bindparam("agents", expanding=True)), JOB_IS_ACTIVE, JOB_IS_UNSENT)
    .group_by(job_table.c.agent_id)
)
_wanted = each_pair("names")
_HOLDERS = (
    select(_place.agent_id, _place.folded_name, _place.project_name)
    # The pairs lead and the index follows, both its columns used: a list of pairs would walk every name of each agent.
    .select_from(
        _wanted.pairs.join(
            placement_table, and_(_place.agent_id == _wanted.first, _place.folded_name == _wanted.second)
        )
    )
    .where(PLACEMENT_HOLDS_NAME)
)
_STORE_FILE = Bulk(upsert(compose_file_table, conflict=["sha256"], change=[]))
_STORE_DEPLOYMENT = Bulk(insert(deployment_table))
_STORE_JOB = Bulk(insert(job_table))
_PLACE = Bulk(
    upsert(
        placement_table,
        conflict=["organization_id", "project_name", "agent_id"],
        change=["released", "latest_deployment_id", "updated_at"],
    )
)


@new_work
def accept_deployments(db: Connection, items: Sequence[NewDeployment]) -> list[int | Exception]:
    """Store deployments and their jobs; returns each one's id.

    An item whose agent's queue is full gets QueueFullError, one whose name Compose would fold into that of
    another project on that agent NameCollisionError, one whose agent was forgotten AgentNotFoundError, one whose key
    was used AnsweredBeforeError or IdempotencyKeyReusedError; nothing of it is stored.
    """
    requests = [item.request for item in items if item.request is not None]
    if share_a_key(requests):
        return [accept_deployments(db, [item])[0] for item in items]
    refusals = _refusals(db, items, judge_requests(db, requests, items[0].at))
    accepted = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
    if not accepted:
        return [refusal for refusal in refusals if refusal is not None]
    ids = next_ids(db, "deployment", len(accepted))
    _store(db, accepted, ids)
    remaining = iter(ids)
    return [next(remaining) if refusal is None else refusal for refusal in refusals]


def _store(db: Connection, items: Sequence[NewDeployment], ids: range) -> None:
    files = {item.compose_sha256: item for item in items}
    _STORE_FILE.run(
        db,
        [{"sha256": key, "content": item.compose_source, "created_at": item.at} for key, item in files.items()],
    )
    numbered = list(zip(items, ids, strict=True))
    _STORE_DEPLOYMENT.run(
        db,
        [
            {
                "id": deployment_id,
                "organization_id": item.organization_id,
                "project_name": item.project_name,
                "agent_id": item.agent_id,
                "status": DeploymentStatus.PENDING.value,
                "compose_file_hash": item.compose_sha256,
                "created_at": item.at,
                "updated_at": item.at,
                "last_logs": "",
            }
            for item, deployment_id in numbered
        ],
    )
    _PLACE.run(
        db,
        [
            {
                "organization_id": item.organization_id,
                "project_name": item.project_name,
                "agent_id": item.agent_id,
                "folded_name": item.folded_name,
                "released": False,
                "latest_deployment_id": deployment_id,
                "updated_at": item.at,
            }
            for item, deployment_id in numbered
        ],
    )
    _STORE_JOB.run(
        db,
        [
            {
                "id": item.job_id,
                "organization_id": item.organization_id,
                "deployment_id": deployment_id,
                "agent_id": item.agent_id,
                "project_name": item.project_name,
                "command_type": CommandType.DEPLOY_COMPOSE.value,
                "status": JobStatus.QUEUED.value,
                "logs": "",
                "attempt": 0 if item.sent_to is None else 1,
                "timeout_seconds": item.timeout_seconds,
                "created_at": item.at,
                "updated_at": item.at,
                "deadline_at": item.deadline_at,
                "sent_at": None if item.sent_to is None else item.at,
                "sent_instance": item.sent_to or "",
            }
            for item, deployment_id in numbered
        ],
    )
    keep_answers(
        db,
        [
            (item.request, item.job_id, _answer(item, deployment_id), item.at)
            for item, deployment_id in numbered
            if item.request is not None
        ],
    )
    record_events(db, [_accepted(item, deployment_id) for item, deployment_id in numbered])


def _accepted(item: NewDeployment, deployment_id: int) -> NewEvent:
    message = f"Deployment {deployment_id} of '{item.project_name}' was accepted for agent {item.agent_id}."
    about = (item.agent_id, item.project_name, deployment_id, item.job_id)
    return NewEvent(EventKind.DEPLOY_ACCEPTED, item.organization_id, message, *about)


def _answer(item: NewDeployment, deployment_id: int) -> dict[str, object]:
    return {"deployment_id": deployment_id, "agent_id": item.agent_id, "warnings": list(item.warnings)}


def _refusals(
    db: Connection, items: Sequence[NewDeployment], used: Mapping[KeyPlace, Exception]
) -> list[Exception | None]:
    """Say of each item why it cannot be accepted, counting those of the same batch before it."""
    waiting = {item.agent_id for item in items if item.sent_to is None}  # others are connected, and so are known
    queued, forgotten = count_unsent(db, waiting), find_forgotten(db, waiting)
    holders = _holders(db, {(item.agent_id, item.folded_name) for item in items})
    refusals: list[Exception | None] = []
    for item in items:
        holder = holders.get((item.agent_id, item.folded_name), item.project_name)
        if item.request is not None and item.request.place in used:
            refusals.append(used[item.request.place])
        elif holder != item.project_name:
            refusals.append(name_collision(item.project_name, holder, item.agent_id))
        elif item.agent_id in forgotten:
            refusals.append(agent_not_found(item.agent_id))
        elif item.sent_to is None and queued.get(item.agent_id, 0) >= item.max_queued:
            refusals.append(queue_full(item.agent_id, item.max_queued))
        else:
            if item.sent_to is None:
                queued[item.agent_id] = queued.get(item.agent_id, 0) + 1
            holders[item.agent_id, item.folded_name] = item.project_name
            refusals.append(None)
    return refusals


def name_collision(project_name: str, holder: str, agent_id: int) -> NameCollisionError:
    """Return the error for a project whose name another one of that agent already has for Compose."""
    return NameCollisionError(
        f"Docker Compose would treat '{project_name}' and '{holder}', which agent {agent_id} already has, as the "
        f"same project: deploy under the name '{holder}', stop that one first, or choose another name or agent.",
        holder,
    )


def queue_full(agent_id: int, most: int) -> QueueFullError:
    """Return the error for an agent that already has as many unsent jobs as it may."""
    return QueueFullError(f"Agent {agent_id} already has {most} jobs waiting to be sent; try again when some are done.")


def count_unsent(db: Connection, agent_ids: set[int]) -> dict[int, int]:
    """Return how many jobs of each agent wait to be sent; agents with none are left out."""
    if not agent_ids:
        return {}
    return {agent_id: count for agent_id, count in db.execute(_COUNT_UNSENT, {"agents": list(agent_ids)})}  # noqa: C416


def _holders(db: Connection, names: set[tuple[int, str]]) -> dict[tuple[int, str], str]:
    rows = db.execute(_HOLDERS, {"names": json.dumps(list(names))})
    return {(agent_id, folded): name for agent_id, folded, name in rows}


def get_deployment(db: Session, reach: Reach, deployment_id: int) -> Deployment:
    """Return the deployment. Raises DeploymentNotFoundError."""
    query = select_rows(Deployment).where(Deployment.id == deployment_id, *within(deployment_table, reach))
    deployment = db.exec(query).first()
    if deployment is None:
        raise DeploymentNotFoundError(
            f"There is no deployment with the id {deployment_id}; GET /deployments lists them."
        )
    return deployment


def get_compose_source(db: Session, reach: Reach, deployment_id: int) -> bytes:
    """Return the deployment's Compose file as it was sent. Raises DeploymentNotFoundError."""
    deployment = get_deployment(db, reach, deployment_id)
    return db.exec(select_rows(ComposeFile.content).where(ComposeFile.sha256 == deployment.compose_file_hash)).one()


def list_deployments(
    db: Session,
    reach: Reach,
    *,
    project_name: str | None,
    agent_id: int | None,
    status: DeploymentStatus | None,
    before_id: int | None,
    limit: int,
) -> Sequence[Deployment]:
    """Return up to `limit` deployments older than `before_id`, newest first."""
    wanted = Wanted(reach, project_name, agent_id, status.value if status else None, before_id, limit)
    active = status in {DeploymentStatus.PENDING, DeploymentStatus.RUNNING}
    ended = status in {DeploymentStatus.FAILED, DeploymentStatus.STOPPED}
    query = newest(
        Deployment,
        wanted,
        few=DEPLOYMENT_IS_ACTIVE if active else None,
        many=DEPLOYMENT_HAS_ENDED if ended else None,
    )
    return db.exec(query.options(*without(Deployment, "last_logs"))).all()
