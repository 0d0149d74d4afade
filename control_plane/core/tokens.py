"""Bearer tokens: taking one out of a header, and checking it against a stored SHA-256 digest.

Used by `api/` and `ws/` on every request and handshake, before anything else is believed. A checker never
holds a token in clear, and takes equally long for every wrong one. Tokens are 256 random bits, so a plain
hash is enough: a slow password hash would add nothing and would choke thousands of agents reconnecting at once.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Self

DIGEST_BYTES = hashlib.sha256().digest_size


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
        return cls(_digest(token))

    @classmethod
    def of_digest(cls, hex_digest: str) -> Self:
        """Return a checker for a token known by its digest: 64 hexadecimal digits, else ValueError."""
        return cls(bytes.fromhex(hex_digest))

    def matches(self, presented: str) -> bool:
        """Whether `presented`, any text at all, is the token; in constant time."""
        return hmac.compare_digest(_digest(presented), self.digest)


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


def _digest(token: str) -> bytes:
    # Strangers choose this text: lone surrogates must not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
