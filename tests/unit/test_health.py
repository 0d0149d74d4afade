"""What is kept of answers to health checks: bounded, clean and of known form, whatever agents say."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.health import AMOUNTS, MAX_TEXT, TEXTS, read_health

NUMBERS = st.integers() | st.floats() | st.booleans() | st.integers(min_value=10**400, max_value=10**401)
ANYTHING = st.recursive(
    st.none() | NUMBERS | st.text(max_size=400) | st.just("\ud800\x1b[31m\x00"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
KNOWN = st.sampled_from([*TEXTS, *AMOUNTS, "load_average", "error", "latency_seconds", "else"])


def test_what_an_agent_tells_is_kept_by_its_known_names() -> None:
    told = {
        "version": "1.0.0",
        "architecture": "linux-amd64",
        "docker_version": "29.1.3",
        "docker_error": "The Docker daemon does not answer.",
        "disk_free_bytes": 0,
        "memory_total_bytes": 2**63 - 1,
        "load_average": [0, 1.005, 12],
    }
    assert read_health(told, "", 0.01234567) == {
        "latency_seconds": 0.0123,
        "version": "1.0.0",
        "docker_version": "29.1.3",
        "docker_error": "The Docker daemon does not answer.",
        "disk_free_bytes": 0,
        "memory_total_bytes": 2**63 - 1,
        "load_average": [0.0, 1.0, 12.0],
    }


def test_a_failed_check_keeps_why() -> None:
    assert read_health(None, "unknown command\x1b[31m type", 1.0) == {
        "latency_seconds": 1.0,
        "error": "unknown command[31m type",
    }


@pytest.mark.parametrize(
    "told",
    [
        *({name: value} for name in AMOUNTS for value in (-1, 2**63, 1.5, True, "1", math.nan, None)),
        *(
            {"load_average": value}
            for value in (1, [], [1, 2], [1, 2, 3, 4], [1, 2, math.inf], [1, 2, "3"], [-1, 0, 0])
        ),
        *({name: value} for name in TEXTS for value in (1, None, ["x"], {"x": 1}, "", "\x00\x1b\n")),
        {"latency_seconds": 99, "error": "not said by a failed check"},
    ],
)
def test_a_value_of_another_form_is_left_out(told: dict[str, Any]) -> None:
    assert read_health(told, "", 0.5) == {"latency_seconds": 0.5}


@given(told=st.dictionaries(KNOWN, ANYTHING) | ANYTHING, error=st.text())
def test_whatever_an_agent_says_the_row_stays_small_and_any_database_takes_it(told: Any, error: str) -> None:
    health = read_health(told, error, 0.5)
    text = json.dumps(health, allow_nan=False)
    assert len(health) <= 20
    assert len(text.encode()) < 20 * 6 * MAX_TEXT
    for value in health.values():
        if isinstance(value, str):
            assert len(value) <= MAX_TEXT
            assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in value)
            value.encode()
