"""Trusted proxies: which address a request really comes from, where a proxy stands between.

`api.shortcuts` asks for every request and handshake if proxies are named at all. Invariant: what a peer that is not
named says of its address is never believed, and no header, however odd, raises or costs more than a few steps.
"""

import ipaddress
import re
from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from typing import Any

MAX_HOPS = 16
"""Of X-Forwarded-For, from its right end: nobody has more proxies of his own in a row."""
_SECURE = {"http": False, "https": True, "ws": False, "wss": True}
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The proxies of these networks (`192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`); others raise ValueError."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def trust(self, address: str) -> bool:
        """Whether `address`, any text at all, is one of them."""
        known = _address_of(address)
        return known is not None and any(known in network for network in self._networks)

    def resolve(self, scope: MutableMapping[str, Any]) -> None:
        """Put into an ASGI `scope` the client and the scheme that a trusted proxy tells; leave those of all others."""
        peer = scope.get("client")
        if peer is None or not self.trust(peer[0]):
            return
        caller = self._caller(peer[0], _header(scope, b"x-forwarded-for"))
        if caller != peer[0]:
            scope["client"] = (caller, 0)
        told = _header(scope, b"x-forwarded-proto").rpartition(",")[2].strip().lower()
        if told in _SECURE:
            secure, plain = ("wss", "ws") if scope["type"] == "websocket" else ("https", "http")
            scope["scheme"] = secure if _SECURE[told] else plain

    def _caller(self, peer: str, forwarded: str) -> str:
        """Return the first address from the right that is no proxy of ours: what stands left of it anybody can send."""
        caller = peer
        for hop in reversed(forwarded.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            address = _address_of(hop.strip())
            if address is None:
                break
            caller = str(address)
            if not self.trust(caller):
                break
        return caller


@lru_cache(maxsize=1024)
def _address_of(text: str) -> Address | None:
    """Return the address in `text`, which may have a port behind it; None if there is none."""
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((with_port["v6"] or with_port["v4"] or "") if with_port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    """Return the values of a header, which may come several times, in one (RFC 9110, section 5.3)."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
