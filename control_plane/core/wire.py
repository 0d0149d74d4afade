"""The words of the agent wire, and the agent's half of its JSON: it reads commands and writes answers.

`agent/` imports this and nothing else of the control plane; `core.protocol` adds the server's half. Only the
standard library is imported here, for hosts run the agent without installing a package (decision 0014).
Installed agents speak exactly this, so names here never change; what newer agents say beyond it is optional.
"""

import json
import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

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
HEADER_AGENT_TOKEN = "X-Agent-Token"  # noqa: S105 - a header's name
"""Of the answer to an agent that enrols: the token of its own, told only this once. Never logged."""

ENROLLMENT_TOKEN_PREFIX = "ide_"  # noqa: S105 - what every one begins with
AGENT_TOKEN_PREFIX = "idh_"  # noqa: S105 - what every one begins with

MAX_JOB_ID_CHARACTERS = 200
UNKNOWN_JOB_ID = "unknown"
"""What an agent answers for when it could not parse a command."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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
    """Dialled with an enrolment token, the agent keeps the token of its own that comes in X-Agent-Token on its disk
    before it takes a command, and presents that one from then on."""


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


@dataclass(frozen=True)
class Command:
    """One command, control plane to agent. Unknown keys are ignored, as the Go agent does."""

    id: str
    type: CommandType
    payload: dict[str, Any]


class BadMessageError(ValueError):
    """A frame's text is not a message of this protocol; the text says why."""


def decode_command(text: str) -> Command:
    """Read a command, as agents do. Raises BadMessageError, whose text begins with the member that is wrong."""
    try:
        members = json.loads(text)
    except RecursionError:
        raise BadMessageError("message: nested too deeply to be read") from None
    except ValueError as error:
        raise BadMessageError(f"message: Invalid JSON: {error}") from None
    if not isinstance(members, dict):
        raise BadMessageError("message: not a JSON object")
    job_id, payload = members.get("id"), members.get("payload")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_JOB_ID_CHARACTERS or _LONE_SURROGATE.search(job_id):
        raise BadMessageError(f"id: not a text of 1 to {MAX_JOB_ID_CHARACTERS} characters")
    if members.get("type") not in list(CommandType):
        raise BadMessageError(f"type: none of {', '.join(CommandType)}")
    if not isinstance(payload, dict):
        raise BadMessageError("payload: not a JSON object")
    return Command(job_id, CommandType(members["type"]), payload)


def encode_response(
    job_id: str,
    status: ResponseStatus,
    *,
    logs: str = "",
    error: str = "",
    data: Any = None,
    whole_log: bool | None = None,
) -> str:
    """Return the JSON text of an answer; `error`, `data` and `whole_log` are left out when empty."""
    document: dict[str, Any] = {"job_id": job_id, "status": status.value, "logs": logs}
    if error:
        document["error"] = error
    if whole_log:
        document["whole_log"] = True
    if data is not None:  # Last, so that one which cannot be read costs nothing else.
        document["data"] = data
    return json.dumps(document, separators=(",", ":"))
