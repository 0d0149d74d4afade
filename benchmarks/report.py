"""The table that a run prints, and whether each target is met.

Figures of several rounds are medians; a ratio is the median of the rounds' own ratios, for a round's two
measurements lie minutes closer together than the first round and the last.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import Machine
from benchmarks.measure import DeployFigures, FleetFigures

CALLERS = (32, 256)
MIN_DEPLOYS_PER_SECOND = 1000.0
MIN_SHARE_OF_FLOOR = 0.4
MAX_DISPATCH_P99_MS = 100.0
"""At 32 callers; with 256 in a closed loop on two cores waiting is most of it."""
MAX_KIB_PER_AGENT = 40.0
MIN_CONNECTS_PER_SECOND = 700.0

HEADINGS = ("figure", "measured", "target", "floor", "ratio", "ok?")


@dataclass
class Findings:
    """Everything that was measured: deploys by number of callers, one entry a round."""

    server: dict[int, list[DeployFigures]]
    floor: dict[int, list[DeployFigures]]
    placed_by_server: DeployFigures | None = None
    server_fleet: FleetFigures | None = None
    floor_fleet: FleetFigures | None = None


@dataclass(frozen=True)
class Line:
    """One row of the table; empty cells are for figures that have no target or no counterpart."""

    figure: str
    measured: str
    target: str = ""
    floor: str = ""
    ratio: str = ""
    ok: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        verdict = "" if self.ok is None else "yes" if self.ok else "NO"
        return (self.figure, self.measured, self.target, self.floor, self.ratio, verdict)


def lines_of(findings: Findings) -> list[Line]:
    """Return the table's rows, targets first judged."""
    lines = []
    for callers in CALLERS:
        lines += _deploy_lines(callers, findings.server.get(callers, []), findings.floor.get(callers, []))
    if placed := findings.placed_by_server:
        lines.append(
            Line(f"deploys/s, {CALLERS[0]} callers, the server chooses the agent", f"{placed.deploys_per_second:.0f}")
        )
    lines += _fleet_lines(findings.server_fleet, findings.floor_fleet)
    batches = [one for rounds in (findings.server, findings.floor) for many in rounds.values() for one in many]
    if not batches:
        return lines
    return [*lines, Line("CPU used by others, worst batch", f"{100 * max(one.others_share for one in batches):.0f} %")]


def all_targets_met(lines: Sequence[Line]) -> bool:
    """Return whether no row missed its target."""
    return all(line.ok is not False for line in lines)


def table(lines: Sequence[Line]) -> str:
    """Return the rows as a table in Markdown that also reads well on a terminal."""
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    printed = ["| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    printed.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(printed)


def machine_text(machine: Machine) -> str:
    """Return what the figures hold for, in a few lines."""
    text = (
        f"{machine.cores} cores, {machine.kernel}, {machine.python}, SQLite {machine.sqlite}\n"
        f"database on {machine.file_system}, 4 KiB append and fdatasync "
        f"{machine.fsync_median_ms:.2f} ms median, {machine.fsync_p99_ms:.2f} ms p99\n"
        f"load average before the run {machine.load_average:.2f}"
    )
    if machine.load_average > 0.5:
        text += "  <- something else is running: the figures will be too low"
    return text


def figures_text(figures: DeployFigures) -> str:
    """Return one batch on one line."""
    return (
        f"{figures.deploys_per_second:6.0f} deploys/s, dispatch p50 {figures.dispatch_p50_ms:.1f} "
        f"p99 {figures.dispatch_p99_ms:.1f} ms, answer p50 {figures.answer_p50_ms:.1f} "
        f"p99 {figures.answer_p99_ms:.1f} ms, CPU per deploy: server {figures.server_cpu_ms:.2f} "
        f"generator {figures.generator_cpu_ms:.2f} ms, others used {100 * figures.others_share:.0f} % of the cores"
    )


def fleet_text(figures: FleetFigures) -> str:
    """Return one crowd on one line."""
    return (
        f"{figures.count} agents, {figures.connects_per_second:.0f} connects/s, slowest handshake "
        f"{figures.slowest_handshake_ms:.0f} ms, {figures.kib_per_agent:.1f} KiB an idle agent"
    )


def _deploy_lines(callers: int, server: Sequence[DeployFigures], floor: Sequence[DeployFigures]) -> list[Line]:
    def line(figure: str, attribute: str, unit: str = "", most: float | None = None) -> Line:
        measured, bare = _median(server, attribute), _median(floor, attribute)
        return Line(
            f"{figure}, {callers} callers",
            _number(measured, unit),
            f"< {most:.0f}{unit}" if most else "",
            _number(bare, unit),
            ok=measured < most if most and measured is not None else None,
        )

    rate, bare_rate = _median(server, "deploys_per_second"), _median(floor, "deploys_per_second")
    shares = [s.deploys_per_second / f.deploys_per_second for s, f in zip(server, floor, strict=False)]
    share = statistics.median(shares) if shares else None
    return [
        Line(
            f"deploys/s, {callers} callers",
            _number(rate),
            f">= {MIN_DEPLOYS_PER_SECOND:.0f}, >= {MIN_SHARE_OF_FLOOR} of floor",
            _number(bare_rate),
            "" if share is None else f"{share:.2f}",
            None if rate is None else rate >= MIN_DEPLOYS_PER_SECOND and (share is None or share >= MIN_SHARE_OF_FLOOR),
        ),
        line("dispatch p50", "dispatch_p50_ms", " ms"),
        line("dispatch p99", "dispatch_p99_ms", " ms", MAX_DISPATCH_P99_MS if callers == CALLERS[0] else None),
        line("answer p99", "answer_p99_ms", " ms"),
        line("server CPU a deploy", "server_cpu_ms", " ms"),
        line("generator CPU a deploy", "generator_cpu_ms", " ms"),
    ]


def _fleet_lines(server: FleetFigures | None, floor: FleetFigures | None) -> list[Line]:
    crowd = server or floor
    if crowd is None:
        return []
    rate, bare_rate = (None if f is None else f.connects_per_second for f in (server, floor))
    memory, bare_memory = (None if f is None else f.kib_per_agent for f in (server, floor))
    return [
        Line(
            f"connects/s, {crowd.count} agents",
            _number(rate),
            f">= {MIN_CONNECTS_PER_SECOND:.0f}",
            _number(bare_rate),
            f"{rate / bare_rate:.2f}" if rate and bare_rate else "",
            None if rate is None else rate >= MIN_CONNECTS_PER_SECOND,
        ),
        Line(
            "memory of an idle agent",
            _number(memory, " KiB"),
            f"<= {MAX_KIB_PER_AGENT:.0f} KiB",
            _number(bare_memory, " KiB"),
            ok=None if memory is None else memory <= MAX_KIB_PER_AGENT,
        ),
    ]


def _median(figures: Sequence[DeployFigures], attribute: str) -> float | None:
    return statistics.median(getattr(one, attribute) for one in figures) if figures else None


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.2f}{unit}"
