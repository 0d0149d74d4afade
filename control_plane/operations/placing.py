"""Which agent a request is about: the one it names, the one a project is on, or the least loaded one."""

from collections.abc import Sequence

from control_plane.core.access import Actor
from control_plane.core.errors import (
    AgentNotConnectedError,
    FieldProblem,
    InvalidInputError,
    NameCollisionError,
    NoAgentsError,
    ProjectNotFoundError,
)
from control_plane.core.states import AgentStatus
from control_plane.operations.context import ControlPlane
from control_plane.store import agents, placements
from control_plane.store.models import Placement

CANDIDATES = 64
"""Agents looked at for a new project; more than are ever chosen between two reads of the store."""


async def choose_agent(
    plane: ControlPlane, actor: Actor, project_name: str, agent_id: int | None, *, may_queue: bool
) -> int:
    """Return the agent that a deploy goes to.

    A named agent it is; else the one that the project is on, for there are its volumes; else, for a new project,
    the connected one with the fewest deployments that is not cordoned. Raises AgentNotFoundError, NoAgentsError, and
    AgentNotConnectedError unless the deploy `may_queue`.
    """
    if agent_id is not None:
        return await _named(plane, actor, agent_id, may_queue=may_queue)
    places, candidates = await plane.store.read(placements.find_places_or_agents, actor.reach, project_name, CANDIDATES)
    if places:
        at_home = places[0].agent_id
        if plane.manager.is_connected(at_home):
            return at_home
        if not places[0].released:
            return await _named(plane, actor, at_home, may_queue=may_queue)
    chosen = min(
        (
            (count + plane.being_placed[candidate], candidate)
            for candidate, count in candidates
            if plane.manager.is_connected(candidate)
        ),
        default=None,
    )
    if chosen is None:
        raise NoAgentsError(await _why_nobody(plane, actor))
    return chosen[1]


async def _why_nobody(plane: ControlPlane, actor: Actor) -> str:
    """Say why no agent can take a new project, by those alone that are within reach."""
    for status in (AgentStatus.ONLINE, AgentStatus.UNRESPONSIVE):
        found = agents.list_agents
        _, connected = await plane.store.read(found, actor.reach, status=status, labels=(), after_id=0, limit=1)
        if connected:
            return (
                "No agent that is connected answers its health checks and takes new projects: see what GET "
                "/agents?status=unresponsive lists and which are cordoned, or name an agent with agent_id."
            )
    return "No agent is connected to take this project: start one, or check why none connects."


async def locate_project(plane: ControlPlane, actor: Actor, project_name: str, agent_id: int | None) -> Placement:
    """Return the place that a stop or a status is about. Raises ProjectNotFoundError, AgentNotConnectedError.

    InvalidInputError when the project runs on several agents and none is named; NameCollisionError when it is
    stopped and another project now has its name for Compose.
    """
    places = await plane.store.read(placements.find_places, actor.reach, project_name)
    if not places:
        raise placements.project_not_found(project_name)
    place = _only_place(places, agent_id)
    await _check_name(plane, actor, place)
    if not plane.manager.is_connected(place.agent_id):
        raise await not_connected(plane, actor, place.agent_id)
    return place


async def _check_name(plane: ControlPlane, actor: Actor, place: Placement) -> None:
    """Refuse to speak of a stopped project whose name, for Compose, another project has by now on that agent."""
    if not place.released:
        return
    find = placements.find_name_holder
    holder = await plane.store.read(find, actor.reach, place.agent_id, place.folded_name)
    if holder not in {None, place.project_name}:  # the project itself: deployed again since its place was read
        collision = NameCollisionError(
            f"'{place.project_name}' is stopped, and its containers' name on agent {place.agent_id} now belongs to "
            f"'{holder}': use that name, or deploy '{place.project_name}' again elsewhere.",
            holder or "",
        )
        raise told_to(actor, collision, place.project_name)


def told_to(actor: Actor, collision: NameCollisionError, project_name: str) -> NameCollisionError:
    """Return a collision as the actor may be told of it: without the name of a project that is not within reach."""
    if actor.reach.has_project(collision.holder):
        return collision
    return NameCollisionError(
        f"Docker Compose would treat '{project_name}' and another project of this agent, which this token does not "
        "reach, as the same: choose another name or agent."
    )


def _only_place(places: Sequence[Placement], agent_id: int | None) -> Placement:
    project_name = places[0].project_name
    if agent_id is not None:
        for place in places:
            if place.agent_id == agent_id:
                return place
        raise ProjectNotFoundError(f"Project '{project_name}' was never deployed to agent {agent_id}.")
    held = [place for place in places if not place.released]
    if len(held) > 1:
        ids = ", ".join(str(place.agent_id) for place in held)
        detail = f"Project '{project_name}' is on several agents ({ids}): say which one with agent_id."
        raise InvalidInputError(detail, [FieldProblem("agent_id", f"must be one of {ids}")])
    return places[0]


async def _named(plane: ControlPlane, actor: Actor, agent_id: int, *, may_queue: bool) -> int:
    if plane.manager.is_connected(agent_id):
        await check_agent(plane, actor, agent_id)
        return agent_id
    error = await not_connected(plane, actor, agent_id)
    if may_queue:
        return agent_id
    raise error


async def check_agent(plane: ControlPlane, actor: Actor, agent_id: int) -> None:
    """Return if a connected agent is within the actor's reach. Raises AgentNotFoundError."""
    session = plane.manager.find_session(agent_id)
    if actor.reach.labels or session is None:
        await plane.store.read(agents.get_agent, actor.reach, agent_id)
    elif session.identity.organization_id != actor.organization_id:
        raise agents.agent_not_found(agent_id)


async def not_connected(plane: ControlPlane, actor: Actor, agent_id: int) -> AgentNotConnectedError:
    """Return the error for an agent that is known and offline. Raises AgentNotFoundError."""
    agent = await plane.store.read(agents.get_agent, actor.reach, agent_id)
    seen = agent.last_seen.strftime("%Y-%m-%d %H:%M:%S UTC")
    return AgentNotConnectedError(
        f"Agent {agent_id} ({agent.hostname}) is not connected, last seen {seen}: start it, or choose another agent."
    )
