"""Health checks of the real Python agent by the real server: what it tells, and what stuck and frozen ones become."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.agent_harness import TOKEN, AgentProcess
from tests.support.docker_stand_in import StandInDocker
from tests.support.server import ServerProcess


@asynccontextmanager
async def checked_agent(
    tmp_path: Path, **settings: str
) -> AsyncIterator[tuple[httpx.AsyncClient, AgentProcess, StandInDocker]]:
    """A server that asks every second, and the real agent connected to it."""
    env = {"AGENT_SECRET_TOKEN": TOKEN, "HEALTH_CHECK_INTERVAL_SECONDS": "1", **settings}
    docker = StandInDocker(tmp_path / "docker")
    (tmp_path / "server").mkdir()
    (tmp_path / "agent").mkdir()
    async with ServerProcess(tmp_path / "server", env) as server, server.client() as client:
        agent = AgentProcess(server.ws_url, str(docker.path), tmp_path / "agent")
        await agent.start()
        try:
            yield client, agent, docker
        finally:
            await agent.close()
            docker.close()


async def row_with(client: httpx.AsyncClient, seen: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the only agent's row once these fields are so; a None is any value. Notes each status on the way."""
    async with asyncio.timeout(30):
        while True:
            rows = (await client.get("/agents")).json()["agents"]
            if rows and seen is not None:
                seen.append(rows[0]["status"])
            if rows and all(
                rows[0][name] == value or (value is ... and rows[0][name]) for name, value in fields.items()
            ):
                row: dict[str, Any] = rows[0]
                return row


async def test_the_python_agent_tells_of_its_host_and_keeps_none_of_it_on_disk(tmp_path: Path) -> None:
    async with checked_agent(tmp_path) as (client, agent, _):
        first = await row_with(client, health=...)
        health = first["health"]
        assert (health["version"], health["docker_version"], health["compose_version"]) == ("1.0.0", "28.2.2", "5.6.1")
        assert (health["docker_error"], health["error"]) == (None, None)
        assert 0 < health["disk_free_bytes"] < health["disk_total_bytes"]
        assert 0 < health["memory_available_bytes"] < health["memory_total_bytes"]
        assert len(health["load_average"]) == 3
        assert 0 < health["latency_seconds"] < 10
        while (await row_with(client))["health_at"] == first["health_at"]:
            pass
        assert (await client.get("/jobs")).json()["jobs"] == []
        assert (agent.kept_answers("sent"), agent.kept_answers("unsent")) == (0, 0)


async def test_an_agent_whose_docker_hangs_is_unresponsive_until_it_can_say_so(tmp_path: Path) -> None:
    async with checked_agent(tmp_path) as (client, _, docker):
        await row_with(client, health=...)
        gate = docker.fifo("gate")
        docker.on("engine-version", f"read go < {gate.path}; exit 1")
        stuck = await row_with(client, status="unresponsive")
        assert stuck["missed_checks"] >= 3
        docker.on("engine-version", "echo 28.2.2")
        for _ in range(10):
            gate.release()
        assert (await row_with(client, status="online"))["missed_checks"] == 0
        kinds = [event["kind"] for event in (await client.get("/events")).json()["events"]]
        assert [kind for kind in kinds if kind.endswith("responsive")] == ["agent_responsive", "agent_unresponsive"]


async def test_a_frozen_agent_answers_no_pings_and_is_offline_before_it_could_be_unresponsive(tmp_path: Path) -> None:
    pings = {"AGENT_PING_INTERVAL_SECONDS": "0.25", "AGENT_PING_TIMEOUT_SECONDS": "0.25"}
    async with checked_agent(tmp_path, **pings) as (client, agent, _):
        await row_with(client, health=...)
        os.killpg(agent.process.pid, signal.SIGSTOP)
        seen: list[str] = []
        try:
            await row_with(client, seen, status="offline")
        finally:
            os.killpg(agent.process.pid, signal.SIGCONT)
        assert set(seen) <= {"online", "offline"}
        await row_with(client, status="online")
