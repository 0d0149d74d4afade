"""One way to run an app under uvicorn inside a test's own event loop, on a free loopback port.

Used by `http`, `app` and the tests of `ws/`. Returns once the port takes connections, ends at once when told.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn


@contextlib.asynccontextmanager
async def served(config: uvicorn.Config) -> AsyncIterator[tuple[str, int]]:
    """Serve `config`'s app for the length of a `with` block; yields host and port."""
    # With the protocol named, asyncio switches Nagle's algorithm off: every answer would take 40 ms longer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        assert server.started, "the app did not start; see the log"
        host, port = listener.getsockname()[:2]
        yield host, port
    finally:
        ready.cancel()
        server.end.set()
        await task
        listener.close()


class _Server(uvicorn.Server):
    """Says when it takes connections, and ends at once when told: uvicorn's own loop looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.end = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.end.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # Ctrl-C is pytest's
