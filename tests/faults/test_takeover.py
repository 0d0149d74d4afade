"""Two agents with one hostname: a live one keeps it, a frozen one loses it, and operators learn of both.

The second agent comes from another address than the first; both run as they do in the field, one of them as the
real Python agent's process, which SIGSTOP freezes.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.hosts import PythonHost, python_host
from tests.support.caller import Caller, Document, calling
from tests.support.go_agent import GoAgent
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess

HOSTNAME = "clone"
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
KNOCKS = 6
"""Refusals after which a second agent is known not to get in."""

Check = Callable[[ServerProcess, Path], Awaitable[None]]


@contextlib.asynccontextmanager
async def second_agent(server: ServerProcess) -> AsyncIterator[GoAgent]:
    """Yield an installed agent with the hostname of the first, at another address, which dials from now on."""
    async with (
        Proxy(server.ws_url, address=SECOND) as way,
        GoAgent(way.url, server.agent_token, HOSTNAME) as agent,
    ):
        yield agent


async def verdict(agent: GoAgent) -> None:
    await agent.until(lambda: agent.is_connected or len(agent.refusals) >= KNOCKS, "a verdict")


async def events(caller: Caller, kind: str) -> list[Document]:
    found: list[Document] = (await caller.get("/events", kind=kind))["events"]
    return found


async def serves(caller: Caller, project: str) -> None:
    """Deploy to whoever has the hostname, and see it done."""
    job = await caller.over(await caller.deploy(project, await caller.online(HOSTNAME)))
    assert job["status"] == "completed", job


async def keeps_its_hostname(server: ServerProcess, directory: Path) -> None:
    """A live agent keeps its hostname and its connection, and serves, while a second one knocks."""
    async with calling(server) as caller, python_host(directory, server, HOSTNAME) as first:
        await caller.online(HOSTNAME)
        async with second_agent(server) as second:
            await verdict(second)
            assert not second.is_connected, "the second agent got in"
            assert set(second.refusals) == {409}
            for number in range(3):
                await serves(caller, f"web-{number}")
            assert (second.connections, len(first.runs())) == (0, 3)
            assert len(await events(caller, "agent_connected")) == 1
            assert await events(caller, "agent_disconnected") == await events(caller, "agent_replaced") == []


async def is_told_of(server: ServerProcess, directory: Path) -> None:
    """An event names both agents' addresses, and however often the second knocks there is one a minute."""
    async with calling(server) as caller, GoAgent(server.ws_url, server.agent_token, HOSTNAME) as first:
        await first.connected()
        async with second_agent(server) as second:
            await verdict(second)
            told = await events(caller, "hostname_refused")
            assert len(told) == 1, f"{len(told)} events of {len(second.refusals)} refusals"
            addresses = {"incumbent_address": FIRST, "newcomer_address": SECOND}
            assert told[0]["details"] == {"hostname": HOSTNAME, "refusals": 1, **addresses}
            assert FIRST in told[0]["message"]
            assert SECOND in told[0]["message"]
            assert told[0]["agent_id"] == (await caller.agent(HOSTNAME))["id"]


async def loses_its_hostname_when_frozen(server: ServerProcess, directory: Path) -> None:
    """A frozen agent's hostname goes to the next at its first knock; thawed, the old one is refused."""
    async with calling(server) as caller, python_host(directory, server, HOSTNAME) as first:
        await caller.online(HOSTNAME)
        async with frozen(first), second_agent(server) as second:
            await verdict(second)
            assert second.is_connected, "a frozen agent kept its hostname"
            assert second.refusals == []
            [told] = await events(caller, "agent_replaced")
            assert (told["details"]["replaced_address"], told["details"]["address"]) == (FIRST, SECOND)
            thaw(first)
            await first.agent.logged("409")
            await serves(caller, "web")
            assert (second.connections, second.closes) == (1, [])
            assert (len(second.executions), first.runs()) == (1, {})


async def stays_online_after_the_late_clean_up(server: ServerProcess, directory: Path) -> None:
    """What the end of a replaced connection does, when the new one is in already, leaves its agent online."""
    async with calling(server) as caller, python_host(directory, server, HOSTNAME) as first:
        agent_id = await caller.online(HOSTNAME)
        async with frozen(first), second_agent(server) as second:
            await second.connected()
            async with asyncio.timeout(15):
                while "cleaned_up_late" not in server.stderr:
                    await caller.get("/health")
            assert (await caller.get(f"/agents/{agent_id}"))["status"] == "online"
            await serves(caller, "web")
            assert len(second.executions) == 1
            assert await events(caller, "agent_disconnected") == []


@contextlib.asynccontextmanager
async def frozen(host: PythonHost) -> AsyncIterator[None]:
    os.kill(host.agent.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        thaw(host)


def thaw(host: PythonHost) -> None:
    os.kill(host.agent.process.pid, signal.SIGCONT)


@pytest.mark.promise("11")
@pytest.mark.parametrize("check", [keeps_its_hostname, is_told_of, loses_its_hostname_when_frozen])
async def test_a_hostname_has_one_live_agent_and_operators_learn_who_else_wanted_it(
    check: Check, tmp_path: Path
) -> None:
    async with ServerProcess() as server:
        await check(server, tmp_path)
        assert '"level": "error"' not in server.stderr, server.stderr


@pytest.mark.promise("11")
async def test_the_late_clean_up_of_a_replaced_connection_touches_nothing(tmp_path: Path) -> None:
    async with ServerProcess(sabotage="late_cleanup") as server:
        await stays_online_after_the_late_clean_up(server, tmp_path)


@pytest.mark.control("11")
@pytest.mark.parametrize(
    ("check", "sabotage", "seen"),
    [
        (keeps_its_hostname, "incumbents_not_asked", "the second agent got in"),
        (is_told_of, "refusals_untold", "0 events of"),
        (is_told_of, "every_refusal_told", f"{KNOCKS} events of"),
        (loses_its_hostname_when_frozen, "incumbents_believed", "a frozen agent kept its hostname"),
        (stays_online_after_the_late_clean_up, "late_cleanup_unguarded", "offline"),
    ],
)
async def test_each_check_fails_without_its_guard(check: Check, sabotage: str, seen: str, tmp_path: Path) -> None:
    async with ServerProcess(sabotage=sabotage) as server:
        with pytest.raises(AssertionError, match=seen):
            await check(server, tmp_path)
