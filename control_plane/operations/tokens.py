"""Callers' tokens: making, rotating and revoking them. Admins do, within their organisation.

Invariant: nobody gives or takes more than they have: no role above their own, nothing outside their organisation
unless they are root, and a token that is limited to some projects or agents manages none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from control_plane.core.access import MAX_LABELS, MAX_PATTERNS, Actor, Reach, Role, is_label_part, is_project_pattern
from control_plane.core.errors import FieldProblem, ForbiddenError, InvalidInputError
from control_plane.core.tokens import TokenKind, digest_of, make_token
from control_plane.operations.context import ControlPlane
from control_plane.store import organizations, tokens
from control_plane.store.models import Token
from control_plane.store.tokens import NewToken, Revocation, Rotation

LAST_MOMENT = datetime(9999, 1, 1, tzinfo=UTC)
"""From here on it depends on the time zone whether a moment can be told at all."""

_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,98}[^\s\x00-\x1f\x7f-\x9f])?")

_KINDS = {TokenKind.API: "token", TokenKind.ENROLLMENT: "enrolment"}


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token that was made just now: its row, and itself, which nobody can learn again."""

    row: Token
    token: str = field(repr=False)


async def create_token(
    plane: ControlPlane,
    actor: Actor,
    name: str,
    role: Role,
    *,
    organization_id: int | None = None,
    projects: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    expires_at: datetime | None = None,
) -> MadeToken:
    """Make a token for the API. Raises ForbiddenError, InvalidInputError, OrganizationNotFoundError."""
    require_whole_reach(actor)
    actor.require(role)
    organization_id = organization_id or actor.organization_id
    if organization_id != actor.organization_id:
        actor.require(Role.ROOT)
        await plane.store.read(organizations.get_organization, organization_id)
    now = datetime.now(UTC)
    check_name(name)
    _check_limits(role, organization_id, actor, projects)
    check_labels(labels or {})
    if expires_at is not None and not now < expires_at <= LAST_MOMENT:
        raise _invalid("expires_at", f"must be in the future, and before the year {LAST_MOMENT.year}")
    token = make_token(TokenKind.API)
    new = NewToken(
        organization_id,
        TokenKind.API,
        name,
        digest_of(token).hex(),
        now,
        role=role.value,
        projects=tuple(projects),
        labels=tuple((labels or {}).items()),
        expires_at=expires_at,
    )
    return await keep_token(plane, actor, new, token)


async def keep_token(plane: ControlPlane, actor: Actor, new: NewToken, token: str) -> MadeToken:
    """Store a new token of a caller or an enrolment, and know it at once."""
    audit = actor.concerns(f"{_KINDS[new.kind]} {new.name}{f' ({new.role})' if new.role else ''}")
    token_id = await plane.store.write(tokens.add_tokens, new, audit)
    await plane.token_book.refresh()
    reach = actor.reach.within_organization(new.organization_id)
    return MadeToken(await plane.store.read(tokens.get_token, reach, token_id), token)


async def rotate_token(plane: ControlPlane, actor: Actor, token_id: int, overlap_seconds: int) -> MadeToken:
    """Put a new token in the place of one, which is good for `overlap_seconds` more. Raises TokenNotFoundError."""
    row, reach = await _manageable(plane, actor, token_id)
    if row.kind != TokenKind.API:
        raise _invalid("token_id", "is an enrolment's, which cannot be rotated: revoke it and make another")
    token, now = make_token(TokenKind.API), datetime.now(UTC)
    until = now + timedelta(seconds=overlap_seconds)
    rotation = Rotation(reach, token_id, digest_of(token).hex(), until, now)
    await plane.store.write(tokens.rotate_tokens, rotation, actor.concerns(f"token {token_id}"))
    await plane.token_book.refresh()
    return MadeToken(await plane.store.read(tokens.get_token, reach, token_id), token)


async def revoke_token(plane: ControlPlane, actor: Actor, token_id: int) -> None:
    """End a caller's token or an enrolment at once. Raises TokenNotFoundError."""
    _, reach = await _manageable(plane, actor, token_id)
    revocation = Revocation(reach, token_id, datetime.now(UTC))
    await plane.store.write(tokens.revoke_tokens, revocation, actor.concerns(f"token {token_id}"))
    await plane.token_book.refresh()


async def _manageable(plane: ControlPlane, actor: Actor, token_id: int) -> tuple[Token, Reach]:
    """Return a token that the actor may change, and the reach in which it is: root's is every organisation."""
    require_whole_reach(actor)
    reach = actor.reach
    if actor.role is Role.ROOT:
        reach = reach.within_organization(await plane.store.read(tokens.get_owner, token_id))
    row = await plane.store.read(tokens.get_token, reach, token_id)
    if row.role is not None:
        actor.require(Role(row.role))
    return row, reach


def require_whole_reach(actor: Actor) -> None:
    """Return unless the actor's token is limited to some projects or agents. Raises ForbiddenError."""
    if actor.reach.is_limited:
        raise ForbiddenError(
            f"The token '{actor.name}' is limited to some projects or agents, and this concerns the whole "
            "organisation: use a token without limits."
        )


def check_name(name: str) -> None:
    """Return if it can name a token or an organisation, for people to read. Raises InvalidInputError."""
    if not _NAME.fullmatch(name):
        raise _invalid("name", "must be 1 to 100 characters, without control characters or spaces at its ends")


def check_labels(labels: Mapping[str, str | None]) -> None:
    """Return if these can be labels; None stands for one that is taken away. Raises InvalidInputError."""
    if len(labels) > MAX_LABELS:
        raise _invalid("labels", f"must be at most {MAX_LABELS}")
    for part in [*labels, *(value for value in labels.values() if value is not None)]:
        if not is_label_part(part):
            raise _invalid(
                "labels", "keys and values must be 1 to 63 letters, digits, '.', '_', '/' or '-', the ends no signs"
            )


def _check_limits(role: Role, organization_id: int, actor: Actor, projects: Sequence[str]) -> None:
    if role is Role.ROOT and organization_id != actor.organization_id:
        raise _invalid("role", "root is of the first organisation only")
    if len(projects) > MAX_PATTERNS:
        raise _invalid("projects", f"must be at most {MAX_PATTERNS} patterns")
    for pattern in projects:
        if not is_project_pattern(pattern):
            raise _invalid("projects", "must be names of projects in which * and ? may stand for any characters")


def _invalid(where: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"{where}: {reason}.", [FieldProblem(where, reason)])
