"""Whether an arriving agent may have its hostname, and how a host gets the token of its own that binds it.

`agents.arrive` asks here inside of its transaction. Invariant: once an agent has had a token of its own, its
hostname is opened by such a token alone; an enrolment binds a free hostname, and its uses are counted with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, or_, select, update
from sqlmodel import Session

from control_plane.core.errors import HostnameBoundError, UnauthorizedError
from control_plane.core.tokens import TokenKind
from control_plane.store.models import AGENT_IS_KNOWN
from control_plane.store.tables import agent_label_table, agent_table, token_table, upsert
from control_plane.store.tokens import USE_NOTED, NewToken, insert_token, next_revision, revoke_where

_agent = agent_table.c
_token = token_table.c


@dataclass(frozen=True, slots=True)
class Enrollment:
    """An enrolment's token by its id, and the SHA-256 (hexadecimal) of the token that the host is to get for it."""

    token_id: int
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What an arriving agent claims: organisation and hostname, with a token of its own, an enrolment or neither."""

    place: tuple[int, str]
    token_id: int | None
    enrollment: Enrollment | None
    at: datetime


def judge_arrivals(db: Connection, claims: Sequence[Claimed]) -> list[Exception | None]:
    """Say of each why it may not come in: HostnameBoundError or UnauthorizedError. Notes the use of good tokens."""
    _note_uses(db, claims)
    return _verdicts(db, claims)


def check_arrival(db: Session, claim: Claimed) -> None:
    """Return if an agent may come in as things stand. Raises what `judge_arrivals` says."""
    [refusal] = _verdicts(db, [claim])
    if refusal is not None:
        raise refusal


def _verdicts(db: Session | Connection, claims: Sequence[Claimed]) -> list[Exception | None]:
    standing = _standing(db, claims)
    good = _good_tokens(db, claims)
    return [_judge(db, claim, standing.get(claim.place), good) for claim in claims]


def _standing(db: Session | Connection, claims: Sequence[Claimed]) -> dict[tuple[int, str], tuple[int, bool]]:
    rows = db.execute(
        select(_agent.organization_id, _agent.hostname, _agent.id, _agent.bound).where(
            _agent.organization_id.in_({claim.place[0] for claim in claims}),
            _agent.hostname.in_([claim.place[1] for claim in claims]),
            AGENT_IS_KNOWN,
        )
    )
    return {(organization, hostname): (agent_id, bound) for organization, hostname, agent_id, bound in rows}


def _good_tokens(db: Session | Connection, claims: Sequence[Claimed]) -> dict[int, int]:
    """Return the agent of each token that agents came with and that was not revoked."""
    if all(claim.token_id is None for claim in claims):
        return {}
    rows = db.execute(select(_token.id, _token.agent_id).where(*_are_good(claims)))
    return {token_id: agent_id for token_id, agent_id in rows}  # noqa: C416


def _note_uses(db: Connection, claims: Sequence[Claimed]) -> None:
    if any(claim.token_id is not None for claim in claims):
        at = claims[0].at
        unnoted = or_(_token.last_used_at.is_(None), _token.last_used_at < at - USE_NOTED)
        db.execute(update(token_table).where(*_are_good(claims), unnoted).values(last_used_at=at))


def _are_good(claims: Sequence[Claimed]) -> tuple[ColumnElement[bool], ...]:
    ids = [claim.token_id for claim in claims if claim.token_id is not None]
    return _token.id.in_(ids), _token.kind == TokenKind.AGENT.value, _token.revoked_at.is_(None)


def _judge(
    db: Session | Connection, claim: Claimed, standing: tuple[int, bool] | None, good: Mapping[int, int]
) -> Exception | None:
    agent_id, bound = standing or (None, False)
    if claim.token_id is not None:
        return None if agent_id is not None and good.get(claim.token_id) == agent_id else _not_good()
    if claim.enrollment is not None:
        return _judge_enrollment(db, claim.enrollment, claim, agent_id, bound=bound)
    return _bound(claim.place[1]) if bound else None


def _judge_enrollment(
    db: Session | Connection, enrollment: Enrollment, claim: Claimed, agent_id: int | None, *, bound: bool
) -> Exception | None:
    """Judge an enrolment for a free hostname, or for the bound one of an agent that never got its new token."""
    found = db.execute(
        select(_token.uses_left, _token.expires_at, _token.labels).where(
            _token.id == enrollment.token_id,
            _token.kind == TokenKind.ENROLLMENT.value,
            _token.organization_id == claim.place[0],
            _token.revoked_at.is_(None),
        )
    ).first()
    if found is None or (found.expires_at is not None and found.expires_at <= claim.at):
        return _not_good()
    if agent_id is not None and bound:
        return None if _unused_token(db, agent_id, enrollment.token_id) else _bound(claim.place[1])
    if agent_id is not None and not _has_labels(db, agent_id, found.labels or {}):
        # Whoever made the enrolment may reach only agents with its labels, and must not get others by it.
        return _other_labels(claim.place[1])
    if found.uses_left is not None and found.uses_left <= 0:
        return UnauthorizedError(
            "This enrolment token has enrolled as many agents as it may: make a new one with POST /agents/enroll."
        )
    return None


def _has_labels(db: Session | Connection, agent_id: int, labels: Mapping[str, str]) -> bool:
    label = agent_label_table.c
    rows = db.execute(select(label.key, label.value).where(label.agent_id == agent_id))
    return labels.items() <= {(key, value) for key, value in rows}


def _unused_token(db: Session | Connection, agent_id: int, enrollment_id: int) -> bool:
    """Whether the agent's token came of this enrolment and was never presented: its answer may have been lost."""
    query = select(_token.id).where(
        _token.agent_id == agent_id,
        _token.kind == TokenKind.AGENT.value,
        _token.enrollment_id == enrollment_id,
        _token.last_used_at.is_(None),
        _token.revoked_at.is_(None),
    )
    return db.execute(query).first() is not None


def enroll(db: Connection, enrollment: Enrollment, agent_id: int, hostname: str, at: datetime) -> int:
    """Bind an agent to a new token of its own and give it the enrolment's labels; returns the token's id."""
    again = _unused_token(db, agent_id, enrollment.token_id)
    made = db.execute(
        select(_token.organization_id, _token.labels, _token.uses_left).where(_token.id == enrollment.token_id)
    ).one()
    if not again and made.uses_left is not None:
        change = update(token_table).where(_token.id == enrollment.token_id)
        db.execute(change.values(uses_left=made.uses_left - 1, last_used_at=at, revision=next_revision(db)))
    for key, value in (made.labels or {}).items():
        set_label(db, agent_id, key, value)
    new = NewToken(
        made.organization_id,
        TokenKind.AGENT,
        hostname,
        enrollment.digest,
        at,
        agent_id=agent_id,
        enrollment_id=enrollment.token_id,
    )
    return bind(db, new, agent_id)


def bind(db: Connection, new: NewToken, agent_id: int) -> int:
    """Make `new` the one token of its agent, in another change; returns its id."""
    revoke_where(db, [_token.agent_id == agent_id, _token.kind == TokenKind.AGENT.value], new.at)
    db.execute(update(agent_table).where(_agent.id == agent_id).values(bound=True))
    return insert_token(db, new)


def set_label(db: Connection, agent_id: int, key: str, value: str | None) -> None:
    """Give an agent a label, or take it away (None), in another change."""
    label = agent_label_table.c
    if value is None:
        db.execute(agent_label_table.delete().where(label.agent_id == agent_id, label.key == key))
        return
    put = upsert(agent_label_table, conflict=["agent_id", "key"], change=["value"])
    db.execute(put.values(agent_id=agent_id, key=key, value=value))


def _not_good() -> UnauthorizedError:
    return UnauthorizedError(
        "This token is not valid any more: enrol the agent again with a new token from POST /agents/enroll, or give "
        "it a new one of its own from POST /agents/{id}/token."
    )


def _other_labels(hostname: str) -> HostnameBoundError:
    return HostnameBoundError(
        f"The hostname '{hostname}' belongs to an agent that has not all labels of this enrolment: give it those "
        "first (PATCH /agents/{id}), enrol it with a token without labels, or give this host another hostname."
    )


def _bound(hostname: str) -> HostnameBoundError:
    return HostnameBoundError(
        f"The hostname '{hostname}' belongs to an agent with a token of its own: give this host that token, or "
        "another hostname (AGENT_HOSTNAME). An operator makes a new one with POST /agents/{id}/token."
    )
