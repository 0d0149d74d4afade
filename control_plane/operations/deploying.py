"""Deploying a project: check, place, store, hand to the dispatcher. The answer follows the commit."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from uuid_utils import uuid7

from control_plane.core.compose import ComposeFile, check_project_name, folded_name, read_compose
from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.operations.placing import choose_agent
from control_plane.store.deployments import NewDeployment, accept_deployments
from control_plane.store.jobs import AgentJob


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored deploy. `warnings` say what may not work as the Compose file hopes."""

    job_id: str
    deployment_id: int
    agent_id: int
    warnings: tuple[str, ...]


async def deploy(
    plane: ControlPlane,
    project_name: str,
    source: bytes,
    *,
    agent_id: int | None = None,
    queue_when_offline: bool = False,
    timeout_seconds: int | None = None,
) -> Accepted:
    """Accept a Compose file for a project and see it on its way; returns once it is stored.

    Raises InvalidInputError, InvalidComposeFileError, TooLargeError, AgentNotFoundError, AgentNotConnectedError,
    NoAgentsError, NameCollisionError, QueueFullError, and what the store raises; then nothing was stored.
    """
    check_project_name(project_name)
    file = await _check(plane, source, project_name)
    chosen = await choose_agent(plane, project_name, agent_id, may_queue=queue_when_offline)
    new = _new_deployment(plane, project_name, file, chosen, timeout_seconds)
    deployment_id = await plane.store.write(accept_deployments, new)
    plane.dispatcher.offer(chosen, _job(new), file.source)
    return Accepted(new.job_id, deployment_id, chosen, file.warnings)


async def _check(plane: ControlPlane, source: bytes, project_name: str) -> ComposeFile:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(plane.checkers, read_compose, source, project_name)


def _new_deployment(
    plane: ControlPlane, project_name: str, file: ComposeFile, agent_id: int, timeout_seconds: int | None
) -> NewDeployment:
    now = datetime.now(UTC)
    return NewDeployment(
        job_id=str(uuid7()),
        project_name=project_name,
        folded_name=folded_name(project_name),
        agent_id=agent_id,
        compose_sha256=file.sha256,
        compose_source=file.source,
        timeout_seconds=timeout_seconds or plane.limits.execution_seconds(CommandType.DEPLOY_COMPOSE),
        deadline_at=now + timedelta(seconds=plane.limits.queue_seconds),
        at=now,
        max_queued=plane.limits.max_queued,
    )


def _job(new: NewDeployment) -> AgentJob:
    return AgentJob(
        id=new.job_id,
        kind=CommandType.DEPLOY_COMPOSE,
        project_name=new.project_name,
        status=JobStatus.QUEUED,
        attempt=0,
        timeout_seconds=new.timeout_seconds,
        deadline_at=new.deadline_at,
        sent=False,
        sent_instance="",
    )
