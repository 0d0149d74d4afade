"""Any agent may answer for any job."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from control_plane.fleet import recorder
from control_plane.store.answers import Outcome, record_answers
from control_plane.store.moves import Answer


def apply() -> None:
    """Record every answer as if the control plane itself gave it, which may end any job."""

    def record_anyones(db: Connection, answers: Sequence[Answer]) -> list[Outcome | Exception]:
        return record_answers(db, [replace(answer, agent_id=None) for answer in answers])

    recorder.record_answers = record_anyones  # type: ignore[attr-defined]
