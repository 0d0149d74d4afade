"""A cancellation whose caller gave a key: the job's move and the record of the key in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from control_plane.store.answers import Outcome, Recorded, record_answers
from control_plane.store.idempotency import KeyedRequest, judge_requests, keep_answers
from control_plane.store.moves import Answer


@dataclass(frozen=True, slots=True)
class KeyedAnswer:
    """A move of a job, and the request that asks for it."""

    answer: Answer
    request: KeyedRequest


def record_keyed_answers(db: Connection, items: Sequence[KeyedAnswer]) -> list[Recorded | Exception]:
    """Apply answers as `record_answers` does; the key of one that moved its job is used from then on.

    An item whose key was used gets AnsweredBeforeError or IdempotencyKeyReusedError, and moves nothing.
    """
    return [_record(db, item) for item in items]


def _record(db: Connection, item: KeyedAnswer) -> Recorded | Exception:
    answer, request = item.answer, item.request
    used = judge_requests(db, [request], answer.at)
    if used:
        return used[request.place]
    [recorded] = record_answers(db, [answer])
    if isinstance(recorded, Recorded) and recorded.outcome is Outcome.MOVED:
        keep_answers(db, [(request, answer.job_id, None, answer.at)])
    return recorded
