"""Bearer tokens: making one, taking one out of a header, and checking it against a stored SHA-256 digest.

Used by `api/` and `ws/` on every request and handshake, before anything else is believed. A checker never
holds a token in clear, and takes equally long for every wrong one. Tokens are 256 random bits, so a plain
hash is enough: a slow password hash would add nothing and would choke thousands of agents reconnecting at once.
"""

import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from control_plane.core.wire import AGENT_TOKEN_PREFIX, ENROLLMENT_TOKEN_PREFIX

DIGEST_BYTES = hashlib.sha256().digest_size
TOKEN_BYTES = 32
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY = 43
"""Digits that 256 bits take."""
_CHECKSUM = 6
"""Digits that a CRC-32 takes."""


class TokenKind(StrEnum):
    """Who comes with a token."""

    API = "api"
    """A caller of the API."""
    AGENT = "agent"
    """The one agent whose own it is."""
    ENROLLMENT = "enrollment"
    """A host that is about to become an agent."""


PREFIXES = {
    TokenKind.API: "ida_",
    TokenKind.AGENT: AGENT_TOKEN_PREFIX,
    TokenKind.ENROLLMENT: ENROLLMENT_TOKEN_PREFIX,
}
"""By which people, and scanners of published secrets, tell what they have found."""


@dataclass(frozen=True, slots=True)
class TokenChecker:
    """Knows one token by its digest."""

    digest: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_BYTES:
            raise ValueError(f"a SHA-256 digest has {DIGEST_BYTES} bytes, not {len(self.digest)}")

    @classmethod
    def of_plain(cls, token: str) -> Self:
        """Return a checker for a token known in clear; an empty one would let everybody in: ValueError."""
        if not token:
            raise ValueError("a token must not be empty")
        return cls(digest_of(token))

    @classmethod
    def of_digest(cls, hex_digest: str) -> Self:
        """Return a checker for a token known by its digest: 64 hexadecimal digits, else ValueError."""
        return cls(bytes.fromhex(hex_digest))

    def matches(self, presented: str) -> bool:
        """Whether `presented`, any text at all, is the token; in constant time."""
        return self.has_digest(digest_of(presented))

    def has_digest(self, digest: bytes) -> bool:
        """Whether it is the digest of the token; in constant time."""
        return hmac.compare_digest(digest, self.digest)


def make_token(kind: TokenKind) -> str:
    """Return a new token: its kind's prefix, 256 random bits and a checksum, in letters and digits."""
    start = PREFIXES[kind] + _in_digits(int.from_bytes(secrets.token_bytes(TOKEN_BYTES), "big"), _BODY)
    return start + _checksum(start)


def is_damaged(token: str) -> bool:
    """Whether it begins as a token of ours and was cut off or mistyped since."""
    start, checksum = token[:-_CHECKSUM], token[-_CHECKSUM:]
    return token.startswith(tuple(PREFIXES.values())) and checksum != _checksum(start)


def _checksum(start: str) -> str:
    return _in_digits(zlib.crc32(start.encode("utf-8", "surrogatepass")), _CHECKSUM)


def _in_digits(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, last = divmod(number, len(_DIGITS))
        digits = _DIGITS[last] + digits
    return digits


def bearer_token(header: str | None) -> str | None:
    """Return the token of an `Authorization` header's value, or None if there is none or it is not Bearer.

    `Bearer`, in any case, then spaces, then one word (RFC 6750 section 2.1, RFC 9110 section 11.4).
    """
    if header is None:
        return None
    scheme, _, rest = header.strip(" \t").partition(" ")
    token = rest.strip(" \t")
    if scheme.lower() != "bearer" or not token or " " in token or "\t" in token:
        return None
    return token


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of any text."""
    # Strangers choose this text: lone surrogates must not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
