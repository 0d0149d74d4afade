"""What is over for long is removed with all that belongs to it; what somebody may still ask for or need stays."""

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from uuid_utils import uuid7

from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.operations.retaining import remove_old
from control_plane.store import retention
from control_plane.store.answers import record_answers
from control_plane.store.deployments import accept_deployments
from control_plane.store.jobs import add_jobs
from control_plane.store.store import Store
from tests.support.store import add_agent, claim, completed, new_deployment, new_job, open_store, progress, sql

DAYS = 90
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=DAYS + 1)
LATELY = NOW - timedelta(days=DAYS - 1)
ROWS = "SELECT (SELECT count(*) FROM deployment), (SELECT count(*) FROM job), (SELECT count(*) FROM compose_file)"


def id_of(at: datetime) -> str:
    return str(uuid7(nanoseconds=int(at.timestamp() * 1_000_000_000)))


async def deployed(store: Store, project: str, at: datetime, *, file: str = "5" * 64, end: bool = True) -> int:
    """Deploy at a time of the past, and have it completed at once; returns the deployment's id."""
    job = id_of(at)
    new = new_deployment(project, job_id=job, at=at, compose_sha256=file, deadline_at=at + timedelta(days=400))
    deployment = await store.write(accept_deployments, new)
    if end:
        await claim(store, job)
        await store.write(record_answers, progress(job, "Pulling\n", at=at))
        await store.write(record_answers, completed(job, at=at, logs="Started\n"))
    return deployment


async def asked(store: Store, project: str, deployment: int, at: datetime) -> str:
    """Ask for a project's status at a time of the past, and have it answered at once; returns the job's id."""
    job = new_job(CommandType.STATUS, project, deployment_id=deployment, job_id=id_of(at), at=at)
    await store.write(add_jobs, job)
    await claim(store, job.job_id)
    await store.write(record_answers, completed(job.job_id, at=at))
    return job.job_id


async def stopped(store: Store, project: str, deployment: int, at: datetime) -> None:
    job = new_job(CommandType.STOP_COMPOSE, project, deployment_id=deployment, job_id=id_of(at), at=at)
    await store.write(add_jobs, job)
    await claim(store, job.job_id)
    await store.write(record_answers, completed(job.job_id, at=at))


def assert_sound(database: Path) -> None:
    assert sql(database, "PRAGMA foreign_key_check") == []
    dangling = "SELECT * FROM placement WHERE latest_deployment_id NOT IN (SELECT id FROM deployment)"
    assert sql(database, dangling) == []


async def test_what_is_over_for_long_goes_with_its_jobs_and_its_compose_file(store: Store, database: Path) -> None:
    await add_agent(store)
    for n in range(3):
        await deployed(store, "web", LONG_AGO, file=f"{n}" * 64)
    removed = await remove_old(store, retention_days=DAYS)
    assert removed == {"deployments": 2, "jobs": 2, "compose_files": 2}
    assert sql(database, ROWS) == [(1, 1, 1)]
    assert_sound(database)
    assert not await remove_old(store, retention_days=DAYS)


async def test_the_current_deployment_its_job_and_log_stay_however_old_and_the_latest_failed_one_too(
    store: Store, database: Path
) -> None:
    await add_agent(store)
    current = await deployed(store, "web", LONG_AGO)
    failed = await deployed(store, "web", LONG_AGO, file="6" * 64, end=False)
    (job,) = sql(database, "SELECT id FROM job WHERE deployment_id = ?", failed)
    await store.write(record_answers, replace(completed(job, None, at=LONG_AGO), status=JobStatus.FAILED))
    assert not await remove_old(store, retention_days=DAYS)
    assert sql(database, "SELECT current_deployment_id, latest_deployment_id FROM placement") == [(current, failed)]
    assert sql(database, "SELECT logs FROM job WHERE deployment_id = ?", current) == ["Pulling\nStarted\n"]


async def test_a_stopped_project_keeps_its_place_with_its_latest_deployment(store: Store, database: Path) -> None:
    await add_agent(store)
    first = await deployed(store, "web", LONG_AGO)
    await stopped(store, "web", first, LONG_AGO)
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 1}
    assert sql(database, "SELECT released, latest_deployment_id FROM placement") == [(1, first)]
    again = await deployed(store, "web", NOW)
    assert again > first
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 1, "deployments": 1}
    assert_sound(database)


async def test_what_is_young_or_not_over_stays(store: Store, database: Path) -> None:
    await add_agent(store)
    await deployed(store, "web", LATELY)
    await deployed(store, "web", LATELY)
    await deployed(store, "queued", LONG_AGO, end=False)
    await deployed(store, "queued", LONG_AGO, end=False)
    before = sql(database, "SELECT * FROM job"), sql(database, "SELECT * FROM deployment")
    assert not await remove_old(store, retention_days=DAYS)
    assert (sql(database, "SELECT * FROM job"), sql(database, "SELECT * FROM deployment")) == before


async def test_age_counts_from_the_end_not_from_the_beginning(store: Store, database: Path) -> None:
    await add_agent(store)
    await deployed(store, "web", LONG_AGO)
    await deployed(store, "web", LATELY)
    assert not await remove_old(store, retention_days=DAYS), "it ran until lately"
    slow = id_of(LONG_AGO)
    await store.write(add_jobs, new_job(CommandType.HEALTH_CHECK, None, job_id=slow, at=LONG_AGO))
    await claim(store, slow)
    await store.write(record_answers, completed(slow, at=LATELY))
    assert not await remove_old(store, retention_days=DAYS)
    assert sql(database, ROWS) == [(2, 3, 1)]


async def test_a_deployment_that_a_young_job_is_about_stays_until_that_is_old(store: Store, database: Path) -> None:
    await add_agent(store)
    first = await deployed(store, "web", LONG_AGO)
    await asked(store, "web", first, LONG_AGO)
    young = await asked(store, "web", first, LATELY)
    await deployed(store, "web", LONG_AGO)
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 1}
    sql(database, "UPDATE job SET id = ?, finished_at = ? WHERE id = ?", id_of(LONG_AGO), str(LONG_AGO), young)
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 2, "deployments": 1}
    assert_sound(database)


async def test_a_running_projects_old_questions_go(store: Store) -> None:
    await add_agent(store)
    current = await deployed(store, "web", LONG_AGO)
    for _ in range(3):
        await asked(store, "web", current, LONG_AGO)
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 3}


async def test_old_events_go_also_behind_one_that_a_wrong_clock_has_dated(store: Store, database: Path) -> None:
    for at in (NOW + timedelta(days=999), LONG_AGO, LATELY, LONG_AGO):
        sql(database, "INSERT INTO event (at, kind, message) VALUES (?, 'x', 'x')", at.isoformat(" ", "microseconds"))
    assert await remove_old(store, retention_days=DAYS) == {"events": 2}
    assert sql(database, "SELECT id FROM event ORDER BY id") == [1, 3]


async def test_the_last_start_stays_for_the_next_one_to_be_compared_with(store: Store, database: Path) -> None:
    for kind in ("control_plane_started", "control_plane_stopped", "control_plane_started"):
        sql(database, "INSERT INTO event (at, kind, message) VALUES (?, ?, 'x')", str(LONG_AGO), kind)
    assert await remove_old(store, retention_days=DAYS) == {"events": 1}
    assert sql(database, "SELECT id FROM event ORDER BY id") == [2, 3]


async def test_zero_days_keep_everything_but_keys_which_live_for_a_day(store: Store, database: Path) -> None:
    await add_agent(store)
    await deployed(store, "web", LONG_AGO)
    await deployed(store, "web", LONG_AGO)
    sql(database, "INSERT INTO event (at, kind, message) VALUES (?, 'x', 'x')", str(LONG_AGO))
    for key, hours in (("old", 25), ("young", 23)):
        at = (NOW - timedelta(hours=hours)).isoformat(" ", "microseconds")
        sql(database, "INSERT INTO idempotency_record (key, request_hash, created_at) VALUES (?, 'h', ?)", key, at)
    assert await remove_old(store, retention_days=0) == {"idempotency_records": 1}
    assert sql(database, "SELECT key FROM idempotency_record") == ["young"]
    assert sql(database, ROWS) == [(2, 2, 1)]


async def test_a_long_history_goes_page_by_page_and_little_by_little(
    store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HOLD_SECONDS", 0)
    await add_agent(store)
    for n in range(30):
        deployment = await deployed(store, f"p{n % 3}", LONG_AGO, file=f"{n:064}")
        await asked(store, f"p{n % 3}", deployment, LONG_AGO)
    assert await remove_old(store, retention_days=DAYS) == {"jobs": 57, "deployments": 27, "compose_files": 27}
    assert sql(database, ROWS) == [(3, 3, 3)]
    assert_sound(database)


async def test_a_removal_lets_go_of_the_writer_when_its_time_is_up(store: Store, database: Path) -> None:
    await add_agent(store)
    large = "x" * 1024 * 1024
    for _ in range(60):
        await deployed(store, "web", LONG_AGO)
    sql(database, "UPDATE job SET logs = ?", large)
    ids = sql(database, "SELECT id FROM deployment ORDER BY id")[:-1]
    swept = await store.write(retention.remove_deployments, retention.Sweep(ids, NOW))
    assert 0 < swept.dealt_with < len(ids)
    assert swept.removed["deployments"] == swept.dealt_with


async def test_a_run_ends_when_its_time_is_up_and_the_next_goes_on(store: Store) -> None:
    await add_agent(store)
    for _ in range(30):
        await deployed(store, "web", LONG_AGO)
    assert not await remove_old(store, retention_days=DAYS, seconds=0)
    assert (await remove_old(store, retention_days=DAYS))["deployments"] == 29


async def test_a_deploy_of_a_compose_file_that_is_just_removed_finds_it_there(store: Store, database: Path) -> None:
    await add_agent(store)
    for n in range(40):
        file = f"{n:064}"
        old = await deployed(store, "web", LONG_AGO, file=file)
        await deployed(store, "web", LONG_AGO, file="f" * 64)
        removal = store.write(retention.remove_deployments, retention.Sweep([old], NOW))
        deploy = store.write(accept_deployments, new_deployment("shop", compose_sha256=file))
        # Both orders, in one commit and in two.
        both = [removal, deploy] if n % 2 else [deploy, removal]
        if n % 4 < 2:
            await asyncio.gather(*both)
        else:
            for each in both:
                await each
        assert sql(database, "SELECT sha256 FROM compose_file WHERE sha256 = ?", file) == [file]
        assert sql(database, "SELECT id FROM deployment WHERE id = ?", old) == []
    assert_sound(database)


async def test_a_proposal_that_was_overtaken_removes_nothing(store: Store, database: Path) -> None:
    await add_agent(store)
    first = await deployed(store, "web", LONG_AGO)
    await deployed(store, "web", LONG_AGO)
    page = await store.read(retention.list_old_deployments, NOW - timedelta(days=DAYS), None)
    assert page.keys == [first]
    # As a stop does, on a project whose current deployment it reads before it is stored.
    await asked(store, "web", first, NOW)
    swept = await store.write(retention.remove_deployments, retention.Sweep(page.keys, NOW - timedelta(days=DAYS)))
    assert swept.removed == {}
    assert sql(database, "SELECT id FROM deployment WHERE id = ?", first) == [first]


async def test_the_file_becomes_shorter_when_much_of_it_was_removed(store: Store, database: Path) -> None:
    await fill_and_remove(store, database)
    await store.close()
    freed, pages = pages_of(database)
    assert pages < 200
    assert freed <= 110, "a tenth of what it was"


async def test_a_database_that_cannot_become_shorter_keeps_its_size_and_uses_it_again(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE made_by_an_older_program (id)")
    connection.close()
    store = open_store(database)
    removed = await fill_and_remove(store, database)
    assert "pages" not in removed
    await store.close()
    freed, pages = pages_of(database)
    assert freed > pages // 2


async def fill_and_remove(store: Store, database: Path) -> Any:
    await add_agent(store)
    for n in range(40):
        await deployed(store, "web", LONG_AGO, file=f"{n:064}")
    await store.write(_lengthen_logs, None)
    assert pages_of(database)[1] > 900
    return await remove_old(store, retention_days=DAYS)


def _lengthen_logs(db: Connection, items: Any) -> list[None]:
    db.exec_driver_sql("UPDATE job SET logs = ? WHERE rowid < 40", ("x" * 100_000,))
    return [None for _ in items]


def pages_of(database: Path) -> tuple[int, int]:
    """Return how many pages are free, and how many there are."""
    return sql(database, "PRAGMA freelist_count")[0], sql(database, "PRAGMA page_count")[0]
