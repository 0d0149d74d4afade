"""What operators do with agents: enrol hosts, give agents tokens of their own, label, cordon and forget them.

Each raises ForbiddenError for a token that is limited to some projects: what is done to an agent is done to all of its.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from control_plane.bus.base import Topic
from control_plane.core.access import Actor
from control_plane.core.errors import ForbiddenError
from control_plane.core.tokens import TokenKind, digest_of, make_token
from control_plane.operations.context import ControlPlane
from control_plane.operations.tokens import MadeToken, check_labels, check_name, keep_token
from control_plane.store import agent_changes, agents
from control_plane.store.agent_changes import AgentChange, Binding, Forgetting
from control_plane.store.models import Agent
from control_plane.store.tokens import NewToken


async def create_enrollment(
    plane: ControlPlane,
    actor: Actor,
    *,
    name: str,
    labels: Mapping[str, str],
    uses: int,
    expires_in_seconds: int,
) -> MadeToken:
    """Make a token with which `uses` hosts may become agents with these labels. Raises InvalidInputError.

    A token that is limited to labels enrols only agents that have them: they are added. ForbiddenError for others.
    """
    actor.require_every_project()
    check_name(name)
    check_labels(labels)
    _keep_own_labels(actor, {key: value for key, value in labels.items() if key in dict(actor.reach.labels)})
    token, now = make_token(TokenKind.ENROLLMENT), datetime.now(UTC)
    new = NewToken(
        actor.organization_id,
        TokenKind.ENROLLMENT,
        name,
        digest_of(token).hex(),
        now,
        labels=tuple({**labels, **dict(actor.reach.labels)}.items()),
        uses_left=uses,
        expires_at=now + timedelta(seconds=expires_in_seconds),
    )
    return await keep_token(plane, actor, new, token)


async def change_agent(
    plane: ControlPlane, actor: Actor, agent_id: int, *, labels: Mapping[str, str | None], cordoned: bool | None
) -> Agent:
    """Set labels (None takes one away) and the cordon. Raises AgentNotFoundError, InvalidInputError, ForbiddenError."""
    actor.require_every_project()
    check_labels(labels)
    _keep_own_labels(actor, labels)
    change = AgentChange(actor.reach, agent_id, labels, cordoned)
    await plane.store.write(agent_changes.change_agents, change, actor.concerns(_what_changes(change)))
    return await plane.store.read(agents.get_agent, actor.reach, agent_id)


def _what_changes(change: AgentChange) -> str:
    labels = [key if value is None else f"{key}={value}" for key, value in sorted(change.labels.items())]
    cordon = [] if change.cordoned is None else ["cordoned" if change.cordoned else "not cordoned"]
    return f"agent {change.agent_id}: {', '.join([*cordon, *labels])}"


def _keep_own_labels(actor: Actor, labels: Mapping[str, str | None]) -> None:
    """Refuse to change labels that the actor is limited to: agents would leave or enter its reach by its own hand."""
    for key, value in actor.reach.labels:
        if key in labels and labels[key] != value:
            raise ForbiddenError(
                f"The token '{actor.name}' is limited to agents with the label {key}={value} and may not change that "
                "label: use a token without this limit."
            )


async def make_agent_token(plane: ControlPlane, actor: Actor, agent_id: int) -> str:
    """Return a new token that alone opens the agent's hostname from now on. Raises AgentNotFoundError.

    A socket that came without it is closed.
    """
    actor.require_every_project()
    token = make_token(TokenKind.AGENT)
    binding = Binding(actor.reach, agent_id, datetime.now(UTC), digest_of(token).hex())
    await plane.store.write(agent_changes.bind_agents, binding, actor.concerns(f"agent {agent_id}"))
    await plane.token_book.refresh()
    return token


async def revoke_agent_token(plane: ControlPlane, actor: Actor, agent_id: int) -> None:
    """End the agent's own token and its socket; its hostname stays bound. Raises AgentNotFoundError."""
    actor.require_every_project()
    binding = Binding(actor.reach, agent_id, datetime.now(UTC))
    await plane.store.write(agent_changes.bind_agents, binding, actor.concerns(f"agent {agent_id}"))
    await plane.token_book.refresh()


async def forget_agent(plane: ControlPlane, actor: Actor, agent_id: int) -> None:
    """Take an offline agent from the fleet; its history stays. Raises AgentNotFoundError, AgentConnectedError."""
    actor.require_every_project()
    forgetting = Forgetting(actor.reach, agent_id, datetime.now(UTC))
    failed = await plane.store.write(agent_changes.forget_agents, forgetting, actor.concerns(f"agent {agent_id}"))
    if failed:
        plane.bus.publish(Topic.JOB_FINISHED, failed)
    await plane.token_book.refresh()
