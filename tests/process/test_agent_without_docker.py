"""What the real agent says and still does where Docker, its daemon or its Compose plugin is missing."""

from tests.support.agent_harness import AgentProcess
from tests.support.control_plane_stand_in import ControlPlaneStandIn, Link
from tests.support.docker_stand_in import StandInDocker


async def test_a_daemon_that_is_down_is_named_with_what_to_do(link: Link, docker: StandInDocker) -> None:
    unreachable = "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1"
    for verb in ("up", "ps", "engine-version"):
        docker.on(verb, unreachable)
    await link.deploy("j1")
    await link.send("h1", "HEALTH_CHECK")
    deployed = await link.final("j1")
    assert deployed["status"] == "FAILED"
    assert "systemctl start docker" in deployed["error"]
    await link.send("q1", "STATUS", project_name="web")
    asked = await link.final("q1")
    assert asked["status"] == "FAILED"
    assert "systemctl start docker" in asked["error"]
    health = (await link.final("h1"))["data"]
    assert health["docker_version"] is None
    assert health["compose_version"] == "5.6.1"
    assert "systemctl start docker" in health["docker_error"]


async def test_without_docker_every_command_is_answered_and_the_agent_stays_up(
    agent: AgentProcess, control_plane: ControlPlaneStandIn, docker: StandInDocker
) -> None:
    program = (docker.path / "docker").rename(docker.home / "docker-elsewhere")
    await agent.start()
    link = await control_plane.link()
    await link.deploy("j1")
    refused = await link.final("j1")
    assert refused["status"] == "FAILED"
    assert refused["error"] == (
        "Docker is not installed on this host or not on the agent's PATH: install Docker Engine with the Compose "
        "plugin, then deploy again."
    )
    await link.send("h1", "HEALTH_CHECK")
    data = (await link.final("h1"))["data"]
    assert (data["docker_version"], data["compose_version"]) == (None, None)
    assert data["docker_error"] == refused["error"]
    program.rename(docker.path / "docker")
    await link.deploy("j2")
    assert (await link.final("j2"))["status"] == "COMPLETED"


async def test_docker_without_its_compose_plugin_is_named_and_a_standalone_compose_is_used_instead(
    link: Link, docker: StandInDocker
) -> None:
    docker.on("version", 'echo "docker: unknown command: docker compose" >&2; exit 1')
    await link.deploy("j1")
    assert (await link.final("j1"))["error"].startswith("Docker Compose is not installed on this host")
    standalone = docker.path / "docker-compose"
    standalone.write_text('#!/bin/sh\necho "standalone $*"\n')
    standalone.chmod(0o755)
    await link.deploy("j2")
    assert (await link.final("j2"))["logs"] == "standalone up -d\n"


async def test_docker_removed_after_a_deploy_is_noticed(link: Link, docker: StandInDocker) -> None:
    await link.deploy("j1")
    await link.final("j1")
    (docker.path / "docker").unlink()
    await link.deploy("j2")
    assert (await link.final("j2"))["error"].startswith("Docker is not installed on this host")
