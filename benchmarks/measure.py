"""The two measurements: a batch of deploys through a fleet, and a crowd of agents that connects and stays.

Both run against any `Server`, so that the floor is measured exactly as the real one is. A figure is only returned
when nothing went wrong and the database agrees.
"""

import asyncio
import gc
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import ledger
from benchmarks.callers import post_all
from benchmarks.deploys import Batch, BenchmarkError
from benchmarks.fleet import Fleet
from benchmarks.machine import busy_seconds
from benchmarks.servers import Server

STORED_SECONDS = 60.0
AGENTS_BEFORE_BASELINE = 20
DEPLOYS_BEFORE_BASELINE = 200
SETTLE_SECONDS = 2.0
"""How long idle agents idle before memory is read, so that the hand-shakes' garbage is gone."""


@dataclass(frozen=True)
class DeployFigures:
    """One batch. Times are in milliseconds; CPU times are user and system, for each deploy."""

    deploys_per_second: float
    dispatch_p50_ms: float
    dispatch_p99_ms: float
    answer_p50_ms: float
    answer_p99_ms: float
    server_cpu_ms: float
    generator_cpu_ms: float
    others_share: float
    """Of the machine's processor time meanwhile, what neither the server nor the generator used, 0 to 1."""


@dataclass(frozen=True)
class FleetFigures:
    """One crowd of `count` agents."""

    count: int
    connects_per_second: float
    slowest_handshake_ms: float
    kib_per_agent: float


async def deploy_batch(
    server: Server,
    fleet: Fleet,
    name: str,
    count: int,
    callers: int,
    agent_ids: Sequence[int | str],
    *,
    same_file: bool = False,
) -> DeployFigures:
    """Post `count` deploys from `callers` connections and follow them to the disk. Raises BenchmarkError.

    `name` must be new to this server. Without `agent_ids` the server chooses each agent.
    """
    batch = Batch(name, count, server.target, agent_ids, same_file=same_file)
    fleet.batch = batch
    with _without_collector():
        busy = busy_seconds()
        server_cpu, own_cpu, began = server.cpu_seconds(), time.process_time(), time.perf_counter()
        await post_all(batch, server.target, callers, timeout_seconds=60 + count / 50)
        own_cpu = time.process_time() - own_cpu
        ended = await ledger.all_stored(server.database, STORED_SECONDS)
        server_cpu = server.cpu_seconds() - server_cpu
        others = busy_seconds() - busy - server_cpu - own_cpu
    fleet.batch = None
    fleet.check()
    ledger.check(server.database, batch.job_ids)
    dispatch, answers = batch.dispatch_seconds(), batch.answer_seconds()
    return DeployFigures(
        deploys_per_second=count / (ended - batch.posted_at[0]),
        dispatch_p50_ms=1000 * _quantile(dispatch, 0.50),
        dispatch_p99_ms=1000 * _quantile(dispatch, 0.99),
        answer_p50_ms=1000 * _quantile(answers, 0.50),
        answer_p99_ms=1000 * _quantile(answers, 0.99),
        server_cpu_ms=1000 * server_cpu / count,
        generator_cpu_ms=1000 * own_cpu / count,
        others_share=max(0.0, others) / ((ended - began) * (os.cpu_count() or 1)),
    )


async def idle_fleet(server: Server, count: int, at_once: int) -> FleetFigures:
    """Connect `count` agents to a fresh server, `at_once` handshakes at a time. Raises BenchmarkError.

    The rate counts until the server itself says that all are connected. Before the base line of the memory
    a few agents and deploys pass through, so that what a process loads once is not charged to the agents.
    """
    fleet = Fleet(server.target)
    try:
        await fleet.connect(AGENTS_BEFORE_BASELINE, at_once)
        await deploy_batch(server, fleet, "lead", DEPLOYS_BEFORE_BASELINE, 8, server.agent_ids())
        before = server.resident_bytes()
        began = time.perf_counter()
        crowd = await fleet.connect(count, at_once)
        expected = count + AGENTS_BEFORE_BASELINE
        while (connected := server.connected_agents()) != expected:
            if time.perf_counter() - began > 2 * crowd.seconds + 10:
                raise BenchmarkError(f"{expected} agents are connected, and the server counts {connected}")
        seconds = time.perf_counter() - began
        await asyncio.sleep(SETTLE_SECONDS)
        fleet.check()
        after = server.resident_bytes()
    finally:
        fleet.abort()
    return FleetFigures(
        count=count,
        connects_per_second=count / seconds,
        slowest_handshake_ms=1000 * crowd.slowest_handshake_seconds,
        kib_per_agent=(after - before) / 1024 / count,
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep this process's garbage collector from stopping the clock's owner; the server keeps its own."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
