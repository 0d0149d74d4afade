"""One agent sends 50,000 messages a second and dials again at once: it is closed and kept out, and others go on."""

import pytest

from benchmarks.deploys import BenchmarkError
from benchmarks.flood import FloodFigures, flood
from tests.faults.loads import measured
from tests.support.server import ServerProcess

SHARED_CORES_RISE = 2.0
"""Instead of 1.1: short turns on cores that other tests use, too. Without the limit it is ten times that."""
TURN_SECONDS = 30
"""Within which the deploys of one turn must be over. Without the limit they may take longer than anybody waits."""


async def flooded(turns: int, sabotage: str | None = None) -> FloodFigures:
    async with ServerProcess(sabotage=sabotage) as server:
        return await flood(measured(server), turns, TURN_SECONDS)


def check_others_do_not_notice(figures: FloodFigures) -> None:
    assert figures.broken(SHARED_CORES_RISE) == [], figures


@pytest.mark.promise("15")
async def test_a_flooder_is_closed_with_1008_and_kept_out_and_others_do_not_notice() -> None:
    figures = await flooded(turns=4)
    check_others_do_not_notice(figures)
    assert set(figures.refusals) <= {"429"}
    assert figures.let_in == 4  # once a turn, under a name of its own


@pytest.mark.control("15")
async def test_without_the_limit_a_flooder_slows_everybody() -> None:
    with pytest.raises((AssertionError, BenchmarkError), match=r"others' p99 rose|only \d+ of \d+ deploys"):
        check_others_do_not_notice(await flooded(turns=1, sabotage="no_flood_limit"))
