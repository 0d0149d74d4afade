"""Failures are counted for each address and a minute at a time, within a bound, and nobody is told twice."""

import pytest

from control_plane.core import failure_limits
from control_plane.core.addresses import limited_as
from control_plane.core.failure_limits import WINDOW_SECONDS, FailureLimits


class Limits(FailureLimits):
    """Limits with a clock that a test sets."""

    def __init__(self, max_failures: int) -> None:
        self.now = 1000.0
        self.told: list[str] = []
        super().__init__(max_failures, self.told.append, lambda: self.now)


def test_failures_beyond_the_limit_are_told_how_long_to_wait() -> None:
    limits = Limits(3)
    assert [limits.note("192.0.2.1") for _ in range(3)] == [0, 0, 0]
    assert limits.note("192.0.2.1") == 60
    limits.now += 59.5
    assert limits.note("192.0.2.1") == 1


def test_a_minute_after_the_first_failure_all_is_forgotten() -> None:
    limits = Limits(1)
    limits.note("192.0.2.1")
    limits.now += WINDOW_SECONDS - 0.001
    assert limits.note("192.0.2.1") == 1
    limits.now += 0.001
    assert limits.note("192.0.2.1") == 0


def test_another_address_has_failures_of_its_own() -> None:
    limits = Limits(1)
    assert [limits.note("192.0.2.1"), limits.note("192.0.2.2")] == [0, 0]


def test_an_address_that_goes_beyond_is_told_of_once_a_window() -> None:
    limits = Limits(1)
    for _ in range(50):
        limits.note("192.0.2.1")
    assert limits.told == ["192.0.2.1"]
    limits.now += WINDOW_SECONDS
    for _ in range(50):
        limits.note("192.0.2.1")
    assert limits.told == ["192.0.2.1"] * 2


@pytest.mark.promise("guessing")
def test_addresses_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_limits, "MAX_ADDRESSES", 100)
    limits = Limits(1)
    for number in range(1000):
        limits.now += 0.001
        limits.note(f"192.0.{number // 256}.{number % 256}")
    assert len(limits) == 100
    assert limits.note("192.0.3.231") > 0, "the latest are remembered"
    limits.now += WINDOW_SECONDS
    limits.note("192.0.2.1")
    assert len(limits) == 1


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_the_addresses_of_one_network_count_as_one(address: str, key: str) -> None:
    assert limited_as(address) == key
