"""The agent wire: commands, responses, handshake headers and close codes, and their JSON.

Used by the control plane and by `agent/`. Installed agents speak exactly this, so names here never
change; what newer agents say beyond it is optional and marked so. Nothing here opens a socket.
"""

import json
import math
from enum import IntEnum, StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from control_plane.core.skim import skim

PATH = "/ws"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest frame either side takes; a larger one closes the connection with 1009."""

HEADER_VERSION = "X-Agent-Version"
HEADER_ARCHITECTURE = "X-Agent-Architecture"
HEADER_HOSTNAME = "X-Agent-Hostname"
HEADER_CAPABILITIES = "X-Agent-Capabilities"
"""Optional: space-separated `Capability` values. Go agents do not send it."""
HEADER_INSTANCE = "X-Agent-Instance"
"""Optional: a random id of the agent's process. Another value means that the process before it is gone."""

HEADER_AGENT_TOKEN = "X-Agent-Token"  # noqa: S105
"""In the answer to an accepted handshake that came with an enrolment's token: the agent's own from now on."""

MAX_DATA_CHARACTERS = 1024 * 1024
"""Of an answer's `data`; of a larger one nothing is kept, and the rest of the answer counts."""

MAX_DIGITS = 4300
"""Of an integer in `data`: what int() takes by default (sys.get_int_max_str_digits)."""

UNKNOWN_JOB_ID = "unknown"
"""What an agent answers for when it could not parse a command."""


class Capability(StrEnum):
    """What an agent can do beyond the Go agent's wire."""

    RESEND = "resend"
    """A command whose job id the agent knows, running or finished, is answered again and never run again;
    finished ids and undelivered answers survive the agent's restart. Of a HEALTH_CHECK neither is asked for."""
    STATUS_JSON = "status-json"
    """STATUS answers `data` with the parsed list of `docker compose ps --all --format json`."""
    DRY_RUN = "dry-run"
    """The agent only validates; it starts nothing."""
    ENROLL = "enroll"
    """Given an enrolment's token, the agent takes a token of its own from the accepted handshake, and keeps it."""


class CommandType(StrEnum):
    """What the control plane can ask of an agent."""

    DEPLOY_COMPOSE = "DEPLOY_COMPOSE"
    STOP_COMPOSE = "STOP_COMPOSE"
    STATUS = "STATUS"
    HEALTH_CHECK = "HEALTH_CHECK"

    @property
    def changes_project(self) -> bool:
        """Whether it changes what runs, and so must wait for the project's command before it."""
        return self is CommandType.DEPLOY_COMPOSE or self is CommandType.STOP_COMPOSE


class ResponseStatus(StrEnum):
    """How far an agent says a command is."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """Whether no further answer for the job is to be expected."""
        return self is ResponseStatus.COMPLETED or self is ResponseStatus.FAILED


class CloseCode(IntEnum):
    """Why the control plane closes an agent's socket (RFC 6455, section 7.4)."""

    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    INVALID_UTF8 = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTARTING = 1012
    REPLACED = 4001
    """Another connection of the same hostname took this one's place."""


class Command(BaseModel):
    """One command, control plane to agent. Unknown keys are ignored, as the Go agent does."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=200)
    type: CommandType
    payload: dict[str, Any]


class Response(BaseModel):
    """One answer, agent to control plane."""

    model_config = ConfigDict(extra="ignore")

    job_id: str = Field(min_length=1, max_length=200)
    status: ResponseStatus
    logs: str = ""
    error: str = ""
    data: Any = None
    whole_log: Literal[True] | None = None
    """Optional, newer agents: `logs` is the job's whole log and replaces what was streamed before."""


_UNREADABLE = frozenset({"json_invalid", "string_unicode"})
"""Pydantic's names for text that its JSON reader does not take, a lone surrogate in it included."""


class BadMessageError(ValueError):
    """A frame's text is not a message of this protocol; the text says why."""


def encode_command(job_id: str, kind: CommandType, payload: dict[str, Any]) -> str:
    """Return the JSON text of a command. `payload` must be JSON-serialisable; `{}` is sent as such."""
    return to_json({"id": job_id, "type": kind.value, "payload": payload}).decode()


def decode_command(text: str) -> Command:
    """Read a command, as agents do. Raises BadMessageError."""
    try:
        return Command.model_validate_json(text)
    except ValidationError as error:
        raise BadMessageError(_first_reason(error)) from None


def encode_response(response: Response) -> str:
    """Return the JSON text of an answer; `error`, `data` and `whole_log` are left out when empty."""
    document: dict[str, Any] = {
        "job_id": response.job_id,
        "status": response.status.value,
        "logs": response.logs,
    }
    if response.error:
        document["error"] = response.error
    if response.whole_log:
        document["whole_log"] = True
    if response.data is not None:  # Last, so that one which cannot be read costs nothing else.
        document["data"] = response.data
    return json.dumps(document, separators=(",", ":"))


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
