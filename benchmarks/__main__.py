"""`python -m benchmarks`: measure the server beside the floor and print the table. See benchmarks/README.md.

Rounds alternate server and floor, each a fresh process with a fresh database in a temporary directory of
the checkout's disk. Exits 1 when something went wrong or, with --check, when a target is missed.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import measure, report, scenarios, servers
from benchmarks.deploys import BenchmarkError
from benchmarks.fleet import Fleet
from benchmarks.machine import UnfitMachineError, examine, raise_open_files
from benchmarks.measure import DeployFigures
from benchmarks.servers import CHECKOUT, Server

Start = Callable[[Path], AbstractContextManager[Server]]
PROGRAMS: dict[str, Start] = {"server": servers.control_plane, "floor": servers.floor}
OPEN_FILES = 20_000
PLACED_PART = 5
"""The batch without agents named is a fifth of the others: it is told beside them, and judged by nothing."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    deploys: int
    warm_up: int
    agents: int
    crowd: int
    at_once: int
    same_file: bool
    programs: tuple[str, ...]
    crowds: tuple[str, ...]
    sizes: scenarios.Sizes


FULL = {"rounds": 3, "deploys": 10_000, "warm_up": 1_000, "agents": 200, "crowd": 10_000}
QUICK = {"rounds": 1, "deploys": 400, "warm_up": 100, "agents": 50, "crowd": 300}


def main() -> int:
    """Run as asked on the command line; return the exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped and its files go, too
    try:
        raise_open_files(OPEN_FILES)
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as place:
            print(report.machine_text(examine(Path(place))), flush=True)
            plan = _plan(arguments)
            findings = uvloop.run(_measure(plan, Path(place)))
            crowds = uvloop.run(_scenarios(plan, Path(place)))
    except UnfitMachineError as error:
        print(error, file=sys.stderr)
        return 2
    except BenchmarkError as error:
        print(f"The run is void: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("The run is void: the generator itself failed, see above.", file=sys.stderr)
        return 1
    lines = [*report.lines_of(findings), *crowds]
    print(f"\n{report.table(lines)}")
    if arguments.quick:
        print("\nThat was a smoke run: far too short for its figures to mean anything.")
    return 1 if arguments.check and not report.all_targets_met(lines) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="measure the server beside a floor")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    parser.add_argument("--only", choices=[*PROGRAMS, *scenarios.SCENARIOS], help="one program or scenario")
    parser.add_argument("--same-file", action="store_true", help="deploy one Compose file everywhere")
    parser.add_argument("--directory", type=Path, default=CHECKOUT / "build", help="where the databases go")
    parser.add_argument("--at-once", type=int, default=500, help="handshakes in flight while the crowd connects")
    for name, value in FULL.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}")
    arguments = parser.parse_args()
    arguments.directory = arguments.directory.resolve()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    return arguments


def _plan(arguments: argparse.Namespace) -> Plan:
    sizes = QUICK if arguments.quick else FULL
    sizes = {name: getattr(arguments, name) or value for name, value in sizes.items()}
    return Plan(
        **sizes,
        at_once=arguments.at_once,
        same_file=arguments.same_file,
        programs=tuple(name for name in PROGRAMS if arguments.only in {None, name}),
        crowds=tuple(name for name in scenarios.SCENARIOS if arguments.only in {None, name}),
        sizes=scenarios.QUICK if arguments.quick else scenarios.FULL,
    )


def _void_the_run(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the run when a callback of the generator fails: asyncio would only log it."""
    loop.default_exception_handler(context)
    for task in asyncio.all_tasks(loop):
        task.cancel()


async def _measure(plan: Plan, place: Path) -> report.Findings:
    asyncio.get_running_loop().set_exception_handler(_void_the_run)
    findings = report.Findings(server={}, floor={})
    for number in range(plan.rounds):
        for program in plan.programs if number % 2 == 0 else reversed(plan.programs):
            print(f"\nround {number + 1} of {plan.rounds}, {program}", flush=True)
            figures = findings.server if program == "server" else findings.floor
            with PROGRAMS[program](place) as server:
                await _deploy_round(plan, server, figures)
                if program == "server" and number == 0:
                    findings.placed_by_server = await _placed_by_server(plan, server)
    for program in plan.programs:
        print(f"\n{plan.crowd} agents, {program}", flush=True)
        with PROGRAMS[program](place) as server:
            crowd = await measure.idle_fleet(server, plan.crowd, plan.at_once)
        print(report.fleet_text(crowd), flush=True)
        if program == "server":
            findings.server_fleet = crowd
        else:
            findings.floor_fleet = crowd
    return findings


async def _scenarios(plan: Plan, place: Path) -> list[report.Line]:
    asyncio.get_running_loop().set_exception_handler(_void_the_run)
    lines = []
    for name in plan.crowds:
        print(f"\n{name}", flush=True)
        with servers.control_plane(place) as server:
            lines += await scenarios.SCENARIOS[name](server, plan.sizes)
    return lines


async def _deploy_round(plan: Plan, server: Server, figures: dict[int, list[DeployFigures]]) -> None:
    fleet = Fleet(server.target)
    try:
        await fleet.connect(plan.agents, plan.at_once)
        ids = server.agent_ids()
        await measure.deploy_batch(server, fleet, "warm", plan.warm_up, report.CALLERS[0], ids)
        for callers in report.CALLERS:
            measured = await measure.deploy_batch(
                server, fleet, f"c{callers}", plan.deploys, callers, ids, same_file=plan.same_file
            )
            print(f"{callers:4} callers: {report.figures_text(measured)}", flush=True)
            figures.setdefault(callers, []).append(measured)
    finally:
        fleet.abort()


async def _placed_by_server(plan: Plan, server: Server) -> DeployFigures:
    fleet = Fleet(server.target)
    try:
        await fleet.connect(plan.agents, plan.at_once)
        measured = await measure.deploy_batch(
            server, fleet, "placed", plan.deploys // PLACED_PART, report.CALLERS[0], ()
        )
    finally:
        fleet.abort()
    print(f"{report.CALLERS[0]:4} callers, no agent named: {report.figures_text(measured)}", flush=True)
    return measured


if __name__ == "__main__":
    sys.exit(main())
