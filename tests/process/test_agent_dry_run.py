"""The real agent in dry run, with the real Compose binary and no Docker engine."""

import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_harness import AgentProcess, Stage, set_stage
from tests.support.control_plane_stand_in import WEB, Link

COMPOSE = shutil.which("docker-compose", path=str(Path(sys.executable).parent)) or shutil.which("docker-compose")
needs_compose = pytest.mark.skipif(COMPOSE is None, reason="no docker-compose binary is installed")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with set_stage(tmp_path) as ready:
        (ready.docker.path / "docker").unlink()
        if COMPOSE:
            (ready.docker.path / "docker-compose").symlink_to(COMPOSE)
        yield ready


@pytest.fixture
async def link(stage: Stage) -> Link:
    await stage.agent.start("--dry-run")
    return await stage.control_plane.link()


@needs_compose
async def test_a_valid_file_is_checked_by_compose_and_nothing_is_started(link: Link, agent: AgentProcess) -> None:
    assert link.headers["X-Agent-Capabilities"].split() == ["resend", "status-json", "dry-run"]
    await link.deploy("j1")
    final = await link.final("j1")
    assert (final["status"], final["logs"]) == (
        "COMPLETED",
        "Dry run: the Compose file is valid; nothing was started.\n",
    )
    assert (agent.projects / "web" / "docker-compose.yml").read_text() == WEB


@needs_compose
async def test_a_file_that_compose_refuses_fails_with_what_compose_says(link: Link) -> None:
    await link.deploy("j1", compose_file="services:\n  web:\n    imag: typo\n")
    final = await link.final("j1")
    assert final["status"] == "FAILED"
    assert "services.web" in final["error"]
    assert "`docker-compose config -q` failed (exit status " in final["error"]
    assert final["logs"].endswith("Dry run: the Compose file is not valid; nothing was started.\n")


@needs_compose
async def test_stop_and_status_say_that_nothing_runs(link: Link) -> None:
    await link.deploy("j1")
    await link.final("j1")
    await link.send("q1", "STATUS", project_name="web")
    status = await link.final("q1")
    assert (status["status"], status["data"]) == ("COMPLETED", [])
    assert status["logs"].startswith("Dry run: ")
    await link.send("s1", "STOP_COMPOSE", project_name="web")
    stopped = await link.final("s1")
    assert stopped["status"] == "COMPLETED"
    assert stopped["logs"].startswith("Dry run: `docker compose down` would ")
    await link.send("s2", "STOP_COMPOSE", project_name="never-deployed")
    assert (await link.final("s2"))["error"] == "project does not exist"


@needs_compose
async def test_health_check_tells_dry_run_and_the_compose_version(link: Link) -> None:
    await link.send("h1", "HEALTH_CHECK")
    data = (await link.final("h1"))["data"]
    assert data["dry_run"] is True
    assert data["compose_version"][0].isdigit()
    assert data["docker_version"] is None


async def test_without_any_compose_a_dry_run_fails_and_claims_nothing(stage: Stage) -> None:
    (stage.docker.path / "docker-compose").unlink(missing_ok=True)
    await stage.agent.start("--dry-run")
    link = await stage.control_plane.link()
    await link.deploy("j1")
    final = await link.final("j1")
    assert final["status"] == "FAILED"
    assert final["error"].startswith("Docker is not installed on this host")
    assert "valid" not in final["logs"]
