"""The three crowds that promise something: a storm, agents that do not read, a flood. Each on a fresh server.

Gives the rows of the table that `report` prints; what is promised, and so judged, is said where it is measured.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.flood import MAX_RISE, flood
from benchmarks.report import Line
from benchmarks.servers import Server
from benchmarks.stalled import MAX_CLOSED_SECONDS, MAX_KIB_PER_STALLED, stall
from benchmarks.stalled import MAX_RISE as MAX_RISE_BESIDE_STALLED
from benchmarks.storm import MAX_BACK_SECONDS, MAX_REST_P99_SECONDS, storm


@dataclass(frozen=True)
class Sizes:
    """How large the crowds are."""

    returning: int
    stalled: int
    good: int
    flood_turns: int


FULL = Sizes(returning=10_000, stalled=100, good=1_000, flood_turns=10)
QUICK = Sizes(returning=300, stalled=5, good=20, flood_turns=2)


async def _storm(server: Server, sizes: Sizes) -> list[Line]:
    figures = await storm(server, sizes.returning)
    what = f"{figures.count} agents come back at once"
    return [
        _line(f"{what}: all back after", figures.back_seconds, MAX_BACK_SECONDS, "s"),
        Line(f"{what}: slowest handshake", f"{figures.slowest_handshake_seconds:.2f} s"),
        _line(f"{what}: handshakes failed or over 10 s", figures.failed_handshakes, 0, ""),
        _line(f"{what}: REST p99 meanwhile", figures.rest_p99_seconds, MAX_REST_P99_SECONDS, "s"),
        _line(f"{what}: REST answers but 200", figures.rest_refused, 0, ""),
    ]


async def _stalled(server: Server, sizes: Sizes) -> list[Line]:
    figures = await stall(server, sizes.stalled, sizes.good)
    what = f"{figures.stalled} agents read nothing"
    return [
        _line(f"{what}: all closed after", figures.closed_seconds, MAX_CLOSED_SECONDS, "s"),
        _line(f"{what}: memory for each", figures.kib_per_stalled, MAX_KIB_PER_STALLED, "KiB"),
        Line(f"{what}: others' dispatch p99", f"{figures.beside_p99_ms:.1f} ms"),
        _line(f"{what}: that beside the same without them", figures.rise, MAX_RISE_BESIDE_STALLED, ""),
    ]


async def _flood(server: Server, sizes: Sizes) -> list[Line]:
    figures = await flood(server, sizes.flood_turns)
    what = "one agent floods"
    closed = ", ".join(f"{times} x {code}" for code, times in figures.closes.items())
    return [
        Line(f"{what}: closes it met", closed, "1008 only", ok=set(figures.closes) == {"1008"}),
        Line(f"{what}: others' dispatch p50", f"{figures.flooded_p50_ms:.1f} ms"),
        Line(f"{what}: others' dispatch p99", f"{figures.flooded_p99_ms:.1f} ms"),
        _line(f"{what}: that beside the same without it", figures.rise, MAX_RISE, ""),
    ]


SCENARIOS: dict[str, Callable[[Server, Sizes], Awaitable[list[Line]]]] = {
    "storm": _storm,
    "stalled": _stalled,
    "flood": _flood,
}


def _line(figure: str, measured: float, most: float, unit: str) -> Line:
    shown = f"{measured:.2f}" if isinstance(measured, float) else str(measured)
    return Line(figure, f"{shown} {unit}".strip(), f"<= {most:g} {unit}".strip(), ok=measured <= most)
