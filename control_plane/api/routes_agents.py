"""Agents: who they are, whether they are connected, how they are."""

from typing import Annotated

from fastapi import Query
from starlette.convertors import StringConvertor, register_url_convertor

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.outcomes import query_answer
from control_plane.api.parameters import (
    AgentInPath,
    Cursor,
    LabelFilter,
    Limit,
    Plane,
    Wait,
    labels_from,
    number_from,
    one_page,
)
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas import QueryAnswer
from control_plane.api.schemas_agents import AgentOut, AgentPage
from control_plane.core.access import Role
from control_plane.core.errors import (
    AgentNotConnectedError,
    AgentNotFoundError,
    ForbiddenError,
    OverloadedError,
    StorageFullError,
)
from control_plane.core.states import AgentStatus
from control_plane.operations.commanding import ask_health
from control_plane.operations.context import ControlPlane
from control_plane.store import agents
from control_plane.store.models import Agent

router = protected_router(tags=["Agents"])


class _AgentConvertor(StringConvertor):
    """Takes whatever may be meant as an id, so that it can be told why it is none; not the name of another route."""

    regex = "(?!enroll$)[^/]+"


register_url_convertor("agent", _AgentConvertor())


def agent_out(plane: ControlPlane, agent: Agent) -> AgentOut:
    """Return an agent as callers see it; of a connected one it is known exactly when it was last heard."""
    out = AgentOut.model_validate(agent)
    session = plane.manager.find_session(agent.id)
    if session is not None:
        out.last_seen = max(out.last_seen, session.last_seen)
    return out


@router.get("/agents", operation_id="list_agents", summary="List the agents")
async def list_agents(
    plane: Plane,
    caller: Caller,
    limit: Limit = 1000,
    cursor: Cursor = None,
    status: Annotated[AgentStatus | None, Query(description="Only those in this state.")] = None,
    label: LabelFilter = (),
) -> AgentPage:
    """List every agent that has ever connected, lowest id first."""
    rows, total = await plane.store.read(
        agents.list_agents,
        caller.reach,
        labels=labels_from(label),
        status=status.value if status else None,
        after_id=number_from(cursor) or 0,
        limit=limit + 1,
    )
    page, next_cursor = one_page(rows, limit)
    return AgentPage(
        agents=[agent_out(plane, agent) for agent in page],
        total=total,
        next_cursor=next_cursor,
    )


@router.get(
    "/agents/{agent_id:agent}",
    operation_id="get_agent",
    summary="Show one agent",
    responses=problem_responses(AgentNotFoundError),
)
async def get_agent(plane: Plane, caller: Caller, agent_id: AgentInPath) -> AgentOut:
    """Show an agent, connected or not."""
    return agent_out(plane, await plane.store.read(agents.get_agent, caller.reach, agent_id))


@router.post(
    "/agents/{agent_id}/health-check",
    operation_id="check_agent_health",
    summary="Ask an agent how it is",
    responses=problem_responses(
        ForbiddenError, AgentNotFoundError, AgentNotConnectedError, OverloadedError, StorageFullError
    ),
    openapi_extra=needs(Role.OPERATOR),
)
async def check_agent_health(plane: Plane, caller: Caller, agent_id: AgentInPath, wait: Wait = 10) -> QueryAnswer:
    """Send HEALTH_CHECK and answer with what the agent says; callers at the same time share one question."""
    return await query_answer(plane, caller, await ask_health(plane, caller, agent_id), wait)
