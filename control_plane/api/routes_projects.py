"""Projects: where each one runs, what runs of it, and stopping it."""

from itertools import groupby
from typing import Annotated

from fastapi import Query, Response

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.idempotency import KEY_PARAMETER, REPLAYED, REPLAYED_ANSWER, Keyed
from control_plane.api.outcomes import outcome_of, query_answer
from control_plane.api.parameters import Cursor, Limit, Plane, ProjectName, Wait, project_name_from
from control_plane.api.problem_types import problem_responses
from control_plane.api.routes_agents import agent_out
from control_plane.api.schemas import (
    AgentId,
    DeploymentOut,
    ProjectOut,
    ProjectPage,
    ProjectPlaceOut,
    QueryAnswer,
    StopAnswer,
    StopRequest,
)
from control_plane.core.access import Role
from control_plane.core.errors import (
    AgentNotConnectedError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    NameCollisionError,
    OverloadedError,
    ProjectNotFoundError,
    QueueFullError,
    StorageFullError,
)
from control_plane.core.states import JobStatus
from control_plane.operations.commanding import ask_status, stop
from control_plane.operations.context import ControlPlane
from control_plane.operations.jobs import wait_for_job
from control_plane.store import placements
from control_plane.store.placements import ProjectPlace

router = protected_router(tags=["Projects"])

WhichAgent = Annotated[AgentId | None, Query(description="Needed only for a project that is on several agents.")]


@router.get("/projects", operation_id="list_projects", summary="List the projects")
async def list_projects(plane: Plane, caller: Caller, limit: Limit = 100, cursor: Cursor = None) -> ProjectPage:
    """List projects by name, each with the agents it was deployed to. A page holds whole projects."""
    after = project_name_from(cursor)
    places, more = await plane.store.read(placements.list_projects, caller.reach, after=after, limit=limit)
    return ProjectPage(
        projects=[_project_out(plane, name, list(group)) for name, group in groupby(places, lambda p: p.project_name)],
        next_cursor=places[-1].project_name if more else None,
    )


def _project_out(plane: ControlPlane, name: str, places: list[ProjectPlace]) -> ProjectOut:
    return ProjectOut(
        project_name=name,
        agents=[
            ProjectPlaceOut(
                agent=agent_out(plane, place.agent),
                latest=DeploymentOut.model_validate(place.latest),
                current=DeploymentOut.model_validate(place.current) if place.current else None,
            )
            for place in places
        ],
    )


@router.get(
    "/projects/{name}",
    operation_id="get_project",
    summary="Show one project",
    responses=problem_responses(ProjectNotFoundError),
)
async def get_project(plane: Plane, caller: Caller, name: ProjectName) -> ProjectOut:
    """Show where a project runs, with its current and its latest deployment on each agent."""
    return _project_out(plane, name, await plane.store.read(placements.get_project, caller.reach, name))


@router.post(
    "/projects/{name}/stop",
    operation_id="stop_project",
    summary="Stop a project",
    responses=problem_responses(
        ForbiddenError,
        ProjectNotFoundError,
        NameCollisionError,
        AgentNotConnectedError,
        QueueFullError,
        OverloadedError,
        StorageFullError,
        IdempotencyKeyReusedError,
    )
    | REPLAYED_ANSWER,
    openapi_extra=needs(Role.DEPLOYER, **KEY_PARAMETER),
)
async def stop_project(
    plane: Plane,
    caller: Caller,
    name: ProjectName,
    keyed: Keyed,
    response: Response,
    request: StopRequest | None = None,
    wait: Wait = 0,
) -> StopAnswer:
    """Run `docker compose down` for a project. With `wait` the answer is held until that is done."""
    asked = request or StopRequest()
    job_id, replayed = await stop(
        plane, caller, name, agent_id=asked.agent_id, timeout_seconds=asked.timeout_seconds, request=keyed
    )
    if replayed:
        response.headers.update(REPLAYED)
    answer = StopAnswer(
        job_id=job_id,
        status=JobStatus.QUEUED,
        message=f"'{name}' is being stopped; follow it with GET /jobs/{job_id}?wait=60.",
    )
    if wait:
        outcome = outcome_of(await wait_for_job(plane, caller, job_id, wait, own=True))
        answer = answer.model_copy(update={**outcome, "message": _told(name, outcome["status"])})
    return answer


def _told(name: str, status: object) -> str:
    if status is JobStatus.COMPLETED:
        return f"'{name}' is stopped."
    if status is JobStatus.FAILED:
        return f"'{name}' could not be stopped; see error, reason and logs."
    return f"'{name}' is still being stopped."


@router.get(
    "/projects/{name}/status",
    operation_id="get_project_status",
    summary="Ask the agent what runs of a project",
    responses=problem_responses(
        ProjectNotFoundError, NameCollisionError, AgentNotConnectedError, OverloadedError, StorageFullError
    ),
)
async def get_project_status(
    plane: Plane, caller: Caller, name: ProjectName, wait: Wait = 10, agent_id: WhichAgent = None
) -> QueryAnswer:
    """Send STATUS and answer with what the agent says; callers at the same time share one question.

    If it takes longer than `wait`, `status` is `queued` or `in_progress` and `GET /jobs/{id}?wait=` goes on.
    """
    return await query_answer(plane, caller, await ask_status(plane, caller, name, agent_id=agent_id), wait)
