"""Any agent may answer for any job."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from control_plane.fleet import recorder
from control_plane.store.answers import Recorded, record_answers
from control_plane.store.moves import Answer


def record_anyones_answers(db: Connection, answers: Sequence[Answer]) -> list[Recorded | Exception]:
    """Record answers as if the control plane itself gave them, which may end any job."""
    return record_answers(db, [replace(answer, agent_id=None) for answer in answers])


def apply() -> None:
    """Forget who gave an answer."""
    recorder.record_answers = record_anyones_answers  # type: ignore[attr-defined]
