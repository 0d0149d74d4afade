"""The fake Go agent's connections and crashes: each habit and fault of its process that other tests rely on."""

import asyncio
import socket
from http import HTTPStatus

import pytest

from tests.support.bare_plane import Plane, command
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Outcome


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


async def test_it_can_say_what_no_agent_should(plane: Plane) -> None:
    async with GoAgent(plane.url, "t", "web-1") as agent:
        await agent.connected()
        await agent.say("someone-elses", Outcome(logs="forged"))
        assert (await plane.answers.get())["job_id"] == "someone-elses"
        await agent.send_raw(b"\xff", text=True)
        await agent.until(lambda: bool(agent.closes), "the close")
        assert agent.closes[0][0] == 1007
