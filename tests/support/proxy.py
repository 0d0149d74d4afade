"""A TCP proxy that does to a connection what networks do: cuts it after so many bytes, ends one way of it, holds back
or swallows what it carries.

Agents of a test dial it instead of the server. It counts what it carried each way, and tells when it cut.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 4096
PATIENCE_SECONDS = 20


class Way(StrEnum):
    """A direction of the bytes of all connections."""

    TO_AGENT = "to agent"
    TO_SERVER = "to server"


class Proxy:
    """`async with Proxy(server.ws_url) as proxy:` a way to the server at `proxy.url`.

    `address`: where the server sees its connections come from, one of this machine such as 127.0.0.2.
    """

    def __init__(self, url: str, *, address: str | None = None) -> None:
        self._target = urlsplit(url)
        self._address = (address, 0) if address else None
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._planned: deque[tuple[Way, int]] = deque()
        self._passable = {way: _set_event() for way in Way}
        self._changed = asyncio.Event()
        self.carried: Counter[Way] = Counter()
        """Bytes handed on so far, over all connections."""
        self.cuts = 0
        self.url = ""
        self.swallowing = False
        """While set, what either side sends disappears, and nobody is told."""
        self.refusing = False
        """While set, new connections are reset at once."""

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
        for passable in self._passable.values():
            passable.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection now."""
        for link in tuple(self._links):
            link.cut()

    def cut_after(self, count: int, way: Way = Way.TO_AGENT) -> None:
        """Let `count` more bytes pass this way, over all connections, then reset the one they come on.

        Called again before that, it plans another cut, whose bytes count from the one before.
        """
        self._planned.append((way, count))

    def forget_plans(self) -> None:
        """Cut nothing more of what was planned."""
        self._planned.clear()

    def half_close(self, way: Way) -> None:
        """Tell the side that this way leads to that nothing more will come; the other way stays open."""
        for link in tuple(self._links):
            link.ended.add(way)
            link.writers[way].write_eof()

    def hold(self, way: Way) -> None:
        """Delay what comes this way until `let_go`; nothing is lost."""
        self._passable[way].clear()

    def let_go(self, way: Way) -> None:
        """Hand on what was held, and hold no more."""
        self._passable[way].set()

    async def until(self, holds: Callable[["Proxy"], bool], within_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `holds(proxy)`, asked again whenever bytes were carried or a connection was cut."""
        async with asyncio.timeout(within_seconds):
            while not holds(self):
                await self._changed.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_connection(self._target.hostname, self._target.port, local_addr=self._address)
        except OSError:
            writer.transport.abort()
            return
        link = _Link({Way.TO_AGENT: writer, Way.TO_SERVER: upstream[1]})
        self._links.add(link)
        ways = (self._pump(link, reader, Way.TO_SERVER), self._pump(link, upstream[0], Way.TO_AGENT))
        tasks = {asyncio.create_task(way) for way in ways}
        self._tasks |= tasks
        await asyncio.gather(*tasks)
        self._links.discard(link)
        self._tasks -= tasks

    async def _pump(self, link: "_Link", reader: asyncio.StreamReader, way: Way) -> None:
        writer = link.writers[way]
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._passable[way].wait()
                if self.swallowing or way in link.ended:
                    continue
                passing, is_cut = self._passing(chunk, way)
                writer.write(passing)
                await writer.drain()
                self.cuts += is_cut
                self._note(way, len(passing))
                if is_cut:
                    break
        link.cut()
        self._note(way, 0)

    def _passing(self, chunk: bytes, way: Way) -> tuple[bytes, bool]:
        """Return what of `chunk` may pass, and whether its connection is cut behind that."""
        if not self._planned or self._planned[0][0] is not way:
            return chunk, False
        _, left = self._planned.popleft()
        if left > len(chunk):
            self._planned.appendleft((way, left - len(chunk)))
            return chunk, False
        return chunk[:left], True

    def _note(self, way: Way, count: int) -> None:
        self.carried[way] += count
        self._changed.set()
        self._changed = asyncio.Event()


class _Link:
    """Both sockets of one carried connection, by the way that is written to each."""

    def __init__(self, writers: dict[Way, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.ended: set[Way] = set()
        """Ways on which the receiver was told that nothing more comes."""

    def cut(self) -> None:
        for writer in self.writers.values():
            writer.transport.abort()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
