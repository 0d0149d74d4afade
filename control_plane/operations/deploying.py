"""Deploying a project: check, place, store, hand to the dispatcher. The answer follows the commit."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from uuid_utils import uuid7

from control_plane.core.access import Actor
from control_plane.core.compose import ComposeFile, check_project_name, folded_name
from control_plane.core.errors import NameCollisionError
from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.operations.placing import choose_agent, told_to
from control_plane.operations.repeating import check_unused, repeats
from control_plane.store.deployments import NewDeployment, accept_deployments
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest
from control_plane.store.jobs import AgentJob

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored deploy. `warnings` say what may not work as the Compose file hopes."""

    job_id: str
    deployment_id: int
    agent_id: int
    warnings: tuple[str, ...]
    repeated: bool = False
    """Whether it was stored before, when the same request came with the same key."""


async def deploy(
    plane: ControlPlane,
    actor: Actor,
    project_name: str,
    source: bytes,
    *,
    agent_id: int | None = None,
    queue_when_offline: bool = False,
    timeout_seconds: int | None = None,
    request: KeyedRequest | None = None,
) -> Accepted:
    """Accept a Compose file for a project and see it on its way; returns once it is stored.

    Raises ForbiddenError, InvalidInputError, InvalidComposeFileError, TooLargeError, AgentNotFoundError,
    AgentNotConnectedError, NoAgentsError, NameCollisionError, QueueFullError, and what the store raises; then nothing
    was stored.
    `request`: how its caller's key names it; what was stored for it before is returned, whatever holds by now, and
    IdempotencyKeyReusedError raised if that was another request.
    """
    actor.concerns(f"project {project_name}")
    try:
        actor.require_project(project_name)
        if request is not None:
            await check_unused(plane, request)
        check_project_name(project_name)
        file = await plane.checker.check(source, project_name)
        chosen = await choose_agent(plane, actor, project_name, agent_id, may_queue=queue_when_offline)
        job = _new_job(plane, project_name, timeout_seconds)
        deployment_id = await _store(plane, actor, job, file, chosen, request)
    except NameCollisionError as collision:
        raise told_to(actor, collision, project_name) from None
    except AnsweredBeforeError as before:
        told = before.answer
        repeats(actor, before)
        return Accepted(before.job_id, told["deployment_id"], told["agent_id"], tuple(told["warnings"]), repeated=True)
    return Accepted(job.id, deployment_id, chosen, file.warnings)


async def _store(
    plane: ControlPlane, actor: Actor, job: AgentJob, file: ComposeFile, agent_id: int, request: KeyedRequest | None
) -> int:
    """Store a deploy with its job and see that on its way; returns the deployment's id."""
    reservation = plane.dispatcher.reserve(agent_id, job)
    plane.being_placed[agent_id] += 1
    try:
        sent_to = reservation.instance if reservation else None
        new = _new_deployment(plane, actor, job, file, agent_id, sent_to, request)
        audit = actor.concerns(f"project {job.project_name} on agent {agent_id}", job.id)
        deployment_id = await plane.store.write(accept_deployments, new, audit)
    except asyncio.CancelledError:
        # The request is given up, but the writer has the deploy: what gets stored must not wait for a lost send.
        if reservation is not None:
            plane.dispatcher.withdraw(reservation)
        raise
    except BaseException:
        if reservation is not None:
            plane.dispatcher.release(reservation)
        raise
    finally:
        plane.being_placed[agent_id] -= 1
    plane.metrics.job_accepted(CommandType.DEPLOY_COMPOSE)
    log.debug(
        "deploy_accepted", job_id=job.id, agent_id=agent_id, project=job.project_name, deployment_id=deployment_id
    )
    if reservation is not None:
        await plane.dispatcher.send_reserved(reservation, file.source)
    else:
        plane.dispatcher.offer(agent_id, job, file.source)
    return deployment_id


def _new_job(plane: ControlPlane, project_name: str, timeout_seconds: int | None) -> AgentJob:
    return AgentJob(
        id=str(uuid7()),
        kind=CommandType.DEPLOY_COMPOSE,
        project_name=project_name,
        status=JobStatus.QUEUED,
        attempt=0,
        timeout_seconds=timeout_seconds or plane.limits.execution_seconds(CommandType.DEPLOY_COMPOSE),
        deadline_at=datetime.now(UTC) + timedelta(seconds=plane.limits.queue_seconds),
        sent=False,
        sent_instance="",
    )


def _new_deployment(
    plane: ControlPlane,
    actor: Actor,
    job: AgentJob,
    file: ComposeFile,
    agent_id: int,
    sent_to: str | None,
    request: KeyedRequest | None,
) -> NewDeployment:
    now = datetime.now(UTC)
    project_name = job.project_name or ""
    return NewDeployment(
        job_id=job.id,
        organization_id=actor.organization_id,
        project_name=project_name,
        folded_name=folded_name(project_name),
        agent_id=agent_id,
        compose_sha256=file.sha256,
        compose_source=file.source,
        timeout_seconds=job.timeout_seconds,
        deadline_at=job.deadline_at if sent_to is None else now + timedelta(seconds=job.timeout_seconds),
        at=now,
        max_queued=plane.limits.max_queued,
        sent_to=sent_to,
        request=request,
        warnings=file.warnings,
    )
