"""What the real agent does with each command, over a real socket, with a stand-in for Docker's program."""

import asyncio
import os
import stat

import pytest

from tests.support.agent_harness import TOKEN, AgentProcess
from tests.support.control_plane_stand_in import WEB, ControlPlaneStandIn, Link, is_final
from tests.support.docker_stand_in import StandInDocker

ACKNOWLEDGED = "Command received, processing..."


async def test_handshake_names_the_agent_and_what_it_can_do(link: Link) -> None:
    assert link.headers["Authorization"] == f"Bearer {TOKEN}"
    assert link.headers["X-Agent-Version"] == "1.0.0"
    assert link.headers["X-Agent-Architecture"].startswith("linux-")
    assert link.headers["X-Agent-Hostname"] == "host-a"
    assert link.headers["X-Agent-Capabilities"].split() == ["resend", "status-json"]
    assert len(link.headers["X-Agent-Instance"]) == 32
    assert "Sec-WebSocket-Extensions" not in link.headers
    assert "Origin" not in link.headers


async def test_a_deploy_is_acknowledged_then_run_in_its_directory_then_answered(
    link: Link, docker: StandInDocker, agent: AgentProcess
) -> None:
    docker.on("up", "echo Container web-1 Started; echo on stderr >&2")
    await link.deploy("j1")
    final = await link.final("j1")
    assert link.of("j1")[0] == {"job_id": "j1", "status": "IN_PROGRESS", "logs": ACKNOWLEDGED}
    assert final == {
        "job_id": "j1",
        "status": "COMPLETED",
        "logs": "Container web-1 Started\non stderr\n",
        "whole_log": True,
    }
    assert docker.calls("up") == [("up", "web", "compose up -d")]
    file = agent.projects / "web" / "docker-compose.yml"
    assert file.read_text() == WEB
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(os.listdir(file.parent)) == ["docker-compose.yml"]


async def test_a_failed_deploy_says_exit_status_and_last_line_and_keeps_the_whole_output(
    link: Link, docker: StandInDocker
) -> None:
    docker.on("up", "echo web Pulling; echo; echo 'Error response from daemon: manifest unknown'; echo; exit 18")
    await link.deploy("j1")
    final = await link.final("j1")
    assert final["status"] == "FAILED"
    assert final["error"] == (
        "`docker compose up -d` failed (exit status 18): Error response from daemon: manifest unknown"
    )
    assert final["logs"] == "web Pulling\n\nError response from daemon: manifest unknown\n\n"


async def test_output_is_streamed_while_the_command_runs(link: Link, docker: StandInDocker) -> None:
    gate = docker.fifo("gate")
    docker.on("up", f"echo first line; read go < {gate.path}; echo last line")
    await link.deploy("j1")
    streamed = await link.log("j1", "first line")
    assert streamed["status"] == "IN_PROGRESS"
    gate.release()
    assert (await link.final("j1"))["logs"] == "first line\nlast line\n"


async def test_a_flood_of_output_is_coalesced_streamed_four_times_a_second_and_cut_to_a_mebibyte(
    link: Link, docker: StandInDocker, agent: AgentProcess
) -> None:
    docker.on("up", "echo the beginning; timeout 2 yes 'much too much output'; echo; echo the end")
    await link.deploy("j1")
    final = await link.final("j1")
    frames = [at for frame, at in zip(link.frames, link.arrived_at, strict=True) if not is_final(frame)]
    seconds = frames[-1] - frames[0]
    assert 4 <= len(frames) <= 4 * seconds + 2
    assert all(len(frame["logs"].encode()) <= 64 * 1024 for frame in link.of("j1")[:-1])
    assert len(final["logs"].encode()) <= 1024 * 1024
    assert final["logs"].startswith("the beginning\nmuch too much output\n")
    assert final["logs"].endswith("\nthe end\n")
    assert "bytes are left out here] …" in final["logs"]
    assert agent.peak_memory_bytes() < 150 * 1024 * 1024


async def test_stop_runs_down_and_is_refused_for_an_unknown_project(link: Link, docker: StandInDocker) -> None:
    await link.send("s0", "STOP_COMPOSE", project_name="web")
    refused = await link.final("s0")
    assert (refused["status"], refused["error"]) == ("FAILED", "project does not exist")
    await link.deploy("j1")
    await link.final("j1")
    docker.on("down", "echo Container web-1 Removed")
    await link.send("s1", "STOP_COMPOSE", project_name="web")
    stopped = await link.final("s1")
    assert (stopped["status"], stopped["logs"]) == ("COMPLETED", "Container web-1 Removed\n")
    assert docker.calls("down") == [("down", "web", "compose down")]


async def test_status_answers_the_table_and_the_parsed_containers(link: Link, docker: StandInDocker) -> None:
    await link.send("q0", "STATUS", project_name="web")
    unknown = await link.final("q0")
    assert (unknown["status"], unknown["logs"]) == ("COMPLETED", "Project does not exist")
    await link.deploy("j1")
    await link.final("j1")
    await link.send("q1", "STATUS", project_name="web")
    answer = await link.final("q1")
    assert answer["status"] == "COMPLETED"
    assert answer["logs"] == "NAME IMAGE\nweb-1 example.invalid/web:1\n"
    assert [row["Name"] for row in answer["data"]] == ["web-1", "db-1"]
    assert sorted(call[2] for call in docker.calls("ps", "ps-json")) == [
        "compose ps",
        "compose ps --all --format json",
    ]


@pytest.mark.parametrize("listing", ["echo no json at all", "exit 1"])
async def test_status_still_answers_when_compose_cannot_list_containers_as_json(
    link: Link, docker: StandInDocker, listing: str
) -> None:
    docker.on("ps-json", listing)
    await link.deploy("j1")
    await link.final("j1")
    await link.send("q1", "STATUS", project_name="web")
    answer = await link.final("q1")
    assert answer["status"] == "COMPLETED"
    assert "data" not in answer


async def test_health_check_tells_versions_and_resources(link: Link) -> None:
    await link.send("h1", "HEALTH_CHECK")
    answer = await link.final("h1")
    data = answer["data"]
    assert (answer["status"], answer["logs"]) == ("COMPLETED", "")
    assert (data["version"], data["hostname"], data["dry_run"]) == ("1.0.0", "host-a", False)
    assert (data["docker_version"], data["compose_version"]) == ("28.2.2", "5.6.1")
    assert "docker_error" not in data
    assert 0 < data["disk_free_bytes"] <= data["disk_total_bytes"]
    assert 0 < data["memory_available_bytes"] <= data["memory_total_bytes"]
    assert len(data["load_average"]) == 3


async def test_the_token_and_misleading_variables_reach_no_child_and_no_log(
    agent: AgentProcess, control_plane: ControlPlaneStandIn, docker: StandInDocker
) -> None:
    docker.on("up", "env")
    agent.extra_environ = {"COMPOSE_FILE": "/elsewhere.yml", "COMPOSE_PROJECT_NAME": "other", "KEPT": "yes"}
    await agent.start("--log-level", "debug")
    link = await control_plane.link()
    await link.deploy("j1", compose_file=WEB + "# a-secret-in-the-file\n")
    seen = (await link.final("j1"))["logs"]
    await agent.stop()
    assert "KEPT=yes" in seen
    assert TOKEN not in seen
    assert "AGENT_SECRET_TOKEN" not in seen
    assert "COMPOSE_FILE" not in seen
    assert "COMPOSE_PROJECT_NAME" not in seen
    assert "j1" in agent.log()
    assert TOKEN not in agent.log()
    assert "a-secret-in-the-file" not in agent.log()


async def test_one_project_is_changed_by_one_command_at_a_time_in_order_and_status_passes(
    link: Link, docker: StandInDocker
) -> None:
    gate, changes = docker.fifo("gate"), docker.home / "changes"
    docker.on("up", f"echo up started; read go < {gate.path}; basename $PWD >> {changes}")
    docker.on("down", f"echo down >> {changes}")
    await link.deploy("j1", "web")
    await link.deploy("j2", "Web")
    await link.log("j1", "up started")
    await link.send("s3", "STOP_COMPOSE", project_name="web")
    await link.send("q4", "STATUS", project_name="web")
    await link.send("h5", "HEALTH_CHECK")
    await link.deploy("other", "db")
    await asyncio.gather(link.final("q4"), link.final("h5"), link.log("other", "up started"))
    assert [call[1] for call in docker.calls("up", "down")] == ["web", "db"]
    for _ in range(3):
        gate.release()
    await asyncio.gather(*(link.final(job) for job in ("j1", "j2", "s3", "other")))
    assert [line for line in changes.read_text().split() if line != "db"] == ["web", "Web", "down"]
    ends = [frame["job_id"] for frame in link.frames if is_final(frame) and frame["job_id"] in {"j1", "j2", "s3"}]
    assert ends == ["j1", "j2", "s3"]
    assert not any("Waiting for" in frame["logs"] for frame in link.frames)
