"""Two thousand connections of one address that say nothing: who comes from another is served at once."""

import asyncio
import resource
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.raw_socket import RawSocket
from tests.support.server import ServerProcess

CROWD = 2_000
THERE = "127.0.0.2"
"""Loopback's, like the address of everybody else here, and yet another one."""
FEW_DESCRIPTORS = ("sh", "-c", 'ulimit -n 1500 && exec "$@"', "sh")
"""What a server has on a small machine; on a large one the crowd would be as many times larger."""
SETTINGS = {"MAX_UNAUTHENTICATED_PER_ADDRESS": "30"}
AT_ONCE_SECONDS = 5


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < CROWD + 200:
        pytest.skip(f"{CROWD} connections need more open files than this user may have ({before[1]})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], CROWD + 200), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


async def fill(server: ServerProcess, crowd: list[socket.socket]) -> None:
    """Open all connections of the crowd; the kernel takes them, whatever the server then does."""
    port = int(server.url.rpartition(":")[2])
    for _ in range(CROWD):
        one = socket.socket()
        crowd.append(one)
        one.setblocking(False)
        one.bind((THERE, 0))
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))


async def check_others_are_served(server: ServerProcess, crowd: list[socket.socket]) -> None:
    """Assert that a caller and an agent of another address are served while the crowd is there."""
    await fill(server, crowd)
    async with asyncio.timeout(AT_ONCE_SECONDS), server.client() as client:
        assert (await client.get("/agents")).status_code == 200
        async with await RawSocket.open(server.ws_url, server.agent_token, "host-1"):
            rows = (await client.get("/agents")).json()["agents"]
    assert [row["status"] for row in rows] == ["online"]


@pytest.mark.promise("slow clients")
async def test_a_silent_crowd_of_one_address_keeps_nobody_else_out(crowd: list[socket.socket]) -> None:
    async with ServerProcess(env=SETTINGS, wrapper=FEW_DESCRIPTORS) as server:
        await check_others_are_served(server, crowd)
        assert server.stderr.count("connections_turned_away") == 1, "told once, not a thousand times"


@pytest.mark.control("slow clients")
async def test_without_a_bound_it_would_take_all_descriptors(crowd: list[socket.socket]) -> None:
    async with ServerProcess(env=SETTINGS, wrapper=FEW_DESCRIPTORS, sabotage="strangers_unlimited") as server:
        with pytest.raises((httpx.TransportError, TimeoutError, AssertionError, OSError, EOFError)):
            await check_others_are_served(server, crowd)
        for each in crowd:
            each.close()
