"""Events are written with what they tell of: both or neither, two for a deploy, none for a question."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

from control_plane.core.events import EventKind
from control_plane.core.protocol import CommandType
from control_plane.core.states import FailureReason
from control_plane.store import agents
from control_plane.store.agents import Departure
from control_plane.store.deployments import accept_deployments
from control_plane.store.events import NewEvent, WantedEvents, list_events, record_events
from control_plane.store.jobs import add_jobs
from control_plane.store.store import Store
from tests.support.access import REACH
from tests.support.store import (
    NOW,
    add_agent,
    completed,
    deploy,
    failed,
    new_deployment,
    new_job,
    progress,
    record,
    record_together,
    sql,
    stop,
)


def kinds(database: Path, since_id: int = 0) -> list[str]:
    return sql(database, "SELECT kind FROM event WHERE id > ? ORDER BY id", since_id)


async def test_a_deploy_and_a_stop_leave_two_events_each_whatever_else_is_said(store: Store, database: Path) -> None:
    await add_agent(store)
    job, deployment_id = await deploy(store)
    await record(store, progress(job, "a"), progress(job, "b"), completed(job), completed(job), failed(job))
    assert kinds(database, 1) == ["deploy_accepted", "deploy_completed"]
    stopped = await stop(store, deployment_id)
    await record(store, progress(stopped), failed(stopped), completed(stopped))
    assert kinds(database, 3) == ["stop_accepted", "stop_failed"]


async def test_questions_leave_none(store: Store, database: Path) -> None:
    await add_agent(store)
    for kind, project in ((CommandType.STATUS, "web"), (CommandType.HEALTH_CHECK, None)):
        job = await store.write(add_jobs, new_job(kind, project))
        await record(store, failed(job, None))
    assert kinds(database, 1) == []


async def test_what_is_refused_or_undone_leaves_none(store: Store, database: Path) -> None:
    def accept_and_fail(db: Connection, items):  # type: ignore[no-untyped-def]
        accept_deployments(db, items)
        raise ValueError("after the deployment")

    await add_agent(store)
    with pytest.raises(ValueError, match="after the deployment"):
        await store.write(accept_and_fail, new_deployment())
    with pytest.raises(Exception, match="already has 0 jobs"):
        await store.write(accept_deployments, new_deployment(max_queued=0))
    assert kinds(database, 1) == sql(database, "SELECT id FROM deployment") == []


async def test_ends_in_one_commit_are_told_in_their_order(store: Store, database: Path) -> None:
    await add_agent(store)
    jobs = [(await deploy(store, project))[0] for project in ("a", "b", "c")]
    canceled = failed(jobs[2], None, reason=FailureReason.CANCELED)
    await record_together(store, failed(jobs[1], error="no\n  such\timage"), completed(jobs[0]), canceled)
    told = sql(database, "SELECT kind, job_id, message FROM event WHERE id > 4 ORDER BY id")
    assert told == [
        ("deploy_failed", jobs[1], "Deployment 2 of 'b' on agent 1 failed (agent_error): no such image"),
        ("deploy_completed", jobs[0], "Deployment 1 of 'a' is done on agent 1."),
        ("deploy_canceled", jobs[2], "Deployment 3 of 'c' was canceled before it was sent to agent 1."),
    ]


async def test_only_the_connection_that_stands_is_told_as_ended_and_once(store: Store, database: Path) -> None:
    agent_id = await add_agent(store, connection="old")
    await add_agent(store, connection="new")
    for connection in ("old", "new", "new", "old"):
        await store.write(agents.depart, Departure(agent_id, connection, NOW))
    assert kinds(database) == ["agent_connected", "agent_connected", "agent_disconnected"]


async def test_a_long_error_is_cut_in_the_message_and_whole_in_the_job(store: Store, database: Path) -> None:
    await add_agent(store)
    job, _ = await deploy(store)
    await record(store, failed(job, error="x" * 10_000))
    [message] = sql(database, "SELECT message FROM event WHERE kind = 'deploy_failed'")
    assert len(message) < 400
    assert sql(database, "SELECT length(error) FROM job") == [10_000]


async def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(store: Store, database: Path) -> None:
    for number in range(9):
        await store.write(record_events, NewEvent(EventKind.CONTROL_PLANE_STARTED, 1, str(number)))
    sql(database, "DELETE FROM event WHERE id IN (1, 4, 5)")
    at = [datetime.fromisoformat(text) for text in sql(database, "SELECT at FROM event ORDER BY id")]
    assert at == sorted(at)

    async def found(**wanted: datetime) -> list[str]:
        rows = await store.read(list_events, WantedEvents(REACH, limit=100, **wanted))  # type: ignore[arg-type]
        return [row.message for row in rows]

    assert await found(since=at[1], until=at[4]) == ["6", "5", "2"]
    assert await found(since=at[5]) == ["8"]
    assert await found(until=at[0]) == await found(since=datetime(2999, 1, 1, tzinfo=UTC)) == []
    assert len(await found(until=datetime(2999, 1, 1, tzinfo=UTC))) == 6


async def test_an_empty_history_has_an_empty_page_for_every_filter(store: Store) -> None:
    for wanted in (
        WantedEvents(REACH, limit=1, since=NOW, until=NOW),
        WantedEvents(REACH, limit=1, agent_id=1),
        WantedEvents(REACH, limit=1, project_name="web", agent_id=1, kind=EventKind.DEPLOY_ACCEPTED, before_id=9),
    ):
        assert await store.read(list_events, wanted) == []
