"""What agents answer, and what else ends a job: every move of a job after its send goes through here.

First terminal answer wins; an answer for a finished job is late, one from another agent is forged, and neither
changes anything. The job, its deployment and its placement move in one transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from control_plane.core.logs import cut_middle
from control_plane.core.protocol import CommandType
from control_plane.core.states import JOB_MOVES, JobStatus, can_move
from control_plane.store.bulk import Bulk
from control_plane.store.models import JOB_IS_ACTIVE
from control_plane.store.moves import Answer, JobFacts
from control_plane.store.outcomes import move_deployments
from control_plane.store.tables import job_log_table, job_table

MAX_PIECES = 64
"""A running job's log is put together when it has this many pieces, so that reading it stays cheap."""
LARGE_PIECE_CHARACTERS = 64 * 1024
"""... and at once when a piece is larger than this, so that few pieces are never many times the bound of a log."""


class Outcome(StrEnum):
    """What an answer came to."""

    MOVED = "moved"
    LOGGED = "logged"
    LATE = "late"
    FORGED = "forged"
    UNKNOWN = "unknown"
    HELD_BACK = "held_back"


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class Recorded:
    """What an answer came to, and its job as it was before; None where there is no such job."""

    outcome: Outcome
    job: JobFacts | None


_job = job_table.c
_FACTS = select(
    _job.id,
    _job.organization_id,
    _job.status,
    _job.agent_id,
    _job.deployment_id,
    _job.project_name,
    _job.command_type,
    _job.sent_at,
    _job.deadline_at,
    _job.logs,
).where(_job.id.in_(bindparam("jobs", expanding=True)))
_MOVE = Bulk(
    update(job_table)
    .where(_job.id == bindparam("job"), JOB_IS_ACTIVE)
    .values(
        status=bindparam("to"),
        reason=bindparam("because"),
        logs=bindparam("log"),
        error=bindparam("problem"),
        data=bindparam("result"),
        updated_at=bindparam("at"),
        finished_at=bindparam("finished"),
    )
)
_REPLACE_LOG = Bulk(update(job_table).where(_job.id == bindparam("job")).values(logs=bindparam("log")))
_ADD_PIECE = Bulk(insert(job_log_table))
_DROP_PIECES = Bulk(delete(job_log_table).where(job_log_table.c.job_id == bindparam("job")))


def record_answers(db: Connection, answers: Sequence[Answer]) -> list[Recorded | Exception]:
    """Apply answers in their order and return what became of each."""
    if len({answer.job_id for answer in answers}) < len(answers):
        # Two moves of one job in one batch: the second must see what the first has done.
        return [record_answers(db, [answer])[0] for answer in answers]
    rows = _read_jobs(db, {answer.job_id for answer in answers})
    outcomes = [_judge(answer, rows.get(answer.job_id)) for answer in answers]
    judged = list(zip(answers, outcomes, strict=True))
    moved = [(answer, rows[answer.job_id]) for answer, outcome in judged if outcome is Outcome.MOVED]
    pieces = _read_pieces(db, [row.id for _, row in moved if row.status == JobStatus.IN_PROGRESS])
    if moved:
        _MOVE.run(db, [_moved_row(answer, row, pieces.get(row.id, [])) for answer, row in moved])
    if pieces:
        _DROP_PIECES.run(db, [{"job": job_id} for job_id in pieces])
    for answer, outcome in judged:
        if outcome is Outcome.LOGGED and answer.whole_log:
            _DROP_PIECES.run(db, [{"job": answer.job_id}])
            _REPLACE_LOG.run(db, [{"job": answer.job_id, "log": cut_middle(answer.logs)}])
        elif outcome is Outcome.LOGGED and answer.logs:
            _append(db, answer)
    move_deployments(db, moved)
    return [Recorded(outcome, rows.get(answer.job_id)) for answer, outcome in judged]


def _read_jobs(db: Connection, job_ids: set[str]) -> dict[str, JobFacts]:
    rows: Iterable[Any] = db.execute(_FACTS, {"jobs": list(job_ids)})
    return {row[0]: JobFacts(*row) for row in rows}


def _judge(answer: Answer, row: JobFacts | None) -> Outcome:
    if row is None:
        return Outcome.UNKNOWN
    if answer.agent_id is not None and (row.agent_id != answer.agent_id or row.sent_at is None):
        return Outcome.FORGED
    if not JOB_MOVES[current := JobStatus(row.status)]:
        return Outcome.LATE
    if (answer.only_unsent and row.sent_at is not None) or (answer.only_if_due and row.deadline_at > answer.at):
        return Outcome.HELD_BACK
    return Outcome.MOVED if can_move(JOB_MOVES, current, answer.status) else Outcome.LOGGED


def _moved_row(answer: Answer, row: JobFacts, pieces: list[str]) -> dict[str, Any]:
    said, earlier = answer.logs, "".join((row.logs, *pieces))
    if not CommandType(row.command_type).changes_project:
        # Whoever asks for a status wants the table, not the acknowledgement.
        said, earlier = answer.logs if answer.said_last is None else answer.said_last, ""
    elif answer.whole_log:
        earlier = ""
    return {
        "job": row.id,
        "to": answer.status.value,
        "because": answer.reason.value if answer.reason else None,
        "log": cut_middle(join_logs(earlier, said)),
        "problem": answer.error,
        "result": answer.data,
        "at": answer.at,
        "finished": answer.at if not JOB_MOVES[answer.status] else None,
    }


def join_logs(earlier: str, later: str) -> str:
    """Put what was said later on a line of its own."""
    if earlier and later and not earlier.endswith("\n"):
        return f"{earlier}\n{later}"
    return earlier + later


def _read_pieces(db: Connection, job_ids: list[str]) -> dict[str, list[str]]:
    if not job_ids:
        return {}
    piece = job_log_table.c
    query = select(piece.job_id, piece.text).where(piece.job_id.in_(job_ids)).order_by(piece.job_id, piece.position)
    pieces: dict[str, list[str]] = {}
    for job_id, text in db.execute(query):
        pieces.setdefault(job_id, []).append(text)
    return pieces


def _append(db: Connection, answer: Answer) -> None:
    """Add a piece to a running job's log; when they are many or large, make one of them and cut its middle."""
    piece = job_log_table.c
    last = db.execute(
        select(piece.position, piece.text).where(piece.job_id == answer.job_id).order_by(piece.position.desc()).limit(1)
    ).first()
    position = 0 if last is None else last.position + 1
    whole = last.text if last else db.execute(select(_job.logs).where(_job.id == answer.job_id)).scalar_one()
    text = answer.logs if not whole or whole.endswith("\n") else f"\n{answer.logs}"
    if position % MAX_PIECES == MAX_PIECES - 1 or len(text) > LARGE_PIECE_CHARACTERS:
        earlier = _read_pieces(db, [answer.job_id]).get(answer.job_id, [])
        _DROP_PIECES.run(db, [{"job": answer.job_id}])
        text = cut_middle("".join((*earlier, text)))
    _ADD_PIECE.run(db, [{"job_id": answer.job_id, "position": position, "text": cut_middle(text)}])
