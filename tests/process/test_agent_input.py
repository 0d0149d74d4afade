"""What the real agent reads, refuses and survives: frames, project names, Compose files and their directories.

Whatever a command holds, it is answered, nothing is written outside its project's directory, and the next one runs.
"""

import os

import pytest

from tests.support.agent_harness import AgentProcess
from tests.support.control_plane_stand_in import Link, is_final
from tests.support.docker_stand_in import StandInDocker


@pytest.mark.parametrize(
    ("frame", "job_id", "reason"),
    [
        ("{", "unknown", "Invalid JSON"),
        ("[]", "unknown", "object"),
        ('{"type": "STATUS", "payload": {}}', "unknown", "id"),
        ('{"id": "b1", "type": "REBOOT", "payload": {}}', "b1", "type"),
        ('{"id": "b2", "type": "STATUS"}', "b2", "payload"),
        (b"\xff\xfe", "unknown", "Invalid command format"),
    ],
)
async def test_a_command_that_cannot_be_read_is_answered_and_survived(
    link: Link, frame: str | bytes, job_id: str, reason: str
) -> None:
    await link.socket.send(frame)
    answer = await link.wait_for(is_final)
    assert (answer["job_id"], answer["status"]) == (job_id, "FAILED")
    assert answer["error"].startswith("Invalid command format: ")
    assert reason in answer["error"]
    await link.send("h1", "HEALTH_CHECK")
    assert (await link.final("h1"))["status"] == "COMPLETED"


@pytest.mark.parametrize("name", ["../evil", "a/b", "web\n", "", "__", "wéb", None, 7])
async def test_a_project_name_that_leads_elsewhere_is_refused(
    link: Link, agent: AgentProcess, docker: StandInDocker, name: object
) -> None:
    before = sorted(agent.directory.iterdir())
    await link.send("j1", "DEPLOY_COMPOSE", project_name=name, compose_file_base64="eDoge30K")
    refused = await link.final("j1")
    assert refused["status"] == "FAILED"
    assert "project_name" in refused["error"]
    assert os.listdir(agent.projects) == [".instadeploy"]
    assert sorted(agent.directory.iterdir()) == before
    assert docker.calls("up") == []


@pytest.mark.parametrize("encoded", ["%%%", "eDoge30", "eDoge30K=", None, 1])
async def test_a_compose_file_that_is_not_base64_is_refused(link: Link, encoded: object) -> None:
    await link.send("j1", "DEPLOY_COMPOSE", project_name="web", compose_file_base64=encoded)
    refused = await link.final("j1")
    assert refused["status"] == "FAILED"
    assert "compose_file_base64" in refused["error"]


async def test_line_breaks_in_base64_are_accepted(link: Link, agent: AgentProcess) -> None:
    await link.send("j1", "DEPLOY_COMPOSE", project_name="web", compose_file_base64="c2Vydmlj\r\nZXM6IHt9\nCg==")
    assert (await link.final("j1"))["status"] == "COMPLETED"
    assert (agent.projects / "web" / "docker-compose.yml").read_text() == "services: {}\n"


async def test_a_project_directory_that_cannot_be_written_is_named(link: Link, agent: AgentProcess) -> None:
    (agent.projects / "web").mkdir()
    (agent.projects / "web" / "docker-compose.yml").mkdir()
    await link.deploy("j1")
    assert "docker-compose.yml" in (await link.final("j1"))["error"]
    elsewhere = agent.directory / "elsewhere"
    elsewhere.mkdir()
    (agent.projects / "linked").symlink_to(elsewhere)
    await link.deploy("j2", "linked")
    assert "symbolic link" in (await link.final("j2"))["error"]
    assert not list(elsewhere.iterdir())
