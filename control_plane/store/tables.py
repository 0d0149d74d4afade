"""The tables as SQLAlchemy Core sees them, and the upsert both dialects know. For the changes of this floor.

Changes run through Core's `executemany`, a statement for many rows: several times faster than the ORM's unit
of work, which is why the models serve reads and these tables serve writes.
"""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import ColumnElement, Table, TextClause
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.orm import defer
from sqlalchemy.sql.base import ExecutableOption

from control_plane.store import models, models_audit


def table_of(model: type) -> Table:
    """Return a model's table."""
    return cast("Table", model.__table__)  # type: ignore[attr-defined]


organization_table = table_of(models.Organization)
agent_table = table_of(models.Agent)
agent_label_table = table_of(models.AgentLabel)
compose_file_table = table_of(models.ComposeFile)
deployment_table = table_of(models.Deployment)
placement_table = table_of(models.Placement)
job_table = table_of(models.Job)
job_log_table = table_of(models.JobLog)
event_table = table_of(models.Event)
idempotency_table = table_of(models.IdempotencyRecord)
token_table = table_of(models.Token)
audit_table = table_of(models_audit.Audit)


def upsert(
    table: Table,
    conflict: Sequence[str],
    change: Sequence[str],
    where: ColumnElement[bool] | None = None,
    among: TextClause | None = None,
) -> Insert:
    """Return INSERT … ON CONFLICT (`conflict`) DO UPDATE SET the columns of `change`; DO NOTHING without any.

    `where`: only a row that it is true of is changed. `among`: the condition of the partial index in question.
    """
    statement = insert(table)
    if not change:
        return statement.on_conflict_do_nothing(index_elements=list(conflict))
    return statement.on_conflict_do_update(
        index_elements=list(conflict),
        index_where=among,
        set_={name: statement.excluded[name] for name in change},
        where=where,
    )


def without(model: type, *columns: str) -> list[ExecutableOption]:
    """Return the options that leave columns unread, for lists: a thousand logs may be a gigabyte.

    Touching such a column of a row raises.
    """
    return [defer(getattr(model, name), raiseload=True) for name in columns]
