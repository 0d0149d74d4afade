"""The end of the server's sockets: one that is just ending by itself does not stop the others from being closed."""

import asyncio

import pytest

from tests.ws.fleet import Fleet


@pytest.mark.parametrize("turns", range(4))
async def test_a_socket_that_was_cut_in_the_same_moment_is_closed_without_a_fault(fleet: Fleet, turns: int) -> None:
    await fleet.joined()
    (session,) = fleet.plane.manager.get_connected_agents()
    protocol = vars(session.socket)["_protocol"]
    session.socket.abort()
    for _ in range(turns):  # of the event loop, after the last of which uvicorn, which is stopping, closes all it has
        await asyncio.sleep(0)
    protocol.shutdown()
