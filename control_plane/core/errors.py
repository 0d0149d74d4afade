"""The one tree of errors that users meet. Each has a stable `code`; the HTTP status is the edge's affair.

ControlPlaneError
├── InvalidInputError            the request is wrong; `fields` name what and why
│   ├── InvalidComposeFileError
│   └── IdempotencyKeyReusedError
├── TooLargeError
├── UnauthorizedError
├── ForbiddenError               the token is valid and may not do this
├── HostnameBoundError           only a token of its own opens this hostname
├── OriginNotAllowedError
├── HostNotAllowedError
├── NotFoundError
│   ├── AgentNotFoundError
│   ├── ProjectNotFoundError
│   ├── DeploymentNotFoundError
│   ├── JobNotFoundError
│   ├── TokenNotFoundError
│   └── OrganizationNotFoundError
├── ConflictError
│   ├── NameCollisionError       Compose would fold two project names into one
│   ├── JobAlreadySentError
│   ├── JobFinishedError
│   ├── HostnameTakenError
│   ├── NameTakenError           another of its kind has the name
│   └── AgentConnectedError      it is possible only while the agent is offline
├── UnavailableError             try again later; `retry_after_seconds` says when
│   ├── AgentNotConnectedError
│   ├── NoAgentsError
│   ├── OverloadedError
│   └── StoreUnavailableError
├── TooManyFailuresError
├── QueueFullError
└── StorageFullError
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class ControlPlaneError(Exception):
    """Something that a user can meet; its text is one sentence that says what to do."""

    code: ClassVar[str] = "internal_error"
    retry_after_seconds: int | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True)
class FieldProblem:
    """One thing that is wrong with a request: where (`services.web.ports[0]`) and why."""

    field: str
    reason: str
    line: int | None = None
    """1-based line in the Compose file, where it is known."""
    column: int | None = None


class InvalidInputError(ControlPlaneError):
    """The request cannot be carried out as it is."""

    code = "invalid_input"

    def __init__(self, detail: str, fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.fields = tuple(fields)


class InvalidComposeFileError(InvalidInputError):
    """The Compose file cannot be deployed."""

    code = "invalid_compose_file"


class IdempotencyKeyReusedError(InvalidInputError):
    """The Idempotency-Key was sent before with another request."""

    code = "idempotency_key_reused"


class TooLargeError(ControlPlaneError):
    """A body or a file is over its bound."""

    code = "too_large"


class UnauthorizedError(ControlPlaneError):
    """No token, or one that is not valid."""

    code = "unauthorized"


class ForbiddenError(ControlPlaneError):
    """The token does not allow this."""

    code = "not_allowed"


class HostnameBoundError(ControlPlaneError):
    """The hostname belongs to an agent with a token of its own, and this is another one."""

    code = "hostname_bound"


class TooManyFailuresError(ControlPlaneError):
    """Too many requests of this address had no valid token."""

    code = "too_many_failures"
    retry_after_seconds: int | None = 60


class OriginNotAllowedError(ControlPlaneError):
    """A web page of another origin may not do this."""

    code = "origin_not_allowed"


class HostNotAllowedError(ControlPlaneError):
    """The request asks for a host that this control plane is not."""

    code = "host_not_allowed"


class NotFoundError(ControlPlaneError):
    """There is no such thing."""

    code = "not_found"


class AgentNotFoundError(NotFoundError):
    """No agent has this id."""

    code = "agent_not_found"


class ProjectNotFoundError(NotFoundError):
    """Nothing was ever deployed under this name (on this agent)."""

    code = "project_not_found"


class DeploymentNotFoundError(NotFoundError):
    """No deployment has this id."""

    code = "deployment_not_found"


class JobNotFoundError(NotFoundError):
    """No job has this id."""

    code = "job_not_found"


class TokenNotFoundError(NotFoundError):
    """No token has this id."""

    code = "token_not_found"


class OrganizationNotFoundError(NotFoundError):
    """No organisation has this id."""

    code = "organization_not_found"


class ConflictError(ControlPlaneError):
    """It does not fit the present state."""

    code = "conflict"


class NameCollisionError(ConflictError):
    """Another project of this agent, the `holder` of the name, would be the same Compose project on its host."""

    code = "name_collision"

    def __init__(self, detail: str, holder: str = "") -> None:
        super().__init__(detail)
        self.holder = holder


class JobAlreadySentError(ConflictError):
    """The agent has the command; it cannot be taken back."""

    code = "job_already_sent"


class JobFinishedError(ConflictError):
    """The job is over."""

    code = "job_finished"


class HostnameTakenError(ConflictError):
    """Another live agent is connected under this hostname."""

    code = "hostname_taken"


class NameTakenError(ConflictError):
    """Another one of its kind has this name."""

    code = "name_taken"


class AgentConnectedError(ConflictError):
    """The agent is connected, and this needs it to be offline."""

    code = "agent_connected"


class UnavailableError(ControlPlaneError):
    """It cannot be done now; it may be later."""

    code = "unavailable"
    retry_after_seconds: int | None = 5


class AgentNotConnectedError(UnavailableError):
    """The agent is known and offline."""

    code = "agent_not_connected"
    retry_after_seconds = 10


class NoAgentsError(UnavailableError):
    """No agent is connected to take a new project."""

    code = "no_agents"
    retry_after_seconds = 10


class OverloadedError(UnavailableError):
    """More requests wait than can be served in good time."""

    code = "overloaded"
    retry_after_seconds = 1


class StoreUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store_unavailable"


class QueueFullError(ControlPlaneError):
    """The agent's queue holds as many jobs as it may."""

    code = "queue_full"
    retry_after_seconds: int | None = 30


class StorageFullError(ControlPlaneError):
    """The disk is full; nothing was stored."""

    code = "storage_full"
    retry_after_seconds: int | None = 60
