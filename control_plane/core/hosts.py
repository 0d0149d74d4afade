"""Allowed hosts: the names and addresses that requests may ask for in their Host header.

`api.hosts` and `ws.hosts` ask. A page of a strange site can have its own name lead to this server (DNS rebinding) and
is then, to the browser, a page of this server's; but the name stays in Host. Invariant: the port is never looked at.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence

LOOPBACK = ("localhost", "127.0.0.0/8", "::1")
"""What only this machine's own programs call it, whatever any name server says."""
MAX_REMEMBERED = 256

_PORT = re.compile(r":\d*$")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


class AllowedHosts:
    """Patterns as `canonical_host` returns them: names, `*.example.com`, addresses and networks."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._remembered: set[bytes] = set()
        """Values of Host that were looked at and allowed, for callers send the same ones again and again."""
        for pattern in patterns:
            if pattern.startswith("*."):
                self._suffixes.append(pattern[1:])
            elif _is_network(pattern):
                self._networks.append(ipaddress.ip_network(pattern))
            else:
                self._names.add(pattern)

    def allow(self, values: Sequence[bytes]) -> bool:
        """Whether a request with these Host headers may be served: with exactly one, which is allowed."""
        if len(values) != 1:
            return False
        [value] = values
        if value in self._remembered:
            return True
        if not self._allows(_without_port(value)):
            return False
        if len(self._remembered) < MAX_REMEMBERED:
            self._remembered.add(value)
        return True

    def _allows(self, host: str) -> bool:
        if address := _address(host):
            return any(address in network for network in self._networks)
        return host in self._names or any(
            host.endswith(suffix) and len(host) > len(suffix) for suffix in self._suffixes
        )


def is_address(values: Sequence[bytes]) -> bool:
    """Whether these Host headers name no host but an address, or nothing at all: no page's name led here."""
    return not values or (len(values) == 1 and _address(_without_port(values[0])) is not None)


def canonical_host(text: str) -> str:
    """Return a pattern in the form that is compared with. Raises ValueError for what no Host header could ask for."""
    if _is_network(text):
        return str(ipaddress.ip_network(text))
    host = _without_port(text.encode())
    if address := _address(host):
        return str(address)
    if not _NAME.fullmatch(host) or "/" in text:
        raise ValueError(
            f"{text!r} is not a host: write deploy.example.com, *.example.com or an address, without https:// and path"
        )
    return host


def _without_port(value: bytes) -> str:
    host = value.decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else _PORT.sub("", host).removesuffix(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
