"""Flood: what one agent that sends 50,000 messages a second, and dials again whenever it is closed, costs the others.

Deploys to good agents in turns with and without the flood, so that whatever else happens on the machine falls on both
alike. Run by `make bench`, and shorter by the fault tests; one check judges both.
"""

import statistics
from dataclasses import dataclass
from functools import partial

from benchmarks.callers import post_all
from benchmarks.deploys import Batch
from benchmarks.fleet import Fleet
from benchmarks.flooder import Flood, flooding
from benchmarks.probe import quantile
from benchmarks.servers import Server

AGENTS = 50
CALLERS = 4
DEPLOYS = 1000
"""About a second a turn. Shorter ones see little but the moment until the flooder is closed, some 40 ms long."""
PATIENCE_SECONDS = 60.0
MAX_RISE = 1.10
FLOODER = "flooder"


@dataclass(frozen=True)
class FloodFigures:
    """Turns with a flood beside turns without. Times are in milliseconds, from POST to the command's arrival."""

    calm_p99_ms: float
    flooded_p99_ms: float
    calm_p50_ms: float
    flooded_p50_ms: float
    let_in: int
    sent: int
    closes: dict[str, int]
    refusals: dict[str, int]

    @property
    def rise(self) -> float:
        """How many times longer the slowest hundredth took under the flood."""
        return self.flooded_p99_ms / self.calm_p99_ms

    def broken(self, max_rise: float = MAX_RISE) -> list[str]:
        """Return what was promised and not kept."""
        kept = {
            f"others' p99 rose {self.rise:.2f} times": self.rise <= max_rise,
            f"the flooder was let in {self.let_in} times and closed {self.closes}": set(self.closes) == {"1008"},
        }
        return [what for what, is_kept in kept.items() if not is_kept]


async def flood(server: Server, turns: int, patience_seconds: float = PATIENCE_SECONDS) -> FloodFigures:
    """Measure `turns` turns without and as many with a flood.

    Raises BenchmarkError, also when the deploys of one turn take longer than `patience_seconds`.
    """
    fleet = Fleet(server.target)
    calm: list[list[float]] = []
    flooded: list[list[float]] = []
    met = Flood()
    try:
        await fleet.connect(AGENTS, AGENTS)
        ids = server.agent_ids()
        deploys = partial(_deploys, server, fleet, ids, patience_seconds)
        await deploys("warm")
        for turn in range(turns):
            # What comes second in a turn meets a larger database.
            for is_flooded in (True, False) if turn % 2 else (False, True):
                if not is_flooded:
                    calm.append(await deploys(f"calm{turn}"))
                    continue
                with flooding(server.target, f"{FLOODER}-{turn}") as one:
                    flooded.append(await deploys(f"flooded{turn}"))
                _add(met, one)
    finally:
        fleet.abort()
    return FloodFigures(
        calm_p99_ms=_middle(calm, 0.99),
        flooded_p99_ms=_middle(flooded, 0.99),
        calm_p50_ms=_middle(calm, 0.5),
        flooded_p50_ms=_middle(flooded, 0.5),
        let_in=met.let_in,
        sent=met.sent,
        closes=met.closes,
        refusals=met.refusals,
    )


def _middle(turns: list[list[float]], share: float) -> float:
    return 1000 * statistics.median(quantile(turn, share) for turn in turns)


async def _deploys(
    server: Server, fleet: Fleet, ids: list[int | str], patience_seconds: float, name: str
) -> list[float]:
    """Return, sorted, how long the commands of a batch took to their agents."""
    batch = Batch(name, DEPLOYS, server.target, ids)
    fleet.batch = batch
    await post_all(batch, server.target, CALLERS, patience_seconds)
    fleet.batch = None
    fleet.check()
    return batch.dispatch_seconds()


def _add(met: Flood, one: Flood) -> None:
    met.let_in += one.let_in
    met.sent += one.sent
    for all_of, of_one in ((met.closes, one.closes), (met.refusals, one.refusals)):
        for code, times in of_one.items():
            all_of[code] = all_of.get(code, 0) + times
