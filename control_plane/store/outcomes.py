"""What a job's end means for its deployment and for the place of its project. Called by `answers` only."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, or_, select, update

from control_plane.core.logs import tail
from control_plane.core.protocol import CommandType
from control_plane.core.states import DEPLOYMENT_MOVES, DeploymentStatus, JobStatus, sources_of
from control_plane.store.bulk import Bulk
from control_plane.store.events import end_of_change, record_events
from control_plane.store.models import DEPLOYMENT_IS_ACTIVE, JOB_IS_ACTIVE
from control_plane.store.moves import Answer, JobFacts
from control_plane.store.tables import deployment_table, job_table, placement_table

LAST_LOGS_BYTES = 16 * 1024
"""How much of a job's last words its deployment keeps; all of them are in the job's log."""

_deployment = deployment_table.c
_job = job_table.c
_place = placement_table.c
_ON_PLACE = (_deployment.agent_id == bindparam("agent"), _deployment.project_name == bindparam("project"))
_AT_PLACE = (
    _place.organization_id == bindparam("organization"),
    _place.project_name == bindparam("project"),
    _place.agent_id == bindparam("agent"),
)


def _from(target: DeploymentStatus) -> Any:
    # Not IN: a statement for many rows cannot have a list among its parameters.
    return or_(*(_deployment.status == status.value for status in sources_of(DEPLOYMENT_MOVES, target)))


_SUPERSEDE_OTHERS = Bulk(
    # Not only older ids: commands run in the order of their sends, and what completed last is what the host runs.
    update(deployment_table)
    .where(*_ON_PLACE, DEPLOYMENT_IS_ACTIVE, _from(DeploymentStatus.SUPERSEDED))
    .values(status=DeploymentStatus.SUPERSEDED.value, updated_at=bindparam("at"))
)
_END_DEPLOY = Bulk(
    update(deployment_table)
    .where(_deployment.id == bindparam("deployment"), _deployment.status == DeploymentStatus.PENDING.value)
    .values(
        status=bindparam("to"),
        last_logs=bindparam("log"),
        last_error=bindparam("problem"),
        updated_at=bindparam("at"),
    )
)
_SET_CURRENT = Bulk(
    update(placement_table)
    .where(*_AT_PLACE)
    .values(current_deployment_id=bindparam("deployment"), updated_at=bindparam("at"))
)
_STOP = Bulk(
    update(deployment_table)
    .where(*_ON_PLACE, DEPLOYMENT_IS_ACTIVE, _from(DeploymentStatus.STOPPED))
    .values(
        status=DeploymentStatus.STOPPED.value,
        last_logs=bindparam("log"),
        last_error=None,
        updated_at=bindparam("at"),
    )
)
_RELEASE = Bulk(
    update(placement_table)
    .where(*_AT_PLACE)
    .values(
        current_deployment_id=None,
        updated_at=bindparam("at"),
        released=~exists(
            select(_deployment.id).where(
                *_ON_PLACE, DEPLOYMENT_IS_ACTIVE, _deployment.status == DeploymentStatus.PENDING.value
            )
        ),
    )
)
_RELEASE_NEVER_SENT = Bulk(
    # Nothing of the project ever reached the agent, so a stop, which gives a name back, would fail there for ever.
    update(placement_table)
    .where(
        *_AT_PLACE,
        ~exists(
            select(_job.id).where(
                _job.organization_id == bindparam("organization"),
                _job.project_name == bindparam("project"),
                _job.agent_id == bindparam("agent"),
                or_(_job.sent_at.is_not(None), JOB_IS_ACTIVE),
            )
        ),
    )
    .values(released=True, updated_at=bindparam("at"))
)
_NOTE_FAILED_STOP = Bulk(
    update(deployment_table)
    .where(
        _deployment.id
        == func.coalesce(
            select(_place.current_deployment_id).where(*_AT_PLACE).scalar_subquery(), bindparam("deployment")
        )
    )
    .values(
        last_logs=func.coalesce(bindparam("said"), _deployment.last_logs),
        last_error=bindparam("problem"),
        updated_at=bindparam("at"),
    )
)


def move_deployments(db: Connection, moved: Sequence[tuple[Answer, JobFacts]]) -> None:
    """Carry the end of deploys and stops over to deployments, placements and events. `moved`: jobs that just moved."""
    ended = [
        (answer, row)
        for answer, row in moved
        if row.deployment_id is not None
        and CommandType(row.command_type).changes_project
        and answer.status is not JobStatus.IN_PROGRESS
    ]
    record_events(db, [end_of_change(answer, row) for answer, row in ended])
    if len({(row.agent_id, row.project_name) for _, row in ended}) == len(ended):
        _carry_over(db, ended)
        return
    for one in ended:  # Two ends at one place: the later must see what the earlier has done.
        _carry_over(db, [one])


def _carry_over(db: Connection, ended: Sequence[tuple[Answer, JobFacts]]) -> None:
    deploys_done: list[dict[str, Any]] = []
    deploys_ended: list[dict[str, Any]] = []
    never_sent: list[dict[str, Any]] = []
    stops_done: list[dict[str, Any]] = []
    stops_failed: list[dict[str, Any]] = []
    for answer, row in ended:
        facts = _facts(answer, row)
        done = answer.status is JobStatus.COMPLETED
        if row.command_type == CommandType.STOP_COMPOSE:
            (stops_done if done else stops_failed).append(facts)
            continue
        deploys_ended.append(facts)
        if done:
            deploys_done.append(facts)
        elif row.sent_at is None:
            never_sent.append(facts)
    for statement, rows in (
        (_SUPERSEDE_OTHERS, deploys_done),
        (_END_DEPLOY, deploys_ended),
        (_SET_CURRENT, deploys_done),
        (_RELEASE_NEVER_SENT, never_sent),
        (_STOP, stops_done),
        (_RELEASE, stops_done),
        (_NOTE_FAILED_STOP, stops_failed),
    ):
        if rows:
            statement.run(db, rows)


def _facts(answer: Answer, row: JobFacts) -> dict[str, Any]:
    ended = DeploymentStatus.RUNNING if answer.status is JobStatus.COMPLETED else DeploymentStatus.FAILED
    return {
        "deployment": row.deployment_id,
        "agent": row.agent_id,
        "organization": row.organization_id,
        "project": row.project_name,
        "to": ended.value,
        "log": (log := tail(answer.logs, LAST_LOGS_BYTES)),
        "said": log or None,
        "problem": answer.error,
        "at": answer.at,
    }
