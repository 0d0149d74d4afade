"""Simulated agents that cost next to nothing: raw WebSocket frames over plain asyncio protocols.

They answer each command at once, IN_PROGRESS and COMPLETED in one write, and every ping. Client frames are masked
with a key of zero, which RFC 6455 allows and which leaves their bytes as they are. Anything unexpected
(a refused handshake, a close, another opcode) fails the batch or the dial that it falls into.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from benchmarks.deploys import BenchmarkError, Observer, Target

ADDRESSES = 200
"""Agents dial from 127.0.1.1 to 127.0.1.200, as hosts of their own would: no limit per address is met."""
HANDSHAKE_SECONDS = 10.0
"""What installed agents allow for a handshake, the HTTP answer included."""

_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_COMMAND_ID = b'"id":"'
_PROJECT = b'"bench-'
_HEALTH_CHECK = b'"HEALTH_CHECK"'
_LOGS = r" Network web_default  Created\n Volume \"web_data\"  Created\n Container web-web-1  Started\n"


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a masked frame with a key of zero. `payload` is under 64 KiB."""
    length = len(payload)
    if length < 126:
        return bytes((opcode, 0x80 | length, 0, 0, 0, 0)) + payload
    return bytes((opcode, 0x80 | 126)) + length.to_bytes(2, "big") + bytes(4) + payload


def upgrade_request(target: Target, hostname: str) -> bytes:
    """Return what an installed agent of this name sends first."""
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: {target.host}:{target.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {target.agent_token}",
        "X-Agent-Version: 1.0.0",
        "X-Agent-Architecture: linux-amd64",
        f"X-Agent-Hostname: {hostname}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def answers_to(job_id: bytes) -> bytes:
    """Return the two frames that answer a deploy: acknowledged and completed."""
    acknowledged = b'{"job_id":"%b","status":"IN_PROGRESS","logs":"Command received, processing..."}' % job_id
    completed = b'{"job_id":"%b","status":"COMPLETED","logs":"%b"}' % (job_id, _LOGS.encode())
    return client_frame(_TEXT, acknowledged) + client_frame(_TEXT, completed)


_MARK = b"\0" * 36
_BEFORE, _BETWEEN, _AFTER = answers_to(_MARK).split(_MARK)


@dataclass
class Connected:
    """How a crowd of agents came in. `seconds` is from the first dial to the last upgrade."""

    count: int
    seconds: float
    slowest_handshake_seconds: float


@dataclass
class Returned:
    """How a crowd of agents came back that had all lost their connections at once. Times are in seconds."""

    handshakes: list[float]
    """Sorted, of those that succeeded."""
    failed_handshakes: int
    """Refused, cut, or not answered in HANDSHAKE_SECONDS."""
    seconds: float
    """From the first dial to the last upgrade."""


class SimulatedAgent(asyncio.Protocol):
    """One agent's connection."""

    __slots__ = ("_ended", "_fleet", "_request", "_rest", "_transport", "_upgraded", "up")

    def __init__(self, fleet: "Fleet", request: bytes) -> None:
        self._fleet = fleet
        self._request = request
        self._rest = b""
        self._upgraded = False
        self._ended = False
        self._transport: asyncio.WriteTransport | None = None
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one in all but its bases
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server cut an agent off: {error or 'end of stream'}")

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._upgraded:
            data = self._take_handshake(data)
        answers = b""
        at, size = 0, len(data)
        while size - at >= 2:
            frame = _frame_at(data, at)
            if frame is None or frame[1] > size:
                break
            start, end = frame
            opcode = data[at]
            if opcode == _TEXT:
                answers += self._run(data[start:end], now)
            elif opcode == _PING:
                answers += client_frame(0x8A, data[start:end])
            else:
                self._fail(f"an agent got a frame with first byte {opcode:#x} and payload {data[start:end][:200]!r}")
            at = end
        if at < size:
            self._rest = data[at:]
        if answers and self._transport is not None:
            self._transport.write(answers)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def _take_handshake(self, data: bytes) -> bytes:
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            self._rest = data
            return b""
        if not data.startswith(b"HTTP/1.1 101"):
            self._fail(f"an agent's handshake was answered with {data[:1000]!r}")
            return b""
        self._upgraded = True
        if not self.up.done():
            self.up.set_result(None)
        return data[head_end + 4 :]

    def _run(self, command: bytes, now: float) -> bytes:
        """Return the answers to a command, and note when it came."""
        start = command.find(_COMMAND_ID) + len(_COMMAND_ID)
        job_id = command[start : command.find(b'"', start)]
        project_at = command.find(_PROJECT) + 1
        batch = self._fleet.batch
        if _HEALTH_CHECK in command:
            return answers_to(job_id)
        if start < len(_COMMAND_ID) or not project_at or batch is None:
            self._fail(f"an agent got an unexpected command: {command[:500]!r}")
            return b""
        batch.reached(command[project_at : command.find(b'"', project_at)], now)
        if len(job_id) == len(_MARK):
            return b"%b%b%b%b%b" % (_BEFORE, job_id, _BETWEEN, job_id, _AFTER)
        return answers_to(job_id)

    def _fail(self, reason: str) -> None:
        if self._ended:
            return
        if not self.up.done():
            self.up.set_exception(BenchmarkError(reason))
        elif self._fleet.batch is not None:
            self._fleet.batch.fail(reason)
        else:
            self._fleet.errors.append(reason)


def _frame_at(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the unmasked frame at `at` starts and ends; None if its head is not all there."""
    length = data[at + 1]
    if length < 126:
        return at + 2, at + 2 + length
    start = at + (4 if length == 126 else 10)
    if len(data) < start:
        return None
    return start, start + int.from_bytes(data[at + 2 : start], "big")


def _same(agent: SimulatedAgent) -> Callable[[], SimulatedAgent]:
    return lambda: agent


class Fleet:
    """The agents of one run. Set `batch` before its deploys are posted."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._agents: list[SimulatedAgent] = []
        self.batch: Observer | None = None
        self.errors: list[str] = []
        """What went wrong on connections while no batch ran; `check` raises it."""

    @property
    def size(self) -> int:
        """How many agents have been connected."""
        return len(self._agents)

    async def connect(self, count: int, at_once: int) -> Connected:
        """Connect `count` more agents, `at_once` handshakes at a time. Raises BenchmarkError."""
        numbers = iter(range(self.size, self.size + count))
        slowest: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(self._dial_each(numbers, slowest) for _ in range(min(at_once, count))))
        self.check()
        return Connected(count, time.perf_counter() - began, max(slowest))

    async def return_at_once(self, within_seconds: float) -> Returned:
        """Cut all connections and dial them again in the same moment, as after a restart of the server.

        One whose handshake fails dials again after 1, 2, 4 … s, as installed agents do. Those that are not back
        after `within_seconds` are given up, and counted as failed handshakes.
        """
        numbers = range(self.size)
        self.abort()
        returned = Returned([], 0, 0.0)
        began = time.perf_counter()
        tasks = [asyncio.create_task(self._come_back(number, returned)) for number in numbers]
        _, late = await asyncio.wait(tasks, timeout=within_seconds)
        returned.seconds = time.perf_counter() - began
        returned.handshakes.sort()
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        returned.failed_handshakes += len(late)
        return returned

    async def _come_back(self, number: int, returned: Returned) -> None:
        pause = 1.0
        while True:
            began = time.perf_counter()
            try:
                await self._dial(number)
            except (BenchmarkError, OSError):
                returned.failed_handshakes += 1
                await asyncio.sleep(pause)
                pause *= 2
            else:
                returned.handshakes.append(time.perf_counter() - began)
                return

    def check(self) -> None:
        """Raise BenchmarkError if any connection was lost or spoke nonsense."""
        if self.errors:
            raise BenchmarkError(f"{len(self.errors)} agents had trouble; the first: {self.errors[0]}")

    def abort(self) -> None:
        """Cut all connections, before the server is stopped."""
        for agent in self._agents:
            agent.abort()
        self._agents.clear()

    async def _dial_each(self, numbers: Iterator[int], slowest: list[float]) -> None:
        for number in numbers:
            began = time.perf_counter()
            await self._dial(number)
            slowest.append(time.perf_counter() - began)

    async def _dial(self, number: int) -> None:
        """Connect one agent. Raises BenchmarkError, OSError."""
        agent = SimulatedAgent(self, upgrade_request(self._target, f"host-{number:05}"))
        source = (f"127.0.1.{1 + number % ADDRESSES}", 0)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await loop.create_connection(_same(agent), self._target.host, self._target.port, local_addr=source)
                await agent.up
        except BaseException as error:
            agent.abort()
            if isinstance(error, TimeoutError):
                raise BenchmarkError(f"agent {number} was not let in within {HANDSHAKE_SECONDS:.0f} s") from None
            raise
        self._agents.append(agent)
