"""The agent wire as the control plane speaks it: the server's half of its JSON, and all words of `core.wire`.

Used by every floor of the control plane. What agents send is read leniently where a strict reader would cost
a job its answer, and bounded where a large message would cost the others their time. Nothing here opens a socket.
"""

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from control_plane.core.skim import skim
from control_plane.core.wire import (
    AGENT_TOKEN_PREFIX,
    ENROLLMENT_TOKEN_PREFIX,
    HEADER_AGENT_TOKEN,
    HEADER_ARCHITECTURE,
    HEADER_CAPABILITIES,
    HEADER_HOSTNAME,
    HEADER_INSTANCE,
    HEADER_VERSION,
    MAX_JOB_ID_CHARACTERS,
    MAX_MESSAGE_BYTES,
    PATH,
    UNKNOWN_JOB_ID,
    BadMessageError,
    Capability,
    CloseCode,
    CommandType,
    ResponseStatus,
)

__all__ = [
    "AGENT_TOKEN_PREFIX",
    "ENROLLMENT_TOKEN_PREFIX",
    "HEADER_AGENT_TOKEN",
    "HEADER_ARCHITECTURE",
    "HEADER_CAPABILITIES",
    "HEADER_HOSTNAME",
    "HEADER_INSTANCE",
    "HEADER_VERSION",
    "MAX_DATA_CHARACTERS",
    "MAX_DIGITS",
    "MAX_MESSAGE_BYTES",
    "PATH",
    "UNKNOWN_JOB_ID",
    "BadMessageError",
    "Capability",
    "CloseCode",
    "CommandType",
    "Response",
    "ResponseStatus",
    "decode_response",
    "encode_command",
]

MAX_DATA_CHARACTERS = 1024 * 1024
"""Of an answer's `data`; of a larger one nothing is kept, and the rest of the answer counts."""

MAX_DIGITS = 4300
"""Of an integer in `data`: what int() takes by default (sys.get_int_max_str_digits)."""


class Response(BaseModel):
    """One answer, agent to control plane."""

    model_config = ConfigDict(extra="ignore")

    job_id: str = Field(min_length=1, max_length=MAX_JOB_ID_CHARACTERS)
    status: ResponseStatus
    logs: str = ""
    error: str = ""
    data: Any = None
    whole_log: Literal[True] | None = None
    """Optional, newer agents: `logs` is the job's whole log and replaces what was streamed before."""


_UNREADABLE = frozenset({"json_invalid", "string_unicode"})
"""Pydantic's names for text that its JSON reader does not take, a lone surrogate in it included."""


def encode_command(job_id: str, kind: CommandType, payload: dict[str, Any]) -> str:
    """Return the JSON text of a command. `payload` must be JSON-serialisable; `{}` is sent as such."""
    return to_json({"id": job_id, "type": kind.value, "payload": payload}).decode()


def decode_response(text: str) -> Response:
    """Read an agent's answer. Raises BadMessageError.

    Strict JSON first, for it is fast; then, so that an odd value in the logs cannot cost a job its
    answer, Python's lenient reader: lone surrogates become U+FFFD; NaN, infinities and integers of more digits
    than Python converts become null. `data` that is too large or too deep is left out, if it stands after the rest.
    """
    if len(text) > MAX_DATA_CHARACTERS and (plain := _without_nested(text, MAX_DATA_CHARACTERS)):
        return plain
    try:
        response = Response.model_validate_json(text)
    except ValidationError as strict:
        if strict.errors(include_url=False, include_input=False)[0]["type"] not in _UNREADABLE:
            raise BadMessageError(_first_reason(strict)) from None
    else:
        if response.data is not None and not _is_json(response.data):  # That reader takes NaN and 1e999 for numbers.
            response.data = _plain(response.data)
        return response
    try:
        document = json.loads(text, parse_constant=lambda _: None, parse_int=_integer)
        return Response.model_validate(_plain(document))
    except ValidationError as error:
        raise BadMessageError(_first_reason(error)) from None
    except RecursionError:
        if plain := _without_nested(text, 0):
            return plain
        raise BadMessageError("nested too deeply to be read") from None
    except ValueError as error:
        raise BadMessageError(f"not JSON: {error}") from None


def _without_nested(text: str, longest: int) -> Response | None:
    """Return an answer without what is nested in it, if that and what follows has more than `longest` characters.

    None when there is no more than that. Raises BadMessageError when what stands before it is no answer.
    """
    members, at = skim(text)
    if len(text) - at <= longest or text[at] == "}":
        return None
    try:
        return Response.model_validate(_plain(members))
    except ValidationError:
        raise BadMessageError("too large or too deeply nested to be read") from None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _plain(value: Any) -> Any:
    """Return a value read from JSON without lone surrogates and without numbers that JSON does not have."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _first_reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "message"
    return f"{where}: {first['msg']}"
