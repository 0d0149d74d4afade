"""That the real agent loses no answer and runs no job twice, when sockets break and processes die."""

import asyncio
import base64
import hashlib
import signal
from typing import Self

import pytest

from tests.support.agent_harness import Stage
from tests.support.control_plane_stand_in import Link, is_final


async def begin(stage: Stage) -> Link:
    await stage.agent.start()
    return await stage.control_plane.link()


async def test_an_answer_that_ends_while_the_connection_is_down_comes_first_on_the_next_one(stage: Stage) -> None:
    gate, done = stage.docker.fifo("gate"), stage.docker.fifo("done")
    stage.docker.on("up", f"echo started; read go < {gate.path}; echo finished; echo done > {done.path}")
    link = await begin(stage)
    await link.deploy("j1")
    await link.log("j1", "started")
    await stage.control_plane.close()
    gate.release()
    await done.wait()
    await stage.control_plane.open()
    later = await stage.control_plane.link()
    final = await later.final("j1")
    assert (final["status"], final["logs"]) == ("COMPLETED", "started\nfinished\n")
    assert len(stage.docker.calls("up")) == 1
    assert later.headers["X-Agent-Instance"] == link.headers["X-Agent-Instance"]


async def test_a_kept_answer_is_delivered_by_the_next_process_of_the_agent(stage: Stage) -> None:
    gate = stage.docker.fifo("gate")
    stage.docker.on("up", f"echo started; read go < {gate.path}; echo finished")
    link = await begin(stage)
    await link.deploy("j1")
    await link.log("j1", "started")
    await stage.control_plane.close()
    gate.release()
    await stage.agent.logged("Job 'j1' (DEPLOY_COMPOSE): COMPLETED")
    assert await stage.agent.stop() == 0
    assert stage.agent.kept_answers("unsent") == 1
    await stage.control_plane.open()
    later = await begin(stage)
    assert (await later.wait_for(lambda _: True))["job_id"] == "j1"
    assert (await later.final("j1"))["logs"] == "started\nfinished\n"
    assert later.headers["X-Agent-Instance"] != link.headers["X-Agent-Instance"]
    assert await stage.agent.stop() == 0
    assert (stage.agent.kept_answers("unsent"), stage.agent.kept_answers("sent")) == (0, 1)


async def test_an_answer_swallowed_by_a_socket_that_never_confirmed_it_is_sent_again(stage: Stage) -> None:
    await stage.control_plane.close()
    async with SilentServer(stage.control_plane.port) as silent:
        await stage.agent.start()
        await asyncio.wait_for(silent.swallowed(b'"COMPLETED"'), 30)
    assert stage.agent.kept_answers("unsent") == 1
    await stage.control_plane.open()
    later = await stage.control_plane.link()
    assert (await later.final("silent-1"))["status"] == "COMPLETED"


async def test_a_job_sent_again_while_it_runs_is_acknowledged_and_not_run_again(stage: Stage) -> None:
    gate = stage.docker.fifo("gate")
    stage.docker.on("up", f"echo started; read go < {gate.path}")
    link = await begin(stage)
    await link.deploy("j1")
    await link.log("j1", "started")
    seen = len(link.of("j1"))
    await link.deploy("j1")
    await link.wait_for(lambda frame: frame["job_id"] == "j1" and frame["status"] == "IN_PROGRESS", seen + 1)
    gate.release()
    await link.final("j1")
    await link.send("h1", "HEALTH_CHECK")
    await link.final("h1")
    assert len(stage.docker.calls("up")) == 1
    assert sum(is_final(frame) for frame in link.of("j1")) == 1


async def test_a_finished_job_sent_again_is_answered_the_same_also_after_a_restart(stage: Stage) -> None:
    stage.docker.on("up", "echo once")
    link = await begin(stage)
    await link.deploy("j1")
    first = await link.final("j1")
    await link.deploy("j1")
    assert await link.final("j1", 2) == first
    await stage.agent.stop()
    later = await begin(stage)
    await later.deploy("j1")
    assert await later.final("j1") == first
    assert len(stage.docker.calls("up")) == 1


async def test_kill_in_mid_deploy_leaves_compose_running_and_the_job_is_never_run_twice_at_once(stage: Stage) -> None:
    gate, steps = stage.docker.fifo("gate"), stage.docker.home / "steps"
    stage.docker.on("up", f"echo begin >> {steps}; echo started; read go < {gate.path}; echo end; echo end >> {steps}")
    link = await begin(stage)
    await link.deploy("j1")
    await link.log("j1", "started")
    assert await stage.agent.stop(signal.SIGKILL) == -signal.SIGKILL
    later = await begin(stage)
    await later.deploy("j1")
    await later.log("j1", "Waiting for a `docker compose` of an earlier agent process")
    await later.send("q1", "STATUS", project_name="web")
    await later.final("q1")
    assert steps.read_text().split() == ["begin"]
    gate.release()
    await later.log("j1", "started")
    gate.release()
    final = await later.final("j1")
    assert final["status"] == "COMPLETED"
    assert steps.read_text().split() == ["begin", "end", "begin", "end"]
    assert sum(is_final(frame) for frame in later.of("j1")) == 1


async def test_sigterm_ends_the_agent_with_0_and_leaves_compose_running(stage: Stage) -> None:
    gate, done = stage.docker.fifo("gate"), stage.docker.fifo("done")
    stage.docker.on("up", f"echo started; read go < {gate.path}; echo more output; echo survived > {done.path}")
    link = await begin(stage)
    await link.deploy("j1")
    await link.log("j1", "started")
    assert await stage.agent.stop() == 0
    await asyncio.wait_for(link.ended.wait(), 30)
    assert link.socket.close_code == 1001
    gate.release()
    assert await done.wait() == "survived"
    assert not any(is_final(frame) for frame in link.frames)


async def test_a_second_signal_ends_the_agent_at_once(stage: Stage) -> None:
    await stage.control_plane.close()
    async with SilentServer(stage.control_plane.port) as silent:
        await stage.agent.start()
        await asyncio.wait_for(silent.swallowed(b'"COMPLETED"'), 30)
        stage.agent.process.send_signal(signal.SIGTERM)
        await stage.agent.logged("Stopping.")
        assert await stage.agent.stop(signal.SIGINT) == 128 + signal.SIGINT
    assert stage.agent.kept_answers("unsent") == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "set AGENT_SECRET_TOKEN to the control plane's own value"),
        (403, 'are for the hostname "host-a"'),
        (409, "--hostname (AGENT_HOSTNAME)"),
        (503, "answered HTTP 503"),
    ],
)
async def test_a_refused_handshake_is_explained_once_and_tried_again(stage: Stage, status: int, advice: str) -> None:
    stage.control_plane.refuse_with = [status]
    link = await begin(stage)
    await link.send("h1", "HEALTH_CHECK")
    await link.final("h1")
    explained = [line for line in stage.agent.log().splitlines() if f"HTTP {status}" in line]
    assert len(explained) == 1
    assert advice in explained[0]
    assert "trying again in" in explained[0]
    assert "Traceback" not in stage.agent.log()


async def test_a_frame_over_the_limit_costs_the_connection_and_nothing_else(stage: Stage) -> None:
    link = await begin(stage)
    await link.socket.send("x" * (16 * 1024 * 1024 + 1))
    await asyncio.wait_for(link.ended.wait(), 30)
    assert link.socket.close_code == 1009
    later = await stage.control_plane.link()
    await later.send("h1", "HEALTH_CHECK")
    assert (await later.final("h1"))["status"] == "COMPLETED"


async def test_a_connection_that_the_control_plane_closes_is_made_anew(stage: Stage) -> None:
    link = await begin(stage)
    await link.socket.close(1012)
    later = await stage.control_plane.link()
    await later.send("h1", "HEALTH_CHECK")
    assert (await later.final("h1"))["status"] == "COMPLETED"


async def test_two_agents_do_not_share_one_projects_directory(stage: Stage) -> None:
    await begin(stage)
    first = stage.agent.process
    await stage.agent.start()
    second_exit = await stage.agent.wait()
    assert second_exit == 2
    assert "Another agent already works in" in stage.agent.log().splitlines()[-1]
    first.terminate()
    assert await asyncio.wait_for(first.wait(), 30) == 0


async def test_settings_that_cannot_work_end_it_with_2_and_one_line(stage: Stage) -> None:
    await stage.agent.start("--server", "http://example.invalid")
    assert await stage.agent.wait() == 2
    assert stage.agent.log() == (
        "agent: --server (SERVER_URL) is 'http://example.invalid': give it as ws://HOST:PORT/ws, or wss://HOST/ws "
        "behind TLS.\n"
    )


async def test_a_projects_directory_that_cannot_be_made_ends_it_with_2(stage: Stage) -> None:
    await stage.agent.start("--projects-dir", str(stage.docker.path / "docker" / "below-a-file"))
    assert await stage.agent.wait() == 2
    assert stage.agent.log().count("\n") == 1
    assert "--projects-dir (PROJECTS_DIR)" in stage.agent.log()


class SilentServer:
    """A server that upgrades, asks for a STATUS and then reads without ever answering a ping."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = b""
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def swallowed(self, part: bytes) -> None:
        """Wait until `part` was read, and after it the ping that asks for a confirmation."""
        async with self._news:
            await self._news.wait_for(lambda: self._ping_follows(part))

    def _ping_follows(self, part: bytes) -> bool:
        return any(0x89 in rest for rest in self._received.split(part)[1:])

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())  # noqa: S324
        command = b'{"id":"silent-1","type":"STATUS","payload":{"project_name":"web"}}'
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + bytes([0x81, len(command)]) + command
        )
        while frame := await read_frame(reader):
            async with self._news:
                self._received += frame
                self._news.notify_all()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return a client's frame as its first byte and its unmasked payload (RFC 6455, 5.2); empty at the end."""
    try:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2))
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return bytes([first]) + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
