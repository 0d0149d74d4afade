"""A WebSocket client that sends whatever a test wants, right or wrong, one frame or half a frame at a time.

Used where a well-behaved client would not do: the frame matrix, floods, peers that never read, odd handshakes.
It masks its frames, answers no ping by itself, and tells exactly what came back.
"""

import asyncio
import base64
import json
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE_SECONDS = 20

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

Header = tuple[str, str | bytes]


@dataclass(frozen=True)
class RefusalError(Exception):
    """The HTTP answer of a handshake that did not end in 101."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document in it."""
        document: dict[str, Any] = json.loads(self.body)
        return document


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, declared: int | None = None) -> bytes:
    """Return a client's frame. `declared`: the length that its header tells, if it is to differ."""
    length = len(payload) if declared is None else declared
    mask = os.urandom(4)
    if length < 126:
        size = struct.pack("!B", 0x80 | length)
    elif length < 1 << 16:
        size = struct.pack("!BH", 0x80 | 126, length)
    else:
        size = struct.pack("!BQ", 0x80 | 127, length)
    return struct.pack("!B", (0x80 if fin else 0) | opcode) + size + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` masked (RFC 6455, section 5.3)."""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


class RawSocket:
    """`async with await RawSocket.open(url, token, "host-1") as raw:` a socket whose upgrade was accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        url: str,
        token: str,
        hostname: str,
        *headers: Header,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect as the agent `hostname`, with more `headers`. Raises RefusalError.

        `receive_buffer`: bytes that the kernel takes for a peer that does not read; by default many.
        """
        named: list[Header] = [("Authorization", f"Bearer {token}"), ("X-Agent-Hostname", hostname)]
        return await cls.upgrade(url, [*named, *headers], receive_buffer=receive_buffer, tls=tls)

    @classmethod
    async def upgrade(
        cls,
        url: str,
        headers: list[Header],
        *,
        receive_buffer: int | None = None,
        pieces: int = 1,
        host: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Send an upgrade request with just these headers beside those of RFC 6455. Raises RefusalError.

        `pieces`: how many packets it comes in. `host`: what it calls the server, by default as `url` does.
        `tls`: what it trusts and shows over TLS.
        """
        at = urlsplit(url)
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (at.hostname, at.port))
        name = None if tls is None else at.hostname
        raw = cls(*await asyncio.open_connection(sock=connection, limit=2**16, ssl=tls, server_hostname=name))
        lines = [f"GET {at.path} HTTP/1.1\r\nHost: {host or at.netloc}\r\n".encode()]
        lines += [b"Upgrade: websocket\r\nConnection: Upgrade\r\n"]
        lines += [b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", base64.b64encode(os.urandom(16)), b"\r\n"]
        for name, value in headers:
            lines += [name.encode(), b": ", value if isinstance(value, bytes) else value.encode(), b"\r\n"]
        request = b"".join(lines) + b"\r\n"
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = -(-len(request) // pieces)
        for at_byte in range(0, len(request), length):
            raw.writer.write(request[at_byte : at_byte + length])
            await raw.writer.drain()
            await asyncio.sleep(0)
        await raw._expect_upgrade()
        return raw

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Write one frame."""
        self.writer.write(frame(opcode, payload, fin=fin))

    def say(self, job_id: str, status: str, logs: str = "", **more: Any) -> None:
        """Write one answer in a text frame."""
        self.send(TEXT, json.dumps({"job_id": job_id, "status": status, "logs": logs, **more}).encode())

    async def read(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame, as it is. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head, size = await self.reader.readexactly(2)
            length = size & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return head & 0x0F, await self.reader.readexactly(length)

    async def command(self) -> dict[str, Any]:
        """Return the next command; frames of other kinds are passed over."""
        while True:
            opcode, payload = await self.read()
            if opcode == TEXT:
                command: dict[str, Any] = json.loads(payload)
                return command

    async def closed(self, *, polite: bool = True) -> tuple[int, str]:
        """Read to the end; return code and reason of the close frame, 1006 if the link just ended.

        A peer that is not `polite` leaves the close frame unanswered, and so waits until it is cut off.
        """
        code, reason = 1006, ""
        try:
            while True:
                opcode, payload = await self.read()
                if opcode == CLOSE:
                    code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
                    if polite:
                        self.send(CLOSE, payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return code, reason

    def cut(self) -> None:
        """End the connection without a word."""
        self.writer.transport.abort()

    async def _expect_upgrade(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status == 101:
                    return
                lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            except BaseException:
                self.cut()
                raise
        self.cut()
        raise RefusalError(status, headers, body)
