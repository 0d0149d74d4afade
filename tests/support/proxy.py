"""A TCP proxy that does to a connection what networks do: cuts it after so many bytes, or swallows all it carries.

Agents of a test dial it instead of the server. It counts what it carried each way, and tells when it cut.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 4096


class Proxy:
    """`async with Proxy(server.ws_url) as proxy:` a way to the server at `proxy.url`."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut_after: int | None = None
        self.cuts = 0
        self.url = ""
        self.swallowing = False
        """While set, what either side sends disappears, and nobody is told."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target._replace(netloc=f"127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection now."""
        for link in tuple(self._links):
            link.cut()

    def cut_after(self, bytes_to_agent: int) -> None:
        """Let so many more bytes pass to the agent, over all its connections, then reset the one they come on."""
        self._cut_after = bytes_to_agent

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((writer, upstream[1]))
        self._links.add(link)
        ways = (self._pump(link, reader, upstream[1]), self._pump(link, upstream[0], writer, to_agent=True))
        tasks = {asyncio.create_task(way) for way in ways}
        self._tasks |= tasks
        await asyncio.gather(*tasks)
        self._links.discard(link)
        self._tasks -= tasks

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_agent: bool = False
    ) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self.swallowing:
                    continue
                if to_agent and self._cut_after is not None:
                    self._cut_after -= len(chunk)
                    if self._cut_after <= 0:
                        writer.write(chunk[: self._cut_after or len(chunk)])
                        await writer.drain()
                        self._cut_after = None
                        self.cuts += 1
                        break
                writer.write(chunk)
                await writer.drain()
        link.cut()


class _Link:
    """Both sockets of one carried connection."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._writers = writers

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
