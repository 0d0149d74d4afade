"""What operators change of agents: labels, cordons, tokens of their own, and taking one from the fleet.

Each change is guarded by the operator's reach inside of its transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from control_plane.core.access import MAX_LABELS, Reach
from control_plane.core.errors import AgentConnectedError, FieldProblem, InvalidInputError
from control_plane.core.states import DeploymentStatus, FailureReason, JobStatus
from control_plane.core.tokens import TokenKind
from control_plane.store.agents import agent_not_found
from control_plane.store.answers import record_answers
from control_plane.store.enrollment import bind, set_label
from control_plane.store.models import DEPLOYMENT_IS_ACTIVE, JOB_IS_ACTIVE
from control_plane.store.moves import Answer
from control_plane.store.reaching import within
from control_plane.store.tables import (
    agent_label_table,
    agent_table,
    deployment_table,
    job_table,
    placement_table,
    token_table,
)
from control_plane.store.tokens import NewToken, revoke_where

FORGOTTEN = "The agent was taken from the fleet; what runs on its host is not known any more."
_agent = agent_table.c
_token = token_table.c


@dataclass(frozen=True, slots=True)
class AgentChange:
    """New labels (None takes one away) and whether new projects are kept off; None leaves that as it is."""

    reach: Reach
    agent_id: int
    labels: Mapping[str, str | None]
    cordoned: bool | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A token of its own for an agent, by its SHA-256 in hexadecimal digits; None ends the one that it has."""

    reach: Reach
    agent_id: int
    at: datetime
    digest: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """An agent that leaves the fleet."""

    reach: Reach
    agent_id: int
    at: datetime


def change_agents(db: Connection, items: Sequence[AgentChange]) -> list[Exception | None]:
    """Set labels and cordons. AgentNotFoundError; InvalidInputError for more than MAX_LABELS labels."""
    return [_change(db, item) for item in items]


def _change(db: Connection, item: AgentChange) -> Exception | None:
    if _find(db, item.reach, item.agent_id) is None:
        return agent_not_found(item.agent_id)
    label = agent_label_table.c
    has = set(db.execute(select(label.key).where(label.agent_id == item.agent_id)).scalars())
    kept = (has | {key for key, value in item.labels.items() if value}) - {
        key for key, value in item.labels.items() if value is None
    }
    if len(kept) > MAX_LABELS:
        reason = f"an agent has at most {MAX_LABELS} labels"
        return InvalidInputError(f"labels: {reason}.", [FieldProblem("labels", reason)])
    for key, value in item.labels.items():
        set_label(db, item.agent_id, key, value)
    if item.cordoned is not None:
        db.execute(update(agent_table).where(_agent.id == item.agent_id).values(cordoned=item.cordoned))
    return None


def bind_agents(db: Connection, items: Sequence[Binding]) -> list[int | Exception | None]:
    """Give agents their own tokens, or end those that they have; returns each new token's id. AgentNotFoundError."""
    return [_bind(db, item) for item in items]


def _bind(db: Connection, item: Binding) -> int | Exception | None:
    found = _find(db, item.reach, item.agent_id)
    if found is None:
        return agent_not_found(item.agent_id)
    if item.digest is None:
        revoke_where(db, [_token.agent_id == item.agent_id, _token.kind == TokenKind.AGENT.value], item.at)
        return None
    organization_id, hostname, _ = found
    new = NewToken(organization_id, TokenKind.AGENT, hostname, item.digest, item.at, agent_id=item.agent_id)
    return bind(db, new, item.agent_id)


def forget_agents(db: Connection, items: Sequence[Forgetting]) -> list[list[str] | Exception]:
    """Take offline agents from the fleet; returns the ids of the jobs that failed with each.

    Its tokens end, its projects are nowhere, its history stays. AgentNotFoundError, AgentConnectedError.
    """
    return [_forget(db, item) for item in items]


def _forget(db: Connection, item: Forgetting) -> list[str] | Exception:
    found = _find(db, item.reach, item.agent_id)
    if found is None:
        return agent_not_found(item.agent_id)
    _, hostname, connection_id = found
    if connection_id:
        return AgentConnectedError(
            f"Agent {item.agent_id} ({hostname}) is connected: stop it on its host first, then remove it here."
        )
    jobs = db.execute(select(job_table.c.id).where(job_table.c.agent_id == item.agent_id, JOB_IS_ACTIVE)).scalars()
    lost = FailureReason.AGENT_LOST
    failed = [Answer(each, None, JobStatus.FAILED, item.at, reason=lost, error=FORGOTTEN) for each in jobs]
    if failed:
        record_answers(db, failed)
    place = placement_table.c
    deployment = deployment_table.c
    db.execute(
        update(deployment_table)
        .where(deployment.agent_id == item.agent_id, DEPLOYMENT_IS_ACTIVE)
        .values(status=DeploymentStatus.STOPPED.value, last_error=FORGOTTEN, updated_at=item.at)
    )
    db.execute(delete(placement_table).where(place.agent_id == item.agent_id))
    revoke_where(db, [_token.agent_id == item.agent_id], item.at)
    db.execute(update(agent_table).where(_agent.id == item.agent_id).values(forgotten_at=item.at))
    return [answer.job_id for answer in failed]


def _find(db: Connection, reach: Reach, agent_id: int) -> tuple[int, str, str] | None:
    """Return organisation, hostname and connection of an agent within reach."""
    query = select(_agent.organization_id, _agent.hostname, _agent.connection_id).where(
        _agent.id == agent_id, *within(agent_table, reach), _agent.forgotten_at.is_(None)
    )
    row = db.execute(query).first()
    return None if row is None else (row[0], row[1], row[2])
