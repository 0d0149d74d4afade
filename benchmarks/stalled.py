"""Stalled: agents that connect and read nothing, with large deploys queued for them, beside good ones.

Run by `make bench` with 100 stalled and 1,000 good agents, by the fault tests with a tenth; one check judges both.
"""

import asyncio
import base64
import json
import socket
import statistics
import time
from dataclasses import dataclass
from itertools import product

from benchmarks.callers import body_of, post_all
from benchmarks.deploys import PROJECT_PREFIX, Batch, BenchmarkError, Uncounted, http_request
from benchmarks.fleet import Fleet, upgrade_request
from benchmarks.probe import quantile
from benchmarks.servers import Server

MAX_CLOSED_SECONDS = 30.0
MAX_KIB_PER_STALLED = 512
"""One command with a file of 256 KiB has 342 in base64; the rest is for what a connection itself takes."""
MAX_RISE = 1.5
CALM_TURNS = 5
DEPLOYS_EACH = 4
"""One goes out every 10 s to an agent that acknowledges nothing: the last is still unsent when it is closed."""
CALLERS = 4
BATCH = 200
RECEIVE_BUFFER = 4096
PATIENCE_SECONDS = 60.0
BIG_FILE = "services:\n  web:\n    image: registry.example.com/shop/web:1\n" + f"# {'x' * 97}\n" * 2600


@dataclass(frozen=True)
class StalledFigures:
    """Stalled agents beside good ones. Dispatch is from POST to the command's arrival at a good agent."""

    stalled: int
    good: int
    closed_seconds: float
    """From the last one's connection until the server has closed them all."""
    kib_per_stalled: float
    """The most that the server's memory grew by meanwhile, for each; less what as many deploys to good agents take."""
    calm_p99_ms: float
    beside_p99_ms: float

    @property
    def rise(self) -> float:
        """How many times longer the slowest hundredth of the good agents' commands took beside the stalled ones."""
        return self.beside_p99_ms / self.calm_p99_ms

    def broken(self, max_rise: float = MAX_RISE) -> list[str]:
        """Return what was promised and not kept."""
        kept = {
            f"the last was closed after {self.closed_seconds:.0f} s": self.closed_seconds <= MAX_CLOSED_SECONDS,
            f"each cost {self.kib_per_stalled:.0f} KiB": self.kib_per_stalled <= MAX_KIB_PER_STALLED,
            f"good agents' dispatch p99 rose {self.rise:.2f} times": self.rise <= max_rise,
        }
        return [what for what, is_kept in kept.items() if not is_kept]


def hostname(number: int) -> str:
    """Return the name of a stalled agent."""
    return f"stalled-{number:03}"


async def stall(server: Server, stalled: int, good: int) -> StalledFigures:
    """Measure until all stalled agents are closed. Raises BenchmarkError."""
    fleet = Fleet(server.target)
    sockets: list[socket.socket] = []
    try:
        await fleet.connect(good, 50)
        good_ids = await asyncio.to_thread(server.agent_ids)
        run = _Run(server, fleet, good_ids)
        await run.batch("warm")
        await run.big_deploys("warm", good_ids[:CALLERS], delivered=True)
        at_first = server.resident_bytes()
        calm = [await run.batch(f"calm{turn}") for turn in range(CALM_TURNS)]
        before = server.resident_bytes()
        growth = (before - at_first) / CALM_TURNS
        await asyncio.to_thread(_connect_stalled, server, stalled, sockets)
        began = time.monotonic()
        stalled_ids = [one for one in await asyncio.to_thread(server.agent_ids) if one not in set(good_ids)]
        await run.big_deploys("big", stalled_ids, delivered=False)
        beside, most = await run.until_closed(good, began, before, growth)
        closed = time.monotonic() - began
    finally:
        fleet.abort()
        for one in sockets:
            one.close()
    return StalledFigures(
        stalled=stalled,
        good=good,
        closed_seconds=closed,
        kib_per_stalled=most / 1024 / stalled,
        calm_p99_ms=1000 * statistics.median(quantile(turn, 0.99) for turn in calm),
        beside_p99_ms=1000 * statistics.median(quantile(turn, 0.99) for turn in beside),
    )


def _connect_stalled(server: Server, count: int, sockets: list[socket.socket]) -> None:
    """Add sockets that were let in as agents, and that nobody will read. Raises BenchmarkError."""
    for number in range(count):
        connection = socket.socket()
        sockets.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect((server.target.host, server.target.port))
        connection.sendall(upgrade_request(server.target, hostname(number)))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise BenchmarkError(f"an agent's handshake was answered with {head!r}")


class _Run:
    """What is done to one server."""

    def __init__(self, server: Server, fleet: Fleet, good_ids: list[int | str]) -> None:
        self._server = server
        self._fleet = fleet
        self._good_ids = good_ids

    async def batch(self, name: str) -> list[float]:
        """Deploy to good agents; return, sorted, how long the commands took to arrive."""
        batch = Batch(name, BATCH, self._server.target, self._good_ids)
        self._fleet.batch = batch
        await post_all(batch, self._server.target, CALLERS, timeout_seconds=60)
        self._fleet.batch = None
        self._fleet.check()
        return batch.dispatch_seconds()

    async def big_deploys(self, name: str, agent_ids: list[int | str], *, delivered: bool) -> None:
        """Have large deploys accepted for agents, a few for each, and perhaps `delivered`."""
        told = self._fleet.batch = Uncounted(self._fleet.errors, DEPLOYS_EACH * len(agent_ids))
        wanted = iter(list(product(range(DEPLOYS_EACH), agent_ids)))
        target = self._server.target
        file = base64.b64encode(BIG_FILE.encode()).decode()

        async def caller() -> None:
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=2**20)
            for turn, agent_id in wanted:
                project = f"{PROJECT_PREFIX.decode()}{name}-{turn}-{agent_id}"
                body = {"project_name": project, "agent_id": agent_id, "compose_file_base64": file}
                document = json.dumps({**body, "when_offline": "queue", "timeout_seconds": 10})
                writer.write(http_request(target, "POST", "/deploy", document.encode()))
                answer = await reader.readuntil(b"\r\n\r\n")
                while body_of(answer) is None:
                    answer += await reader.read(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise BenchmarkError(f"a deploy was answered with {answer[:1000]!r}")
            writer.close()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        if delivered:
            await told.enough.wait()

    async def until_closed(
        self, good: int, began: float, before: int, growth: float
    ) -> tuple[list[list[float]], float]:
        """Deploy to good agents until no other is connected; return what that took, and how the server has grown.

        That is in bytes, from `before` on, at its most, and without `growth` for each turn: what the database keeps
        in memory of the deploys to good agents.
        """
        taken: list[list[float]] = []
        most = 0.0
        while await asyncio.to_thread(self._server.connected_agents) > good:
            if time.monotonic() - began > MAX_CLOSED_SECONDS + 1:
                break  # Late enough to be judged.
            taken.append(await self.batch(f"beside{len(taken):03}"))
            most = max(most, self._server.resident_bytes() - before - growth * len(taken))
            await asyncio.sleep(1.0)
        return taken, most
