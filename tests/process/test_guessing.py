"""Ten thousand wrong tokens from one address cost next to nothing and lock nobody out who has a valid one."""

import asyncio
import re
import time
from collections import Counter

import pytest

from control_plane.core.failure_limits import WINDOW_SECONDS
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

GUESSES = 10_000
GUESSERS = 10
IN_ONE_WRITE = 50
LIMIT = 20
"""MAX_FAILED_TOKENS_PER_MINUTE, when nobody sets it."""


async def guess(server: ServerProcess, count: int) -> Counter[int]:
    """Send `count` requests with wrong tokens on one connection; return how many were answered with each status."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    statuses: Counter[int] = Counter()
    try:
        for first in range(0, count, IN_ONE_WRITE):
            numbers = range(first, first + IN_ONE_WRITE)
            for number in numbers:
                bad = f"Authorization: Bearer guess-{number}"
                writer.write(f"GET /agents HTTP/1.1\r\nHost: {host}\r\n{bad}\r\n\r\n".encode())
            for _ in numbers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
                statuses[int(head[9:12])] += 1
                assert head[9:12] == "401" or re.search(r"retry-after: [1-9]", head), head
    finally:
        writer.close()
        await writer.wait_closed()
    return statuses


async def check_guessing(server: ServerProcess) -> None:
    """Assert that all guesses but the first few are told to wait, and that who has a token is served meanwhile."""
    async with server.client() as client, GoAgent(server.ws_url, server.agent_token, "host-1", time_scale=0) as agent:
        await agent.connected()
        began = time.monotonic()
        guessing = asyncio.gather(*(guess(server, GUESSES // GUESSERS) for _ in range(GUESSERS)))
        served = set()
        while not guessing.done():
            served.add((await client.get("/agents")).status_code)
        seen = sum(await guessing, Counter[int]())
        windows = 1 + (time.monotonic() - began) // WINDOW_SECONDS
        assert served == {200}, f"meanwhile a valid token was answered with {served}"
        agent.drop()
        assert (await client.get("/agents")).status_code == 200
        await agent.connected()
        assert seen.total() == GUESSES
        assert set(seen) == {401, 429}, f"guesses were answered with {set(seen)}"
        assert seen[401] <= LIMIT * windows
        assert server.stderr.count("address_limited") <= windows
        assert "guess-" not in server.output


@pytest.mark.promise("guessing")
async def test_ten_thousand_guesses_are_told_to_wait_and_one_valid_token_is_served() -> None:
    async with ServerProcess() as server:
        await check_guessing(server)


@pytest.mark.control("guessing")
async def test_a_server_without_the_limit_would_be_found() -> None:
    async with ServerProcess(sabotage="failures_unlimited") as server:
        with pytest.raises(AssertionError, match=r"guesses were answered with \{401\}"):
            await check_guessing(server)


@pytest.mark.control("guessing")
async def test_a_server_that_locks_out_valid_tokens_would_be_found() -> None:
    async with ServerProcess(sabotage="limited_before_the_token") as server:
        with pytest.raises(AssertionError, match="429"):
            await check_guessing(server)
