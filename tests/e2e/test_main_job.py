"""The main job on a real engine: deploy, change, status, stop, and failures told truthfully."""

import re
import socket
from pathlib import Path

import httpx
import pytest

from examples import engine
from tests.e2e import stacks
from tests.e2e.agent_process import AgentProcess
from tests.support.docker import Events
from tests.support.server import ServerProcess

pytestmark = pytest.mark.docker


async def test_a_deploy_starts_a_container_whose_page_can_be_fetched(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str, events: Events
) -> None:
    job = await stacks.deploy(api, project, stacks.web(web_image, "first page"))

    assert job["status"] == "completed", job
    assert re.search(rf"Container {project}-web-1\s+Started", job["logs"])
    assert (await stacks.deployment(api, job["deployment_id"]))["status"] == "running"
    assert await stacks.fetch_page(api, project, events) == "first page"


async def test_a_changed_file_replaces_the_page_and_supersedes_the_deployment_before(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str, events: Events
) -> None:
    first = await stacks.deploy(api, project, stacks.web(web_image, "first page"))
    assert await stacks.fetch_page(api, project, events) == "first page"

    changed = stacks.now()
    second = await stacks.deploy(api, project, stacks.web(web_image, "second page"))

    assert await stacks.fetch_page(api, project, events, since=changed) == "second page"
    assert (await stacks.deployment(api, first["deployment_id"]))["status"] == "superseded"
    assert (await stacks.deployment(api, second["deployment_id"]))["status"] == "running"


async def test_what_the_warning_of_inline_configs_says_is_what_compose_does(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str, events: Events
) -> None:
    """When this fails because the second page is there, Compose has learned to notice, and the warning can go."""
    first = await stacks.deploy(api, project, stacks.configured(web_image, "page", "first page"))
    assert [warning.partition(":")[0] for warning in first["warnings"]] == ["configs.page.content"]
    assert await stacks.fetch_page(api, project, events) == "first page"

    assert (await stacks.deploy(api, project, stacks.configured(web_image, "page", "unseen")))["status"] == "completed"
    assert await stacks.fetch_page(api, project, events) == "first page"

    renamed = stacks.now()
    await stacks.deploy(api, project, stacks.configured(web_image, "page_2", "second page"))
    assert await stacks.fetch_page(api, project, events, since=renamed) == "second page"


async def test_status_lists_the_running_container_and_its_table(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str
) -> None:
    await stacks.deploy(api, project, stacks.web(web_image, "page"))

    answer = await stacks.status(api, project)

    assert answer["status"] == "completed"
    assert [(row["Name"], row["State"]) for row in answer["data"]] == [(f"{project}-web-1", "running")]
    assert f"{project}-web-1" in answer["logs"]


async def test_stop_removes_container_and_network_and_ends_the_deployment(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str
) -> None:
    deployed = await stacks.deploy(api, project, stacks.web(web_image, "page"))
    assert engine.containers(project) == [f"{project}-web-1"]

    job = await stacks.stop(api, project)

    assert job["status"] == "completed", job
    assert [engine.containers(project), engine.networks(project)] == [[], []]
    assert (await stacks.deployment(api, deployed["deployment_id"]))["status"] == "stopped"
    assert (await stacks.status(api, project))["data"] == []


async def test_an_image_that_cannot_be_had_fails_the_deploy_and_leaves_the_one_before_running(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str, events: Events
) -> None:
    good = await stacks.deploy(api, project, stacks.web(web_image, "still here"))

    # Nobody listens on port 1: the pull fails at once, with or without a network.
    bad = await stacks.deploy(api, project, stacks.web("127.0.0.1:1/missing-image:1", "never seen"))

    assert (bad["status"], bad["reason"]) == ("failed", "agent_error")
    assert "missing-image" in bad["error"]
    failed = await stacks.deployment(api, bad["deployment_id"])
    assert failed["status"] == "failed"
    assert "missing-image" in failed["last_error"]
    assert (await stacks.deployment(api, good["deployment_id"]))["status"] == "running"
    assert await stacks.fetch_page(api, project, events) == "still here"


async def test_a_port_that_another_program_has_fails_the_deploy_and_is_named(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        job = await stacks.deploy(api, project, stacks.web(web_image, "page", port=str(port)))

    assert (job["status"], job["reason"]) == ("failed", "agent_error")
    assert str(port) in job["error"]
    assert (await stacks.deployment(api, job["deployment_id"]))["status"] == "failed"


async def test_a_dry_run_agent_checks_the_file_and_starts_nothing(
    server: ServerProcess, api: httpx.AsyncClient, project: str, web_image: str, tmp_path: Path
) -> None:
    async with AgentProcess(server, tmp_path / "projects", "--dry-run"):
        good = await stacks.deploy(api, project, stacks.web(web_image, "page"))
        bad = await stacks.deploy(api, project, stacks.web(web_image, "page", env_file="nowhere.env"))

    assert good["status"] == "completed"
    assert "nothing was started" in good["logs"]
    assert bad["status"] == "failed"
    assert "nowhere.env" in bad["error"]
    assert engine.containers(project) == []
