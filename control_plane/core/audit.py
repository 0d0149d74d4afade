"""The audit's entries: what is noted of a request that is to change something, and the hash that chains it.

The edges begin an entry for each such request, operations say what it is about, the store's writer writes it with
the change. Invariant: an entry is written once, and names no secret and nothing of a Compose file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from control_plane.core.text import clean_header

CHAIN_START = "0" * 64
"""What stands in the place of a hash before an organisation's first row."""
HASHED = (
    "id",
    "organization_id",
    "at",
    "token_id",
    "actor",
    "role",
    "address",
    "request_id",
    "action",
    "object",
    "outcome",
    "job_id",
    "result_id",
    "previous_hash",
)
"""What a row's hash is made of, in this order: a promise to whoever verifies an export (docs/audit.md)."""
DONE = "done"
REPEATED = "repeated"
"""The same had been done before, and nothing was changed."""
MAX_OBJECT_CHARACTERS = 200


@dataclass(slots=True)
class AuditEntry:
    """Who is about to do what, and what came of it as far as that is known."""

    organization_id: int
    token_id: int | None
    actor: str
    role: str
    """Empty for an enrolment's token, which has none."""
    address: str
    request_id: str
    action: str
    """The operation id of the route; `enroll_agent` for a host that becomes an agent."""
    object: str = ""
    job_id: str | None = None
    outcome: str | None = None
    """DONE, REPEATED or a problem's code; None until the change it is written with tells."""
    written: bool = False
    """Whether it is on the disk: then it is not written again, whatever becomes of the request."""

    def concern(self, what: str) -> None:
        """Say what it is about. The text may hold what the caller sent: it is cleaned, and cut."""
        plain = len(what) <= MAX_OBJECT_CHARACTERS and what.isascii() and what.isprintable()
        self.object = what if plain else clean_header(what, MAX_OBJECT_CHARACTERS)


def hash_of(values: Sequence[Any]) -> str:
    """Return the hash of a row from its values of HASHED: SHA-256 of them as a JSON array, in hexadecimal digits.

    The array is in UTF-8, without spaces between its parts, and escapes only what JSON demands: the very bytes that
    the standard library makes of it, in a quarter of the time.
    """
    return sha256(to_json(values)).hexdigest()
