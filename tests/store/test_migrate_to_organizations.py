"""A database of the release before organisations comes up with all that it had, in the organisation `default`."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config

from control_plane.core.access import DEFAULT_REACH, Reach
from control_plane.core.startup import StartupError
from control_plane.store import agents, deployments, events, jobs, placements
from control_plane.store.database import open_engine
from control_plane.store.events import WantedEvents
from control_plane.store.idempotency import KeyedRequest, judge_requests
from control_plane.store.inspection import find_broken_references, find_contradictions
from control_plane.store.migrate import SCRIPTS, migrate
from tests.support.store import NOW, add_agent, deploy, new_deployment, open_store, sql

AT = "2026-01-02 03:04:05.678901+00:00"
AGENT, GONE_AGENT, DEPLOYMENT, GONE_DEPLOYMENT, EVENT, GONE_EVENT = 7, 12, 30, 41, 50, 66
"""Ids in the old database; the ones that are gone are the last that their counters gave."""
JOB = "01a209fb-c730-735a-bcc1-eea7d4ab715a"
TABLES = ("agent", "compose_file", "deployment", "placement", "job", "job_log", "event", "idempotency_record")
OWNED = ("agent", "deployment", "placement", "job", "event", "idempotency_record")


def make_old(database: Path) -> None:
    """Make a database as revision 0002 left it, with a row in every table."""
    engine = open_engine(f"sqlite:///{database}", read_only=False, pool_size=1, foreign_keys=False)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()
    with closing(sqlite3.connect(database)) as db, db:
        for agent_id in (AGENT, GONE_AGENT):
            insert(
                db, "agent", id=agent_id, hostname=f"web-{agent_id}", ip_address="192.0.2.1", status="online",
                last_seen=AT, version="1", architecture="a", created_at=AT, capabilities="", instance="",
                connection_id="c", health='{"latency_seconds": 0.5}', health_at=AT, missed_checks=2,
            )  # fmt: skip
        insert(db, "compose_file", sha256="f", content=b"services: {}", created_at=AT)
        for deployment_id in (DEPLOYMENT, GONE_DEPLOYMENT):
            insert(
                db, "deployment", id=deployment_id, project_name="web", agent_id=AGENT, status="running",
                compose_file_hash="f", created_at=AT, updated_at=AT, last_logs="up", last_error=None,
            )  # fmt: skip
        insert(
            db, "placement", project_name="web", agent_id=AGENT, folded_name="web", released=0,
            latest_deployment_id=DEPLOYMENT, current_deployment_id=DEPLOYMENT, updated_at=AT,
        )  # fmt: skip
        insert(
            db, "job", id=JOB, deployment_id=DEPLOYMENT, agent_id=AGENT, project_name="web",
            command_type="STATUS", status="in_progress", reason=None, logs="", error=None, data='{"a": 1}',
            attempt=1, timeout_seconds=60, created_at=AT, updated_at=AT, deadline_at=AT, sent_at=AT,
            sent_instance="i", finished_at=None,
        )  # fmt: skip
        insert(db, "job_log", job_id=JOB, position=0, text="piece")
        for event_id in (EVENT, GONE_EVENT):
            insert(
                db, "event", id=event_id, at=AT, kind="deploy_completed", agent_id=AGENT, project_name="web",
                deployment_id=DEPLOYMENT, job_id=JOB, message="m", details=None,
            )  # fmt: skip
        insert(db, "idempotency_record", key="k", request_hash="h", job_id=JOB, answer='{"a": 1}', created_at=AT)
        for table, gone in (("agent", GONE_AGENT), ("deployment", GONE_DEPLOYMENT), ("event", GONE_EVENT)):
            db.execute(f"DELETE FROM {table} WHERE id = ?", (gone,))  # noqa: S608


def insert(db: sqlite3.Connection, table: str, **values: Any) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608


def rows(database: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(database)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608


def test_every_row_is_there_as_it_was_and_belongs_to_the_default_organisation(database: Path) -> None:
    make_old(database)
    before = {table: rows(database, table) for table in TABLES}
    assert all(before.values())
    migrate(f"sqlite:///{database}")
    for table in TABLES:
        [old], [new] = before[table], rows(database, table)
        assert new | old == new, table
        assert new.get("organization_id") == (1 if table in OWNED else None), table
    assert sql(database, "SELECT id, name FROM organization") == [(1, "default")]
    [agent] = rows(database, "agent")
    assert (agent["cordoned"], agent["bound"], agent["forgotten_at"]) == (0, 0, None)


def test_references_are_whole_and_nothing_contradicts_itself(database: Path) -> None:
    make_old(database)
    with closing(sqlite3.connect(database)) as db:
        before = [each.what for each in find_contradictions(db)]
    migrate(f"sqlite:///{database}")
    with closing(sqlite3.connect(database)) as db:
        assert find_broken_references(db) == []
        assert [each.what for each in find_contradictions(db)] == before
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_no_id_is_given_twice_afterwards(database: Path) -> None:
    make_old(database)
    store = open_store(database)
    assert await add_agent(store, "new") > GONE_AGENT
    _, deployment_id = await deploy(store, "new", AGENT)
    assert deployment_id > GONE_DEPLOYMENT
    assert sql(database, "SELECT min(id) FROM event WHERE kind = 'agent_connected'")[0] > GONE_EVENT
    await store.close()


async def test_it_is_found_by_the_first_organisation_and_by_no_other(database: Path) -> None:
    make_old(database)
    store = open_store(database)
    where: dict[str, Any] = {
        "project_name": "web", "agent_id": AGENT, "status": None, "before_id": None, "limit": 9,
    }  # fmt: skip
    for reach, count in ((DEFAULT_REACH, 1), (Reach(2), 0)):
        listed, total = await store.read(agents.list_agents, reach, status=None, labels=(), after_id=0, limit=9)
        assert (len(listed), total) == (count, count)
        assert len(await store.read(deployments.list_deployments, reach, **where)) == count
        assert len(await store.read(jobs.list_jobs, reach, **where)) == count
        assert len((await store.read(placements.list_projects, reach, after=None, limit=9))[0]) == count
        assert len(await store.read(events.list_events, WantedEvents(reach, 9))) == count
    job = await store.read(jobs.get_job, DEFAULT_REACH, JOB)
    assert (job.logs, job.data) == ("piece", {"a": 1})
    for organization_id, count in ((1, 1), (2, 0)):
        asked = KeyedRequest(organization_id, "k", "h")
        assert len(await store.read(judge_requests, [asked], NOW)) == count
    await store.close()


async def test_the_same_agent_comes_back_and_its_project_is_where_it_was(database: Path) -> None:
    make_old(database)
    store = open_store(database)
    assert await add_agent(store, f"web-{AGENT}") == AGENT
    new = new_deployment("web", AGENT)
    await store.write(deployments.accept_deployments, new)
    [place] = await store.read(placements.find_places, DEFAULT_REACH, "web")
    assert (place.agent_id, place.current_deployment_id) == (AGENT, DEPLOYMENT)
    await store.close()


async def test_where_all_agents_are_gone_their_ids_are_not_given_again_either(database: Path) -> None:
    make_old(database)
    with closing(sqlite3.connect(database)) as db, db:
        for table in ("job_log", "job", "placement", "deployment", "agent"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
    store = open_store(database)
    assert await add_agent(store) > GONE_AGENT
    await store.close()


def test_a_database_with_broken_references_is_refused_in_one_line_and_left_as_it_is(database: Path) -> None:
    make_old(database)
    sql(database, "DELETE FROM compose_file")
    before = {table: rows(database, table) for table in TABLES}
    with pytest.raises(StartupError) as refused:
        migrate(f"sqlite:///{database}")
    assert str(refused.value) == (
        f"The database {database} has rows in 'deployment' that refer to a compose_file that is not there: "
        "look at it with `python run.py check`, and restore a backup."
    )
    assert {table: rows(database, table) for table in TABLES} == before
    assert sql(database, "SELECT version_num FROM alembic_version") == ["0002"]
