"""The fixture that the tests of the fake Go agent share: a bare server on a free port, without pings of its own."""

from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import serve

from tests.support.bare_plane import Plane


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane()
    async with serve(
        plane.talk, "127.0.0.1", 0, process_request=plane.check, ping_interval=None, close_timeout=0.1
    ) as server:
        plane.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
        yield plane
