"""Storm: all agents lose their connections and come back in the same moment, while callers go on using REST.

Run by `make bench` with 10,000 agents and by the fault tests with 1,000; one check judges both.
"""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.deploys import Uncounted
from benchmarks.fleet import HANDSHAKE_SECONDS, Fleet
from benchmarks.probe import probing, quantile
from benchmarks.servers import Server

CALM_AT_ONCE = 10
"""Handshakes in flight while the fleet first connects, which is not judged."""
MAX_BACK_SECONDS = 30.0
MAX_REST_P99_SECONDS = 1.0


@dataclass(frozen=True)
class StormFigures:
    """One storm of `count` agents. Times are in seconds."""

    count: int
    back_seconds: float
    """From the first dial until the server counts them all."""
    slowest_handshake_seconds: float
    failed_handshakes: int
    rest_p50_seconds: float
    rest_p99_seconds: float
    rest_refused: int
    slowed_by: float
    """How many times longer the server took than with a core of its own."""

    def broken(self, patience: float = 1.0) -> list[str]:
        """Return what was promised and not kept. REST may take `patience` times longer, where others use the cores."""
        kept = {
            f"{self.count} agents were back after {self.back_seconds:.1f} s": self.back_seconds <= MAX_BACK_SECONDS,
            f"{self.failed_handshakes} handshakes failed or took over 10 s": not self.failed_handshakes,
            f"REST p99 was {self.rest_p99_seconds:.2f} s": self.rest_p99_seconds < patience * MAX_REST_P99_SECONDS,
            f"{self.rest_refused} requests were not answered with 200": not self.rest_refused,
        }
        return [what for what, is_kept in kept.items() if not is_kept]


async def storm(server: Server, count: int) -> StormFigures:
    """Connect `count` agents to a server, then have them all come back at once. Raises BenchmarkError."""
    fleet = Fleet(server.target)
    fleet.batch = Uncounted(fleet.errors)
    try:
        await fleet.connect(count, CALM_AT_ONCE)
        probe_agent = (await asyncio.to_thread(server.agent_ids))[0]
        with probing(server.target, probe_agent) as probe:
            before, began = server.scheduled(), time.monotonic()
            returned = await fleet.return_at_once(2 * MAX_BACK_SECONDS)
            while (await asyncio.to_thread(server.connected_agents)) < count - returned.failed_handshakes:
                if time.monotonic() - began > 2 * MAX_BACK_SECONDS:
                    break
            ended, slowed_by = time.monotonic(), server.slowed_by(before)
    finally:
        fleet.abort()
    answers = probe.between(began, ended)
    return StormFigures(
        count=count,
        back_seconds=ended - began,
        slowest_handshake_seconds=returned.handshakes[-1] if returned.handshakes else HANDSHAKE_SECONDS,
        failed_handshakes=returned.failed_handshakes,
        rest_p50_seconds=quantile(answers, 0.5),
        rest_p99_seconds=quantile(answers, 0.99),
        rest_refused=len(probe.refused),
        slowed_by=slowed_by,
    )
