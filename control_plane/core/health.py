"""Health: what an agent's answer to HEALTH_CHECK tells, in our own words and within bounds. Pure.

`fleet.health` calls it. Agents may answer anything: what is kept has a name and a form from the tables here,
whatever came, so that a row stays small and a reader of the API knows what to expect.
"""

import math
from collections.abc import Mapping
from typing import Any

from control_plane.core.text import clean_header

MAX_TEXT = 200
MAX_NUMBER = 2**63 - 1
"""The largest integer that every database and every reader of JSON in a compiled language takes."""
MAX_LOADS = 3
"""Load averages over 1, 5 and 15 minutes (getloadavg(3))."""

TEXTS = ("version", "docker_version", "compose_version", "docker_error")
AMOUNTS = ("disk_free_bytes", "disk_total_bytes", "memory_available_bytes", "memory_total_bytes")

Health = dict[str, Any]


def read_health(data: Any, error: str, latency_seconds: float) -> Health:
    """Return what is kept of an answer: `latency_seconds`, and of `data` the known names that hold what they should.

    `error` is what the agent said if the check failed there, else empty.
    """
    said: Mapping[str, Any] = data if isinstance(data, dict) else {}
    health: Health = {"latency_seconds": round(latency_seconds, 4)}
    for name, value in {**{name: said.get(name) for name in TEXTS}, "error": error}.items():
        if isinstance(value, str) and (text := clean_header(value, MAX_TEXT)):
            health[name] = text
    for name in AMOUNTS:
        value = said.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
            health[name] = value
    if loads := _loads(said.get("load_average")):
        health["load_average"] = loads
    return health


def _loads(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != MAX_LOADS:
        return []
    good = [
        isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each <= MAX_NUMBER and math.isfinite(each)
        for each in value
    ]
    return [round(float(each), 2) for each in value] if all(good) else []
