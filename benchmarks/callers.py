"""Callers of the REST API that cost next to nothing: hand-built requests, answers read by slicing.

Each holds one keep-alive connection and posts the next deploy as soon as the one before was answered.
Anything but a 200 with a content length and a job id ends the batch with what the server said.
"""

import asyncio
import time
from typing import cast

from benchmarks.deploys import Batch, BenchmarkError, Target

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_JOB_ID = b'"job_id":"'


class _Caller(asyncio.Protocol):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._index: int | None = None
        self._buffer = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one in all but its bases

    def post_next(self) -> None:
        """Post the next deploy of the batch, if there is one left."""
        batch = self._batch
        index = self._index = batch.next_index()
        if index is not None:
            batch.posted_at[index] = time.perf_counter()
            self._transport.write(batch.requests[index])

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        body = body_of(data)
        if body is None:
            self._buffer = data
            return
        self._buffer = b""
        start = body.find(_JOB_ID)
        if self._index is None or not data.startswith(b"HTTP/1.1 200") or start < 0:
            self._batch.fail(f"a deploy was answered with {data[:2000]!r}")
            return
        start += len(_JOB_ID)
        job_id = body[start : body.index(b'"', start)].decode()
        self._batch.accepted(self._index, job_id, time.perf_counter())
        self.post_next()

    def connection_lost(self, error: Exception | None) -> None:
        if self._index is not None:
            self._batch.fail(f"the server closed the connection of a caller that waited for an answer: {error}")

    def close(self) -> None:
        """Close the connection, between answers."""
        self._index = None
        self._transport.close()


def body_of(data: bytes) -> bytes | None:
    """Return the body of a whole HTTP/1.1 answer, None when more is to come. Raises BenchmarkError."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return None
    at = data.find(_LENGTH, 0, head_end)
    if at < 0:
        head = data[:head_end].lower()
        at = head.find(_LENGTH)
        if at < 0:
            raise BenchmarkError(f"an answer came without a Content-Length: {data[:2000]!r}")
    at += len(_LENGTH)
    line_end = data.find(b"\r\n", at)
    body_start = head_end + len(_HEAD_END)
    length = int(data[at:line_end])
    if len(data) < body_start + length:
        return None
    return data[body_start : body_start + length]


async def post_all(batch: Batch, target: Target, callers: int, timeout_seconds: float) -> None:
    """Post the whole batch from `callers` connections at once; return when all commands have reached agents.

    Raises BenchmarkError on any answer but 200, a lost connection, or after `timeout_seconds`.
    """
    loop = asyncio.get_running_loop()
    protocols = []
    for _ in range(callers):
        _, protocol = await loop.create_connection(lambda: _Caller(batch), target.host, target.port)
        protocols.append(protocol)
    for protocol in protocols:
        protocol.post_next()
    try:
        async with asyncio.timeout(timeout_seconds):
            await batch.finished
    except TimeoutError:
        reached = sum(map(bool, batch.reached_at))
        raise BenchmarkError(
            f"after {timeout_seconds:.0f} s only {sum(map(bool, batch.job_ids))} of {batch.count} deploys "
            f"were accepted and {reached} commands had reached their agents"
        ) from None
    finally:
        for protocol in protocols:
            protocol.close()
