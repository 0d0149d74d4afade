"""A GET with exactly the headers that a test writes, also those that no HTTP library would send.

Used where a hostile or broken client is played. Nothing is added to the request but what ends the connection.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.patience import PATIENCE_SECONDS


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    text: str


async def ask(url: str, path: str, *headers: tuple[str, str]) -> Answer:
    """Return the answer of the server at `url`."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    try:
        whole = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    named = dict(line.split(": ", 1) for line in rest)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in named.items()}, body.decode())
