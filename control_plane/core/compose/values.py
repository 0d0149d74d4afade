"""Values that Compose reads further than the schema says: ports, durations, sizes, numbers, flags.

Called by `meaning` for each service. Each check returns the reason a value is refused, or None. Values
with variables are never judged here: only the host knows them.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from control_plane.core.compose.interpolation import is_interpolated
from control_plane.core.compose.problems import Path

Check = Callable[[Any], str | None]
Checks = Mapping[str, "Check | Checks"]

_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h|d|w))+)")
_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)* ?[kKmMgGtTpP]?[iI]?[bB]?|-1")
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_FLAGS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "1", "0", "t", "f"})
_PORTS = re.compile(r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})


def duration(value: Any) -> str | None:
    """Check a duration, as Go and Compose write them."""
    return None if _is(_DURATION, value) else "must be a duration such as `30s` or `1m30s`"


def size(value: Any) -> str | None:
    """Check a number of bytes."""
    return None if _is(_SIZE, value) else "must be a size such as `512m` or `1g`"


def whole_number(value: Any) -> str | None:
    """Check text that Compose casts to an integer."""
    return None if _is(_WHOLE, value) else "must be a whole number"


def number(value: Any) -> str | None:
    """Check text that Compose casts to a float."""
    return None if _is(_DECIMAL, value) else "must be a number"


def flag(value: Any) -> str | None:
    """Check text that Compose casts to a boolean."""
    return None if type(value) is not str or value.lower() in _FLAGS else "must be `true` or `false`"


def health_test(value: Any) -> str | None:
    """Check the list form of `healthcheck.test`."""
    if type(value) is not list or not value or value[0] in ("CMD", "CMD-SHELL", "NONE"):
        return None
    return "must begin with `CMD`, `CMD-SHELL` or `NONE`"


def port(value: Any) -> str | None:
    """Check one entry of `ports`: `[[ip:]host:]container[/protocol]`, a number, or the long form."""
    if type(value) is dict:
        if not value.get("target"):
            return "lacks `target`, the port inside of the container"
        return whole_number(value["target"])
    if type(value) in (int, float):
        return None if type(value) is int and 0 < value <= 65535 else "must be a port from 1 to 65535"
    return _short_port(value)


def _short_port(text: str) -> str | None:
    text, slash, protocol = text.partition("/")
    if slash and protocol.lower() not in _PROTOCOLS:
        return "has an unknown protocol: use `/tcp`, `/udp` or `/sctp`"
    address, _, inside = text.rpartition(":")
    address, _, outside = address.rpartition(":")
    inner, outer = _port_range(inside), _port_range(outside)
    if inner is None or (outside and outer is None):
        return "must be a port such as `80`, `8080:80` or `127.0.0.1:8080:80`, each from 0 to 65535"
    if outer and inner > 1 and outer != inner:
        return "has port ranges of different lengths"
    return _bad_address(address.removeprefix("[").removesuffix("]")) if address else None


def _port_range(text: str) -> int | None:
    """Return how many ports `80` or `80-90` names, or None if it names none."""
    match = _PORTS.fullmatch(text)
    if not match:
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return last - first + 1 if first <= last <= 65535 else None


def _bad_address(address: str) -> str | None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "has a host part that is no IP address"
    return None


_RESOURCES: Checks = {"cpus": number, "memory": size, "pids": whole_number}
_UPDATES: Checks = {"parallelism": whole_number, "delay": duration, "monitor": duration}

SERVICE_CHECKS: Checks = {
    **dict.fromkeys(("mem_limit", "mem_reservation", "memswap_limit", "shm_size"), size),
    **dict.fromkeys(("privileged", "read_only", "tty", "stdin_open", "init", "oom_kill_disable"), flag),
    **dict.fromkeys(("scale", "cpu_count", "pids_limit", "oom_score_adj", "mem_swappiness"), whole_number),
    **dict.fromkeys(("cpus", "cpu_percent", "cpu_shares", "cpu_quota"), number),
    "stop_grace_period": duration,
    "healthcheck": {
        **dict.fromkeys(("interval", "timeout", "start_period", "start_interval"), duration),
        "retries": number,
        "disable": flag,
        "test": health_test,
    },
    "deploy": {
        "replicas": whole_number,
        "resources": {"limits": _RESOURCES, "reservations": {"cpus": number, "memory": size}},
        "restart_policy": {"delay": duration, "window": duration, "max_attempts": whole_number},
        "update_config": _UPDATES,
        "rollback_config": _UPDATES,
    },
}
"""What each value of a service must be; the kinds are those of Compose's own table of casts."""


def bad_values(path: Path, mapping: dict[str, Any], checks: Checks) -> Iterator[tuple[Path, str]]:
    """Yield the path and the reason of each value of `mapping` that fails its check."""
    for key, value in mapping.items():
        check = checks.get(key)
        if check is None or value is None:
            continue
        if not callable(check):
            if type(value) is dict:
                yield from bad_values((*path, key), value, check)
        elif not is_interpolated(value) and (reason := check(value)):
            yield (*path, key), reason


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return type(value) is not str or bool(pattern.fullmatch(value))
