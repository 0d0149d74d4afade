"""Deploying, and looking back at what was deployed."""

from typing import Annotated

from fastapi import Query, Request, Response

from control_plane.api.auth import Caller, DirectRoute, check_again, needs, protected_router
from control_plane.api.idempotency import KEY_PARAMETER, REPLAYED, REPLAYED_ANSWER, keyed_request
from control_plane.api.json_body import body_document, read_body
from control_plane.api.outcomes import outcome_of
from control_plane.api.parameters import (
    AgentFilter,
    Cursor,
    DeploymentInPath,
    Limit,
    Plane,
    ProjectFilter,
    Wait,
    number_from,
    one_page,
)
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas import (
    EXAMPLE_COMPOSE,
    DeployAnswer,
    DeploymentDetail,
    DeploymentOut,
    DeploymentPage,
    DeployRequest,
)
from control_plane.core.access import Role
from control_plane.core.compose import decode_base64
from control_plane.core.errors import (
    AgentNotConnectedError,
    AgentNotFoundError,
    DeploymentNotFoundError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    InvalidComposeFileError,
    NameCollisionError,
    NoAgentsError,
    OverloadedError,
    QueueFullError,
    StorageFullError,
    StoreUnavailableError,
    TooLargeError,
)
from control_plane.core.states import DeploymentStatus, JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.operations.deploying import Accepted, deploy
from control_plane.operations.jobs import wait_for_job
from control_plane.store import deployments

router = protected_router(tags=["Deployments"])


class YamlResponse(Response):
    """Bytes that are YAML (RFC 9512)."""

    media_type = "application/yaml"


hot_router = protected_router(tags=["Deployments"], route_class=DirectRoute)


@hot_router.post(
    "/deploy",
    operation_id="deploy",
    summary="Deploy a Compose project",
    response_model=DeployAnswer,
    openapi_extra=body_document(DeployRequest) | needs(Role.DEPLOYER, **KEY_PARAMETER),
    responses=problem_responses(
        ForbiddenError,
        AgentNotFoundError,
        NameCollisionError,
        TooLargeError,
        InvalidComposeFileError,
        QueueFullError,
        AgentNotConnectedError,
        NoAgentsError,
        OverloadedError,
        StoreUnavailableError,
        StorageFullError,
        IdempotencyKeyReusedError,
    )
    | REPLAYED_ANSWER,
)
async def post_deploy(http_request: Request, wait: Wait = 0) -> Response:
    """Store the deploy and send it to an agent. The answer comes once it cannot be lost any more.

    With `wait` the answer is held until the job is over, and `status`, `logs`, `error` and `reason` tell how it
    went; if the time is up first, `GET /jobs/{id}?wait=` goes on waiting.
    """
    plane: ControlPlane = http_request.app.state.control_plane
    request = await read_body(http_request, DeployRequest)
    caller = check_again(http_request)
    accepted = await deploy(
        plane,
        caller,
        request.project_name,
        _source(request),
        agent_id=request.agent_id,
        queue_when_offline=request.when_offline == "queue",
        timeout_seconds=request.timeout_seconds,
        request=await keyed_request(http_request, caller),
    )
    answer = DeployAnswer(
        job_id=accepted.job_id,
        status=JobStatus.QUEUED,
        deployment_id=accepted.deployment_id,
        agent_id=accepted.agent_id,
        message=f"Deployment {accepted.deployment_id} of '{request.project_name}' {_way(plane, accepted)}; "
        f"follow it with GET /jobs/{accepted.job_id}?wait=60.",
        warnings=list(accepted.warnings),
    )
    if wait:
        outcome = outcome_of(await wait_for_job(plane, caller, accepted.job_id, wait, own=True))
        answer = answer.model_copy(update={**outcome, "message": _told(request.project_name, outcome["status"])})
    headers = REPLAYED if accepted.repeated else None
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


def _source(request: DeployRequest) -> bytes:
    if request.compose_file_base64 is not None:
        return decode_base64(request.compose_file_base64)
    return (request.compose_file or "").encode()


def _way(plane: ControlPlane, accepted: Accepted) -> str:
    if accepted.repeated:
        return "was accepted before, under the same Idempotency-Key"
    if plane.manager.is_connected(accepted.agent_id):
        return f"is on its way to agent {accepted.agent_id}"
    return f"is queued for agent {accepted.agent_id}, which gets it when it connects"


def _told(project_name: str, status: object) -> str:
    if status is JobStatus.COMPLETED:
        return f"'{project_name}' is deployed."
    if status is JobStatus.FAILED:
        return f"'{project_name}' could not be deployed; see error, reason and logs."
    return f"The deploy of '{project_name}' is still under way."


@router.get("/deployments", operation_id="list_deployments", summary="List deployments")
async def list_deployments(
    plane: Plane,
    caller: Caller,
    limit: Limit = 100,
    cursor: Cursor = None,
    project: ProjectFilter = None,
    agent_id: AgentFilter = None,
    status: Annotated[DeploymentStatus | None, Query(description="Only those in this state.")] = None,
) -> DeploymentPage:
    """List deployments, newest first."""
    rows = await plane.store.read(
        deployments.list_deployments,
        caller.reach,
        project_name=project,
        agent_id=agent_id,
        status=status,
        before_id=number_from(cursor),
        limit=limit + 1,
    )
    page, next_cursor = one_page(rows, limit)
    return DeploymentPage(
        deployments=[DeploymentOut.model_validate(row) for row in page],
        next_cursor=next_cursor,
    )


@router.get(
    "/deployments/{deployment_id}",
    operation_id="get_deployment",
    summary="Show one deployment",
    responses=problem_responses(DeploymentNotFoundError),
)
async def get_deployment(plane: Plane, caller: Caller, deployment_id: DeploymentInPath) -> DeploymentDetail:
    """Show a deployment with the end of its last command's log."""
    return DeploymentDetail.model_validate(
        await plane.store.read(deployments.get_deployment, caller.reach, deployment_id)
    )


@router.get(
    "/deployments/{deployment_id}/compose",
    operation_id="get_compose_file",
    summary="Return the Compose file as it was sent",
    response_class=YamlResponse,
    responses={
        200: {"content": {YamlResponse.media_type: {"schema": {"type": "object"}, "example": EXAMPLE_COMPOSE}}},
        **problem_responses(DeploymentNotFoundError),
    },
)
async def get_compose_file(plane: Plane, caller: Caller, deployment_id: DeploymentInPath) -> YamlResponse:
    """Return the very bytes that were deployed."""
    source = await plane.store.read(deployments.get_compose_source, caller.reach, deployment_id)
    return YamlResponse(source)
