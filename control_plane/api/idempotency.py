"""The Idempotency-Key header: what makes it safe to send a request again whose answer was lost.

Routes that change something take it; the key stands for method, path and the very bytes of the body, not for the
query, so that a repetition may wait longer. Without the header nothing is done but to look for it.
"""

import re
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request

from control_plane.api.auth import Caller
from control_plane.core.errors import FieldProblem, InvalidInputError
from control_plane.store.idempotency import KeyedRequest

_NAME = b"idempotency-key"
_KEY = re.compile(rb"[ -~]{1,255}")

REPLAYED = {"Idempotency-Replayed": "true"}
"""The headers of an answer to a request that was carried out before."""
REPLAYED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Idempotency-Replayed": {
                "description": "`true` when the same request was carried out before, and nothing was done now.",
                "schema": {"type": "string", "enum": ["true"]},
            }
        }
    }
}
KEY_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Makes it safe to send the request again: within 24 hours the same key with the same "
            "path and body changes nothing more and gets the first answer.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
            "example": "pipeline-4711-deploy",
        }
    ]
}
"""`openapi_extra` of a route that takes the header."""


async def keyed_request(request: Request, caller: Caller) -> KeyedRequest | None:
    """Return how the caller's key names this request, None if it gave no key. Raises InvalidInputError."""
    key = None
    for name, value in request.scope["headers"]:
        if name == _NAME:
            if key is not None or not _KEY.fullmatch(value):
                raise _bad_key()
            key = value
    if key is None:
        return None
    scope = request.scope
    # Neither a method nor a path has a line break in it as it came, so that no two requests read the same.
    named = b"%b %b\n" % (scope["method"].encode(), scope["raw_path"])
    # What a token was answered may be out of another one's reach.
    own = f"{caller.reach.mark}\n{key.decode()}" if caller.reach.is_limited else key.decode()
    return KeyedRequest(caller.organization_id, own, sha256(named + await request.body()).hexdigest())


Keyed = Annotated[KeyedRequest | None, Depends(keyed_request)]


def _bad_key() -> InvalidInputError:
    reason = "must be sent once, as 1 to 255 printable ASCII characters"
    return InvalidInputError(f"Idempotency-Key: {reason}.", [FieldProblem("Idempotency-Key", reason)])
