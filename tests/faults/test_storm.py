"""A thousand agents that lose their connections and come back in the same moment; `make bench` sends ten thousand."""

from collections.abc import Mapping

import pytest

from benchmarks.storm import StormFigures, storm
from tests.faults.loads import measured
from tests.support.server import ServerProcess

AGENTS = 1_000


async def stormed(env: Mapping[str, str]) -> StormFigures:
    async with ServerProcess(env=env) as server:
        return await storm(measured(server), AGENTS)


def check_all_came_back_in_time(figures: StormFigures) -> None:
    # Tests share their cores: what the server had to wait for them is not its own slowness, nor the probe's.
    broken = figures.broken(patience=2 * figures.slowed_by)
    assert broken == [], figures


@pytest.mark.promise("13")
async def test_a_fleet_that_comes_back_at_once_is_back_in_time_and_rest_goes_on() -> None:
    check_all_came_back_in_time(await stormed({}))


@pytest.mark.control("13")
async def test_with_a_short_backlog_the_last_of_the_fleet_miss_their_handshake_limit() -> None:
    """The usual 128 for 10,000 agents, scaled down: the kernel drops the other calls, which come again ever later."""
    with pytest.raises(AssertionError, match="handshakes failed or took over 10 s"):
        check_all_came_back_in_time(await stormed({"BACKLOG": "12"}))
