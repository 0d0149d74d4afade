"""The settings of the network's side: where the server listens, who may ask and how often; a part of `config.Settings`.

Each value is brought into the one form that the server compares with. Here it is only its form that is judged.
"""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from control_plane.core.hosts import LOOPBACK, canonical_host

NETWORK_ALLOWED: dict[str, str] = {
    "host": "an IP address, or a name that resolves to one",
    "allowed_origins": "origins such as `https://deploy.example.com`, separated by commas",
    "allowed_hosts": "names, `*.example.com`, addresses and networks, separated by commas; or `*`",
    **dict.fromkeys(("tls_certfile", "tls_keyfile", "tls_client_ca"), "the path of a file in PEM form"),
    "trusted_proxies": "addresses and networks such as `192.0.2.1` and `10.0.0.0/8`, separated by commas",
}
"""What those settings may be that no type tells."""


Words = Annotated[tuple[str, ...], NoDecode]


class NetworkSettings(BaseSettings):
    """The values, right in form."""

    host: str = "0.0.0.0"  # noqa: S104 - agents on other machines must reach it; every route needs a token
    port: int = Field(default=8000, ge=0, le=65_535)
    allowed_origins: Words = ()
    allowed_hosts: Words = ()
    trusted_proxies: Words = ()
    max_failed_tokens_per_minute: int = Field(default=20, ge=1, le=1_000_000)
    max_unauthenticated_per_address: int = Field(default=512, ge=1, le=1_000_000)
    tls_certfile: Path | None = None
    tls_keyfile: Path | None = None
    tls_client_ca: Path | None = None
    backlog: int = Field(default=4096, ge=1, le=65_535)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        return tuple(_canonical_origin(part) for part in _parts(value))

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return tuple(part if part == "*" else canonical_host(part) for part in _parts(value))

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_proxies(cls, value: Any) -> Any:
        return tuple(_canonical_network(part) for part in _parts(value))

    @property
    def served_hosts(self) -> tuple[str, ...]:
        """What requests may ask for: ALLOWED_HOSTS, or on loopback its names; empty for anything at all."""
        if "*" in self.allowed_hosts:
            return ()
        if self.allowed_hosts or not is_loopback(self.host):
            return self.allowed_hosts
        return (*LOOPBACK, self.host.lower())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, an address or name; OSError if it does not resolve."""
    return all(ipaddress.ip_address(address).is_loopback for address in _addresses(host))


def _addresses(host: str) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return [str(sockaddr[0]) for *_, sockaddr in found]


def _parts(value: Any) -> list[str]:
    """Return what is between the commas of a text."""
    parts = value.split(",") if isinstance(value, str) else value
    return [part.strip() for part in parts if part.strip()]


def _canonical_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an address nor a network: write 192.0.2.1, or 10.0.0.0/8 with zeros behind the prefix"
        ) from None
    if not network.prefixlen:
        raise ValueError(f"{text!r} is everybody, who could then come under any address: name your proxies")
    return str(network)


def _canonical_origin(origin: str) -> str:
    """Return `origin` as browsers send it: lower case, no path, no default port (RFC 6454 section 6.2)."""
    try:
        parts = urlsplit(origin.lower().removesuffix("/"))
        port = parts.port
    except ValueError:
        raise ValueError(f"{origin!r} is not an origin") from None
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.netloc.endswith(":") or "@" in parts.netloc:
        raise ValueError(f"{origin!r} is not an origin")
    if parts.path or parts.query or parts.fragment or "*" in host:
        raise ValueError(f"{origin!r} is not an origin: write scheme and host only, each one in full")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in {None, 80 if parts.scheme == "http" else 443} else f":{port}")
