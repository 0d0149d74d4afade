"""Commands that are not deploys: stop a project, ask for its status, ask an agent for its health."""

from datetime import UTC, datetime, timedelta

import structlog
from uuid_utils import uuid7

from control_plane.core.access import Actor
from control_plane.core.compose import check_project_name
from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.operations.placing import check_agent, locate_project, not_connected
from control_plane.operations.repeating import check_unused, repeats
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest
from control_plane.store.jobs import AgentJob, NewJob, add_jobs

log = structlog.get_logger()


async def stop(
    plane: ControlPlane,
    actor: Actor,
    project_name: str,
    *,
    agent_id: int | None = None,
    timeout_seconds: int | None = None,
    request: KeyedRequest | None = None,
) -> tuple[str, bool]:
    """Have a project stopped; returns the job's id once it is stored, and whether it was before (see `deploy`).

    Raises ForbiddenError, ProjectNotFoundError, AgentNotConnectedError, QueueFullError, InvalidInputError,
    IdempotencyKeyReusedError.
    """
    actor.concerns(f"project {project_name}")
    try:
        actor.require_project(project_name)
        if request is not None:
            await check_unused(plane, request)
        check_project_name(project_name)
        place = await locate_project(plane, actor, project_name, agent_id)
        deployment_id = place.current_deployment_id or place.latest_deployment_id
        job_id = await _command(
            plane,
            actor,
            CommandType.STOP_COMPOSE,
            place.agent_id,
            project_name,
            deployment_id,
            timeout_seconds=timeout_seconds,
            request=request,
        )
    except AnsweredBeforeError as before:
        repeats(actor, before)
        return before.job_id, True
    return job_id, False


async def ask_status(plane: ControlPlane, actor: Actor, project_name: str, *, agent_id: int | None = None) -> str:
    """Ask for what runs of a project; returns the id of the job, which callers at the same time share.

    Raises ProjectNotFoundError, AgentNotConnectedError, InvalidInputError.
    """
    check_project_name(project_name)
    place = await locate_project(plane, actor, project_name, agent_id)
    deployment_id = place.current_deployment_id or place.latest_deployment_id
    return await _command(plane, actor, CommandType.STATUS, place.agent_id, project_name, deployment_id)


async def ask_health(plane: ControlPlane, actor: Actor, agent_id: int) -> str:
    """Ask an agent for its health; returns the id of the job, which callers at the same time share.

    Raises AgentNotFoundError, AgentNotConnectedError.
    """
    if not plane.manager.is_connected(agent_id):
        raise await not_connected(plane, actor, agent_id)
    await check_agent(plane, actor, agent_id)
    return await _command(plane, actor, CommandType.HEALTH_CHECK, agent_id, None, None)


async def _command(
    plane: ControlPlane,
    actor: Actor,
    kind: CommandType,
    agent_id: int,
    project_name: str | None,
    deployment_id: int | None,
    *,
    timeout_seconds: int | None = None,
    request: KeyedRequest | None = None,
) -> str:
    now = datetime.now(UTC)
    seconds = timeout_seconds or plane.limits.execution_seconds(kind)
    waits = plane.limits.queue_seconds if kind.changes_project else seconds
    new = NewJob(
        job_id=str(uuid7()),
        organization_id=actor.organization_id,
        agent_id=agent_id,
        project_name=project_name,
        deployment_id=deployment_id,
        kind=kind,
        timeout_seconds=seconds,
        deadline_at=now + timedelta(seconds=waits),
        at=now,
        max_queued=plane.limits.max_queued if kind.changes_project else None,
        request=request,
    )
    about = f"agent {agent_id}" if project_name is None else f"project {project_name} on agent {agent_id}"
    job_id = await plane.store.write(add_jobs, new, actor.concerns(about, new.job_id))
    if job_id == new.job_id:
        plane.metrics.job_accepted(kind)
        log.debug("command_accepted", job_id=job_id, agent_id=agent_id, type=kind.value, project=project_name)
        job = AgentJob(job_id, kind, project_name, JobStatus.QUEUED, 0, seconds, new.deadline_at, False, "")
        plane.dispatcher.offer(agent_id, job)
    return job_id
