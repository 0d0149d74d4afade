"""Idempotency keys: what a caller's key was used for, kept in the commit of the very change that it stands for.

The changes that accept deploys, stops and cancellations call this inside of their transaction, and operations ask
it before they do any work. Invariant: of all that is sent with one key within KEPT one change at most is stored;
the key's unique index decides which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, select
from sqlmodel import Session

from control_plane.core.errors import IdempotencyKeyReusedError
from control_plane.store.bulk import Bulk
from control_plane.store.moves import NotMovedError
from control_plane.store.tables import idempotency_table, upsert

KEPT = timedelta(hours=24)
"""An older record counts as absent, whether it was removed yet or not."""

Item = TypeVar("Item")
KeyPlace = tuple[int, str]
"""Organisation and key."""
_record = idempotency_table.c
_FIND = select(_record.organization_id, _record.key, _record.request_hash, _record.job_id, _record.answer).where(
    _record.organization_id.in_(bindparam("organizations", expanding=True)),
    _record.key.in_(bindparam("keys", expanding=True)),
    _record.created_at > bindparam("since"),
)
_KEEP = Bulk(
    upsert(
        idempotency_table,
        conflict=["organization_id", "key"],
        change=["request_hash", "job_id", "answer", "created_at"],
        where=_record.created_at <= bindparam("since"),
    )
)


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request that came with a key, which is its organisation's. `request_hash` tells method, path and body."""

    organization_id: int
    key: str
    request_hash: str

    @property
    def place(self) -> KeyPlace:
        """What no two requests within KEPT share that are carried out."""
        return self.organization_id, self.key


class AnsweredBeforeError(Exception):
    """The same request was carried out before: which job came of it, and what else was answered."""

    def __init__(self, job_id: str, answer: Mapping[str, Any]) -> None:
        super().__init__(job_id)
        self.job_id = job_id
        self.answer = answer


def judge_requests(
    db: Session | Connection, requests: Sequence[KeyedRequest], at: datetime
) -> dict[KeyPlace, AnsweredBeforeError | IdempotencyKeyReusedError]:
    """Return by place what keeps requests from being carried out at `at`; keys that are free are left out."""
    if not requests:
        return {}
    keys = [request.key for request in requests]
    organizations = list({request.organization_id for request in requests})
    rows = db.execute(_FIND, {"organizations": organizations, "keys": keys, "since": at - KEPT})
    used = {(organization_id, key): told for organization_id, key, *told in rows}
    verdicts: dict[KeyPlace, AnsweredBeforeError | IdempotencyKeyReusedError] = {}
    for request in requests:
        if request.place in used:
            request_hash, job_id, answer = used[request.place]
            same = request_hash == request.request_hash
            verdicts[request.place] = AnsweredBeforeError(job_id, answer or {}) if same else _reused()
    return verdicts


def _reused() -> IdempotencyKeyReusedError:
    return IdempotencyKeyReusedError(
        "This Idempotency-Key was used for another request within the last 24 hours: send a new key with a new "
        "request, or the very same method, path and body again to get the first answer."
    )


def keep_answers(db: Connection, kept: Sequence[tuple[KeyedRequest, str, Mapping[str, Any] | None, datetime]]) -> None:
    """Keep what was answered to requests that are carried out in this transaction: request, job's id, answer, time.

    Raises NotMovedError when somebody else has used one of the keys meanwhile; then nothing of it may be stored.
    """
    rows = [
        {
            "organization_id": request.organization_id,
            "key": request.key,
            "request_hash": request.request_hash,
            "job_id": job_id,
            "answer": answer,
            "created_at": at,
            "since": at - KEPT,
        }
        for request, job_id, answer, at in kept
    ]
    if rows and _KEEP.run(db, rows) != len(rows):
        raise NotMovedError


def share_a_key(requests: Sequence[KeyedRequest]) -> bool:
    """Whether two of one batch have the same key: the later must then be judged by what became of the earlier."""
    return len({request.place for request in requests}) < len(requests)
