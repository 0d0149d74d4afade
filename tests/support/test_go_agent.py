"""The fake Go agent against a bare WebSocket server: each habit and fault that other tests rely on."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome, decode_compose_file

COMPOSE = base64.b64encode(b"services: {web: {image: nginx}}\n").decode()


class Plane:
    """The other end: hands each connection and each answer to the test as it comes."""

    def __init__(self) -> None:
        self.url = ""
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.refuse_with: HTTPStatus | None = None

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(self.refuse_with, "no\n") if self.refuse_with else None

    async def talk(self, connection: ServerConnection) -> None:
        self.sockets.put_nowait(connection)
        with suppress(ConnectionClosedError):
            async for frame in connection:
                self.answers.put_nowait(json.loads(frame))

    async def final(self) -> dict[str, Any]:
        while (answer := await self.answers.get())["status"] == "IN_PROGRESS":
            pass
        return answer


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane()
    async with serve(
        plane.talk, "127.0.0.1", 0, process_request=plane.check, ping_interval=None, close_timeout=0.1
    ) as server:
        plane.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
        yield plane


def command(job_id: str, kind: str = "DEPLOY_COMPOSE", project: str = "web", **payload: object) -> str:
    if kind == "DEPLOY_COMPOSE":
        payload.setdefault("compose_file_base64", COMPOSE)
    return json.dumps({"id": job_id, "type": kind, "payload": {"project_name": project, **payload}})


async def test_it_says_who_it_is_and_names_no_origin(plane: Plane) -> None:
    async with GoAgent(plane.url, "s3cret", "web-1", headers={"X-Agent-Instance": "i1"}):
        headers = (await plane.sockets.get()).request
        assert headers is not None
        said = headers.headers
        assert said["Authorization"] == "Bearer s3cret"
        assert (said["X-Agent-Hostname"], said["X-Agent-Version"]) == ("web-1", "1.0.0")
        assert (said["X-Agent-Architecture"], said["X-Agent-Instance"]) == ("linux-amd64", "i1")
        assert "Origin" not in said
        assert "Sec-WebSocket-Extensions" not in said


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


async def test_two_answers_at_the_same_instant_crash_it_and_it_comes_back(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        agent.hold("a")
        await connection.send(command("j0", project="a"))
        await plane.answers.get()
        await connection.send(command("j1", project="b"))
        await connection.send(command("j2", project="c"))
        await agent.crashed()
        await agent.connected(at_least=2)
        agent.release("a")
        await (await plane.sockets.get()).send(command("j3"))
        assert (await plane.final())["job_id"] == "j3"
        assert [run.outcome is None for run in agent.executions if run.job_id == "j0"] == [True]
        assert agent.crashes == 1


async def test_answers_one_after_another_do_not_crash_it(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        for job in ("j1", "j2", "j3"):
            await connection.send(command(job, project=job))
            assert (await plane.final())["job_id"] == job
        assert agent.crashes == 0


async def test_a_slow_write_makes_a_collision_of_what_was_none(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1", write_seconds=60) as agent:
        connection = await plane.sockets.get()
        await connection.send(command("j1", project="a"))
        await agent.received("j1")
        await connection.send(command("j2", project="b"))
        await agent.crashed()


async def test_work_outlives_the_connection_and_is_answered_on_the_next(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        agent.hold("web")
        await (await plane.sockets.get()).send(command("j1"))
        await agent.started(1)
        agent.drop()
        await agent.connected(at_least=2)
        agent.release("web")
        assert (await plane.final())["job_id"] == "j1"


async def test_an_answer_with_no_connection_up_is_lost_for_good(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        agent.hold("web")
        connection = await plane.sockets.get()
        await connection.send(command("j1"))
        await agent.started(1)
        agent.unplug()
        agent.release("web")
        await agent.until(lambda: agent.lost == ["j1"], "the loss")
        agent.plug_in()
        await agent.connected(at_least=2)
        await (await plane.sockets.get()).send(command("j2"))
        assert (await plane.final())["job_id"] == "j2"


async def test_it_dials_for_ever_and_records_refusals(plane: Plane) -> None:
    plane.refuse_with = HTTPStatus.CONFLICT
    async with GoAgent(plane.url, "t", "web-1", time_scale=0.001) as agent:
        assert await agent.refused(3) == 409
        assert agent.refusal_texts[0] == "no\n"
        plane.refuse_with = None
        await agent.connected()


async def test_its_pauses_double_to_two_minutes_and_begin_anew_after_success(plane: Plane) -> None:
    plane.refuse_with = HTTPStatus.SERVICE_UNAVAILABLE
    async with GoAgent(plane.url, "t", "web-1", time_scale=1e-6) as agent:
        await agent.refused(9)
        plane.refuse_with = None
        connection = await plane.sockets.get()
        before_success, plane.refuse_with = agent.attempts - 1, HTTPStatus.SERVICE_UNAVAILABLE
        await connection.close()
        await agent.refused(before_success + 3)
    assert agent.pauses[:9] == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    assert agent.pauses[before_success:][:4] == [1, 1, 2, 4]


async def test_a_dial_without_an_answer_fails_after_the_handshake_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/ws"
        async with GoAgent(url, "t", "web-1", reconnect=False, handshake_timeout_seconds=0.05) as agent:
            await agent.until(lambda: bool(agent.failures), "the time-out")
            assert isinstance(agent.failures[0], TimeoutError)


async def test_it_keeps_a_connection_with_pongs_and_drops_one_without(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1", ping_interval_seconds=0.02, pong_timeout_seconds=0.1) as agent:
        connection = await plane.sockets.get()
        await agent.until(lambda: agent.pongs >= 12, "pongs for over twice the time-out")
        assert agent.connections == 1
        connection.transport.pause_reading()
        await agent.connected(at_least=2)
        assert agent.closes == [(1006, "")]


async def test_frozen_it_neither_pongs_nor_answers_and_thawed_it_goes_on(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        connection = await plane.sockets.get()
        await agent.connected()
        agent.freeze()
        pong = await connection.ping()
        await connection.send(command("j1"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pong), 0.1)
        assert plane.answers.empty()
        agent.thaw()
        await pong
        assert (await plane.final())["job_id"] == "j1"


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


async def test_it_can_say_what_no_agent_should(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        await agent.connected()
        await agent.say("someone-elses", Outcome(logs="forged"))
        assert (await plane.answers.get())["job_id"] == "someone-elses"
        await agent.send_raw(b"\xff", text=True)
        await agent.until(lambda: bool(agent.closes), "the close")
        assert agent.closes[0][0] == 1007
