"""What the fake Go agent answers to commands and what it runs at once: each habit that other tests rely on."""

import base64

import pytest

from tests.support.bare_plane import COMPOSE, Plane, command
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome, decode_compose_file


async def test_a_deploy_is_acknowledged_then_completed(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        await connection.send(command("j1"))
        received = {"job_id": "j1", "status": "IN_PROGRESS", "logs": "Command received, processing..."}
        assert await plane.answers.get() == received
        done = await plane.answers.get()
        assert (done["job_id"], done["status"]) == ("j1", "COMPLETED")
        assert set(done) == {"job_id", "status", "logs"}
        assert agent.host.projects == {"web": base64.b64decode(COMPOSE)}


@pytest.mark.parametrize(
    ("kind", "project", "status", "said"),
    [
        ("STATUS", "nope", "COMPLETED", "Project does not exist"),
        ("STOP_COMPOSE", "nope", "FAILED", "project does not exist"),
        ("DEPLOY_COMPOSE", "web\n", "FAILED", "invalid project name"),
        ("DEPLOY_COMPOSE", "../etc", "FAILED", "invalid project name"),
        ("REBOOT", "web", "FAILED", "unknown command type"),
    ],
)
async def test_it_answers_by_its_rules(plane: Plane, kind: str, project: str, status: str, said: str) -> None:
    async with GoAgent(plane.url, "t", "web-1"):
        await (await plane.sockets.get()).send(command("j1", kind, project))
        answer = await plane.final()
        assert answer["status"] == status
        assert said in answer.get("error", "") + answer["logs"]


async def test_health_check_answers_with_data(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1", version="1.2.3"):
        await (await plane.sockets.get()).send('{"id": "h", "type": "HEALTH_CHECK", "payload": {}}')
        expected = {"version": "1.2.3", "architecture": "linux-amd64", "hostname": "web-1"}
        assert (await plane.final())["data"] == expected


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 1}', '{"id": "h", "type": "HEALTH_CHECK"}', "null"])
async def test_what_it_cannot_parse_is_answered_as_unknown(plane: Plane, text: str) -> None:
    async with GoAgent(plane.url, "t", "web-1"):
        await (await plane.sockets.get()).send(text)
        answer = await plane.answers.get()
        assert (answer["job_id"], answer["status"]) == ("unknown", "FAILED")


@pytest.mark.parametrize("text", ["YQ", "YQ=", "Y-Q=", "Y Q=", "YQ==x", "YQ==\t"])
def test_it_decodes_base64_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="illegal base64"):
        decode_compose_file(text)


def test_it_decodes_base64_with_line_breaks() -> None:
    assert decode_compose_file("YW\r\nJj\nZA==\n") == b"abcd"


async def test_a_command_sent_twice_runs_twice_at_once(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        agent.hold("web")
        connection = await plane.sockets.get()
        await connection.send(command("j1"))
        await plane.answers.get()
        await connection.send(command("j1"))
        await agent.received("j1", times=2)
        await agent.started(2)
        assert [run.job_id for run in agent.executions] == ["j1", "j1"]
        assert len(agent.overlaps()) == 1


async def test_projects_that_compose_folds_together_overlap_and_others_do_not(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        for job, project in enumerate(["web", "_Web", "api"], start=1):
            agent.hold(project)
            await connection.send(command(f"j{job}", project=project))
            await agent.started(job)
        assert [(a.project, b.project) for a, b in agent.overlaps()] == [("web", "_Web")]


async def test_runs_one_after_another_do_not_overlap(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        for job in ("j1", "j2"):
            await connection.send(command(job))
            await plane.final()
        assert len(agent.executions) == 2
        assert agent.overlaps() == []


async def test_the_test_scripts_the_work_and_its_errors_surface(plane: Plane) -> None:
    async def work(asked: Command) -> Outcome:
        if asked.project == "bug":
            raise LookupError("a bug in the test")
        return Outcome.failed("pull access denied", logs=f"Pulling {asked.project}")

    agent = GoAgent(plane.url, "t", "web-1")
    agent.work = work
    with pytest.raises(LookupError, match="a bug in the test"):
        await _deploy_web_then_bug(agent, plane)


async def _deploy_web_then_bug(agent: GoAgent, plane: Plane) -> None:
    async with agent:
        connection = await plane.sockets.get()
        await connection.send(command("j1"))
        answer = await plane.final()
        assert (answer["status"], answer["error"], answer["logs"]) == (
            "FAILED",
            "pull access denied",
            "Pulling web",
        )
        await connection.send(command("j2", project="bug"))
        await agent.executed(2)
