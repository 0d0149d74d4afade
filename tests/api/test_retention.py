"""What users see of retention: what is long over is gone, what runs stays with its job and log."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from structlog.testing import capture_logs
from uuid_utils import uuid7

from control_plane.loops import retention
from tests.api.conftest import OpenSite
from tests.support.app import Answer, Site
from tests.support.store import sql

AGO = timedelta(days=3)


def old_id() -> str:
    return str(uuid7(nanoseconds=time.time_ns() - int(AGO.total_seconds()) * 10**9))


def age(database: Path) -> None:
    """Have all that has happened so far happened three days ago."""
    at = (datetime.now(UTC) - AGO).isoformat(" ", "microseconds")
    sql(database, "UPDATE deployment SET created_at = ?, updated_at = ?", at, at)
    sql(database, "UPDATE job SET created_at = ?, updated_at = ?, finished_at = ?", at, at, at)
    for job in sql(database, "SELECT id FROM job ORDER BY id"):
        sql(database, "UPDATE job SET id = ? WHERE id = ?", old_id(), job)
    sql(database, "UPDATE event SET at = ?", at)


async def two_deploys_of_long_ago(site: Site, database: Path) -> list[Answer]:
    await site.agent()
    deploys = [await site.deploy("web") for _ in range(2)]
    age(database)
    return deploys


async def test_what_was_replaced_long_ago_is_gone_and_what_runs_is_whole(open_site: OpenSite, tmp_path: Path) -> None:
    site = await open_site(retention_days=2)
    first, current = await two_deploys_of_long_ago(site, tmp_path / "control_plane.db")
    with capture_logs() as logs:
        await retention.run_once(site.plane)
    (told,) = [entry for entry in logs if entry["event"] == "old_rows_removed"]
    assert (told["deployments"], told["jobs"]) == (1, 1)
    assert (await site.client.get(f"/deployments/{first['deployment_id']}")).status_code == 404
    (project,) = (await site.get("/projects"))["projects"]
    (place,) = project["agents"]
    assert place["current"]["id"] == current["deployment_id"]
    (job,) = (await site.get("/jobs"))["jobs"]
    assert (await site.get(f"/jobs/{job['id']}"))["logs"] == current["logs"]
    assert (await site.deploy("web"))["status"] == "completed"


async def test_with_zero_days_everything_stays(open_site: OpenSite, tmp_path: Path) -> None:
    site = await open_site(retention_days=0)
    await two_deploys_of_long_ago(site, tmp_path / "control_plane.db")
    before = await site.stored()
    with capture_logs() as logs:
        await retention.run_once(site.plane)
    assert await site.stored() == before
    assert [entry for entry in logs if entry["event"] == "old_rows_removed"] == []


async def test_it_runs_by_itself_some_minutes_after_the_start(site: Site) -> None:
    supervisor = site.app.state.supervisor
    assert "retention" in {age.loop for age in supervisor.ages()}
    assert supervisor.stale_loops() == []
    assert 60 <= retention.FIRST_AFTER_SECONDS <= 600
