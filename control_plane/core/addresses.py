"""Addresses of callers: which of them count as one where something is limited per address.

Used by the limits on failed tokens and on connections. Invariant: no caller can look like many by choosing another
address of its own network, and none of another kind of text ever raises.
"""

import ipaddress
from functools import lru_cache

OWN_NETWORK_BITS = 64
"""Whoever has one IPv6 address usually has all of these (RFC 6177), and could take a new one for each request."""


@lru_cache(maxsize=1024)
def limited_as(address: str) -> str:
    """Return what stands for `address` in a limit: an IPv4 address itself, of an IPv6 address its /64."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:  # what a socket for both kinds calls an IPv4 address
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), OWN_NETWORK_BITS), strict=False))
