"""Changing the fleet: enrolling hosts, giving agents tokens of their own, labels and cordons, forgetting agents."""

from fastapi import Response

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.parameters import AgentInPath, Plane
from control_plane.api.problem_types import problem_responses
from control_plane.api.routes_agents import agent_out
from control_plane.api.schemas_agents import AgentChanges, AgentOut, AgentToken, Enrollment, EnrollmentRequest
from control_plane.core.access import Role
from control_plane.core.errors import (
    AgentConnectedError,
    AgentNotFoundError,
    ForbiddenError,
    OverloadedError,
    StorageFullError,
)
from control_plane.operations import agents

router = protected_router(tags=["Agents"])
_ANY = (ForbiddenError, OverloadedError, StorageFullError)


@router.post(
    "/agents/enroll",
    operation_id="create_enrollment",
    summary="Make a token by which hosts become agents",
    status_code=201,
    openapi_extra=needs(Role.OPERATOR),
    responses=problem_responses(*_ANY),
)
async def post_enrollment(plane: Plane, caller: Caller, request: EnrollmentRequest | None = None) -> Enrollment:
    """Make a short-lived token; each agent that connects with it gets a token of its own. It is shown this once."""
    asked = request or EnrollmentRequest()
    made = await agents.create_enrollment(
        plane,
        caller,
        name=asked.name,
        labels=asked.labels,
        uses=asked.uses,
        expires_in_seconds=asked.expires_in_seconds,
    )
    row = made.row
    return Enrollment(
        id=row.id,
        name=row.name,
        token=made.token,
        labels=row.labels or {},
        uses=row.uses_left,
        expires_at=row.expires_at,
    )


@router.patch(
    "/agents/{agent_id:agent}",
    operation_id="change_agent",
    summary="Label or cordon an agent",
    openapi_extra=needs(Role.OPERATOR),
    responses=problem_responses(*_ANY, AgentNotFoundError),
)
async def patch_agent(plane: Plane, caller: Caller, agent_id: AgentInPath, request: AgentChanges) -> AgentOut:
    """Set labels, take some away with null, or keep new projects off with `cordoned`."""
    labels = request.labels or {}
    changed = await agents.change_agent(plane, caller, agent_id, labels=labels, cordoned=request.cordoned)
    return agent_out(plane, changed)


@router.delete(
    "/agents/{agent_id:agent}",
    operation_id="forget_agent",
    summary="Take an offline agent from the fleet",
    status_code=204,
    response_class=Response,
    openapi_extra=needs(Role.OPERATOR),
    responses=problem_responses(*_ANY, AgentNotFoundError, AgentConnectedError),
)
async def delete_agent(plane: Plane, caller: Caller, agent_id: AgentInPath) -> Response:
    """Forget an agent that is offline. Its history stays; its jobs under way fail, its projects are nowhere."""
    await agents.forget_agent(plane, caller, agent_id)
    return Response(status_code=204)


@router.post(
    "/agents/{agent_id}/token",
    operation_id="create_agent_token",
    summary="Give an agent a token of its own",
    status_code=201,
    openapi_extra=needs(Role.OPERATOR),
    responses=problem_responses(*_ANY, AgentNotFoundError),
)
async def post_agent_token(plane: Plane, caller: Caller, agent_id: AgentInPath) -> AgentToken:
    """Make the one token that opens this agent's hostname from now on; one that it had before ends, with its socket."""
    return AgentToken(token=await agents.make_agent_token(plane, caller, agent_id))


@router.delete(
    "/agents/{agent_id}/token",
    operation_id="revoke_agent_token",
    summary="Revoke an agent's own token",
    status_code=204,
    response_class=Response,
    openapi_extra=needs(Role.OPERATOR),
    responses=problem_responses(*_ANY, AgentNotFoundError),
)
async def delete_agent_token(plane: Plane, caller: Caller, agent_id: AgentInPath) -> Response:
    """End the agent's token and its socket. Its hostname stays bound: it needs a new token to come back."""
    await agents.revoke_agent_token(plane, caller, agent_id)
    return Response(status_code=204)
