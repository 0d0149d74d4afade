"""Requests that are sent again under one Idempotency-Key: asked here before any work is done for them.

The store decides: of two that get past this together one is refused in the commit, with the same exceptions.
"""

from datetime import UTC, datetime

from sqlmodel import Session

from control_plane.core.access import Actor
from control_plane.core.audit import REPEATED
from control_plane.operations.context import ControlPlane
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest, judge_requests


async def check_unused(plane: ControlPlane, request: KeyedRequest) -> None:
    """Return when the request's key is free.

    Raises AnsweredBeforeError when the same was carried out under it, IdempotencyKeyReusedError when another was.
    Asked first, so that a repetition is answered even if it would be refused by now: its agent may be offline.
    """
    used = await plane.store.read(_used, request)
    if used is not None:
        raise used


def repeats(actor: Actor, before: AnsweredBeforeError) -> None:
    """Note for the audit that the actor's request repeats another, unless the store's refusal has told so already."""
    if actor.audit is not None:
        actor.audit.outcome, actor.audit.job_id = REPEATED, before.job_id


def _used(db: Session, request: KeyedRequest) -> Exception | None:
    return judge_requests(db, [request], datetime.now(UTC)).get(request.place)
