"""What `check` finds: damage, broken references, wrong schemas, and every kind of rows that contradict each other."""

import hashlib
import os
from pathlib import Path

import pytest

from control_plane.commands.check import check
from control_plane.core.protocol import CommandType
from control_plane.store.answers import record_answers
from control_plane.store.audit import note_entries
from control_plane.store.deployments import accept_deployments
from control_plane.store.jobs import add_jobs
from control_plane.store.migrate import known_revisions
from control_plane.store.store import Store
from tests.support.audit import entry
from tests.support.commands import seen
from tests.support.store import (
    add_agent,
    claim,
    completed,
    failed,
    new_deployment,
    new_job,
    open_store,
    progress,
    sql,
)

SOURCE = b"services: {}"


async def grown(database: Path) -> None:
    """Make a database with deployments and jobs in every state."""
    store = open_store(database)
    await add_agent(store)
    for project, answers in (("web", "cc"), ("shop", "cf"), ("blog", "c"), ("wiki", "p"), ("queued", "")):
        await _deployed(store, project, answers or "-")
    stop = new_job(CommandType.STOP_COMPOSE, "blog", deployment_id=5)
    await store.write(add_jobs, stop)
    await claim(store, stop.job_id)
    await store.write(record_answers, completed(stop.job_id))
    for number in range(3):
        await store.write(note_entries, None, entry(about=f"project p{number}", outcome="not_allowed"))
    await store.close()


async def _deployed(store: Store, project: str, answers: str) -> None:
    for answer in answers:
        new = new_deployment(project, compose_sha256=hashlib.sha256(SOURCE).hexdigest(), compose_source=SOURCE)
        await store.write(accept_deployments, new)
        if answer == "-":
            return
        await claim(store, new.job_id)
        for line in ("Pulling\n", "Creating\n"):
            await store.write(record_answers, progress(new.job_id, line))
        if answer in "cf":
            await store.write(record_answers, (completed if answer == "c" else failed)(new.job_id))


def checked(database: Path, capsys: pytest.CaptureFixture[str], *, well: bool) -> str:
    assert check(database, None) is well
    return capsys.readouterr().out


async def test_a_database_in_use_with_everything_under_way_is_well(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await grown(database)
    store = open_store(database)
    said = checked(database, capsys, well=True)
    await store.close()
    assert "7 deployments, 8 jobs" in said
    assert f"schema      {known_revisions()[0]}, up to date" in said
    assert said.count(" ok\n") == 3
    [last] = sql(database, "SELECT hash FROM audit WHERE id = 3")
    assert f"audit       ok, 3 entries, the last with the hash {last}\n" in said
    assert not [name for name in os.listdir(database.parent) if name.endswith(("-wal", "-shm"))]


BREAKS = [
    ("DELETE FROM job WHERE project_name = 'queued'", "1 pending deployments without a job that is under way (7): "),
    (
        "UPDATE job SET status = 'failed', finished_at = '2026' WHERE project_name = 'queued'",
        "1 pending deployments without a job that is under way (7): ",
    ),
    ("UPDATE deployment SET status = 'failed' WHERE id = 7", "1 deploys under way whose deployment is over ("),
    (
        "UPDATE placement SET latest_deployment_id = 99 WHERE project_name = 'web'",
        "deployment is not there (web)",
    ),
    (
        "UPDATE placement SET latest_deployment_id = 1 WHERE project_name = 'shop'",
        "deployment is not there (shop)",
    ),
    ("UPDATE placement SET current_deployment_id = 1 WHERE project_name = 'web'", "not one of theirs that runs (web)"),
    (
        "UPDATE placement SET current_deployment_id = NULL WHERE project_name = 'web'",
        "1 running deployments that",
    ),
    ("UPDATE deployment SET status = 'running' WHERE id = 1", "1 running deployments that are not the current one of"),
    ("DELETE FROM placement WHERE project_name = 'web'", "deployments whose project is nowhere (1, 2): "),
    (
        "INSERT INTO job_log SELECT id, 0, 'x' FROM job WHERE project_name = 'blog'",
        "2 finished jobs with pieces",
    ),
    ("UPDATE job SET finished_at = NULL WHERE status = 'completed'", "5 finished jobs without the time of their end"),
    (
        "UPDATE compose_file SET content = 'services: {evil: {}}'",
        "1 Compose files that are not what",
    ),
    ("DELETE FROM job WHERE project_name = 'wiki'", "1 of job_log refer to a job that is not there: restore a backup"),
    ("DELETE FROM agent", "7 of deployment refer to a agent that is not there: restore a backup"),
    (
        "UPDATE alembic_version SET version_num = '9999'",
        "revision 9999 is of a newer control plane",
    ),
    (
        "UPDATE audit SET actor = 'somebody else' WHERE id = 2",
        "row 2 is not what its hash says: what the audit says from there on may be forged; compare it with an export",
    ),
    (
        "DELETE FROM audit WHERE id = 2",
        "audit       NOT WELL\n    - row 2 is missing: what the audit says from there on",
    ),
    ("DROP TABLE alembic_version", "this is not a control plane's database"),
]


@pytest.mark.parametrize(("break_it", "line"), BREAKS)
async def test_what_is_wrong_is_named_with_its_rows(
    database: Path, capsys: pytest.CaptureFixture[str], break_it: str, line: str
) -> None:
    await grown(database)
    sql(database, break_it)
    said = checked(database, capsys, well=False)
    assert "NOT WELL" in said
    assert line in said


async def test_many_rows_are_counted_and_the_first_named(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await grown(database)
    sql(database, "UPDATE deployment SET status = 'pending'")
    assert "5 pending deployments without a job that is under way (1, 2, 3, …): " in checked(
        database, capsys, well=False
    )


async def test_damage_is_told_and_nothing_else_is_believed(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await grown(database)
    sql(database, "PRAGMA journal_mode=DELETE")
    with database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 8)
    said = checked(database, capsys, well=False)
    assert ": restore a backup" in said
    assert "integrity   NOT WELL" in said
    assert "rows" not in said


async def test_a_check_changes_nothing(database: Path) -> None:
    await grown(database)
    sql(database, "PRAGMA journal_mode=DELETE")
    before = seen(database.parent)
    assert check(database, database)
    assert check(database, None)
    assert seen(database.parent) == before
