"""The tables as SQLAlchemy Core sees them, and the upsert both dialects know. For the changes of this floor.

Changes run through Core's `executemany`, a statement for many rows: several times faster than the ORM's unit
of work, which is why the models serve reads and these tables serve writes.
"""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.orm import defer
from sqlalchemy.sql.base import ExecutableOption

from control_plane.store import models


def _table(model: type) -> Table:
    return cast("Table", model.__table__)  # type: ignore[attr-defined]


agent_table = _table(models.Agent)
compose_file_table = _table(models.ComposeFile)
deployment_table = _table(models.Deployment)
placement_table = _table(models.Placement)
job_table = _table(models.Job)
job_log_table = _table(models.JobLog)
event_table = _table(models.Event)
idempotency_table = _table(models.IdempotencyRecord)


def upsert(
    table: Table, conflict: Sequence[str], change: Sequence[str], where: ColumnElement[bool] | None = None
) -> Insert:
    """Return INSERT … ON CONFLICT (`conflict`) DO UPDATE SET the columns of `change`; DO NOTHING without any.

    `where`: only a row that it is true of is changed.
    """
    statement = insert(table)
    if not change:
        return statement.on_conflict_do_nothing(index_elements=list(conflict))
    return statement.on_conflict_do_update(
        index_elements=list(conflict), set_={name: statement.excluded[name] for name in change}, where=where
    )


def without(model: type, *columns: str) -> list[ExecutableOption]:
    """Return the options that leave columns unread, for lists: a thousand logs may be a gigabyte.

    Touching such a column of a row raises.
    """
    return [defer(getattr(model, name), raiseload=True) for name in columns]
