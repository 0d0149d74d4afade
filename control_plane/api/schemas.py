"""What requests and answers look like. Rows of the store never leave as they are: these models choose and name.

Invariant: names here are a promise to callers; fields may be added, none renamed or taken away.
"""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from control_plane.core.events import EventKind
from control_plane.core.states import AgentStatus, DeploymentStatus, FailureReason, JobStatus

EXAMPLE_COMPOSE = "services:\n  web:\n    image: nginx:alpine\n    ports:\n      - 8080:80\n"
MIN_TIMEOUT_SECONDS = 10
MAX_TIMEOUT_SECONDS = 86_400

AgentId = Annotated[int, Field(ge=1, le=2**63 - 1, description="An agent's id, from `GET /agents`.")]
AgentIdInBody = Annotated[AgentId, Field(strict=True)]
"""JSON has numbers: `true` would be taken for agent 1, and the project started on a host that nobody named."""
TimeoutSeconds = Annotated[
    int,
    Field(
        strict=True,
        ge=MIN_TIMEOUT_SECONDS,
        le=MAX_TIMEOUT_SECONDS,
        description="How long the command may run once it was sent. Default: 900 for a deploy, 600 for a stop.",
    ),
]


class FromRow(BaseModel):
    """Made from a row of the store by its attributes."""

    model_config = ConfigDict(from_attributes=True)


class ServiceInfo(BaseModel):
    """Which service this is."""

    service: str = Field(examples=["InstaDeploy control plane"])
    version: str = Field(examples=["0.1.0"])
    status: Literal["running"]


class Health(BaseModel):
    """That the process answers, and how many agents are connected."""

    status: Literal["healthy"]
    connected_agents: int
    unresponsive_agents: int = Field(description="Those of them that leave health checks unanswered.")


class Readiness(BaseModel):
    """Whether it should be given traffic."""

    status: Literal["ready"]


class AgentBrief(FromRow):
    """A host that has connected at least once."""

    id: int
    hostname: str
    ip_address: str
    status: AgentStatus
    last_seen: datetime = Field(description="When the agent last sent anything, keep-alive included.")
    version: str
    architecture: str = Field(examples=["linux-amd64"])
    created_at: datetime


class DeployRequest(BaseModel):
    """A Compose project to be deployed. Give the file as text or in base64, not both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"project_name": "hello", "compose_file": EXAMPLE_COMPOSE},
                {
                    "project_name": "hello",
                    "compose_file_base64": base64.b64encode(EXAMPLE_COMPOSE.encode()).decode(),
                    "when_offline": "queue",
                    "timeout_seconds": 1800,
                },
            ]
        },
    )

    project_name: str = Field(
        max_length=1000,
        description="Letters, digits, `_` and `-`; at most 63, with at least one letter or digit.",
        examples=["hello"],
    )
    compose_file: str | None = Field(default=None, description="The Compose file as text.")
    compose_file_base64: str | None = Field(
        default=None, description="The Compose file in standard base64, with or without line breaks."
    )
    agent_id: AgentIdInBody | None = Field(
        default=None,
        description="Where to. Without it: the agent that the project is on, or the one with the fewest deployments.",
    )
    when_offline: Literal["fail", "queue"] = Field(
        default="fail", description="`queue` accepts a deploy for an agent that is not connected, for up to 24 hours."
    )
    timeout_seconds: TimeoutSeconds | None = None

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.compose_file is None) == (self.compose_file_base64 is None):
            raise ValueError("give the Compose file as either compose_file or compose_file_base64")
        return self


class StopRequest(BaseModel):
    """Which agent's project to stop; needed only for a project that is on several."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})

    agent_id: AgentIdInBody | None = None
    timeout_seconds: TimeoutSeconds | None = None


class JobOutcome(BaseModel):
    """How a job stands; the fields below `job_id` are null until there is something to say."""

    job_id: str
    status: JobStatus
    logs: str | None = Field(default=None, description="What the agent said; the middle of very long logs is cut.")
    error: str | None = Field(default=None, description="Why it failed, for people.")
    reason: FailureReason | None = Field(default=None, description="Why it failed, for programs.")


class DeployAnswer(JobOutcome):
    """An accepted deploy. With `wait`, also its outcome."""

    deployment_id: int
    agent_id: int
    message: str
    warnings: list[str] = Field(description="What in the Compose file may not work as it hopes.")


class StopAnswer(JobOutcome):
    """An accepted stop. With `wait`, also its outcome."""

    message: str


class QueryAnswer(JobOutcome):
    """What an agent answered, or how far the question is if it takes longer than `wait`."""

    data: Any = Field(default=None, description="The agent's structured answer, of agents that give one.")


class JobOut(FromRow):
    """One command's execution on an agent, without its log."""

    id: str
    command_type: str = Field(examples=["DEPLOY_COMPOSE"])
    status: JobStatus
    reason: FailureReason | None
    error: str | None
    agent_id: int
    project_name: str | None
    deployment_id: int | None
    attempt: int = Field(description="How often the command was sent.")
    timeout_seconds: int
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    deadline_at: datetime = Field(description="When the job fails if it is not sent, or once sent not answered.")
    finished_at: datetime | None


class JobDetail(JobOut):
    """A job with all that its agent said."""

    logs: str
    data: Any


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobOut]
    next_cursor: str | None


class DeploymentOut(FromRow):
    """One revision of a project on an agent."""

    id: int
    project_name: str
    agent_id: int
    status: DeploymentStatus
    compose_file_hash: str = Field(description="SHA-256 of the Compose file as it was sent.")
    created_at: datetime
    updated_at: datetime
    last_error: str | None


class DeploymentDetail(DeploymentOut):
    """A deployment with the end of what its last command said."""

    last_logs: str


class DeploymentPage(BaseModel):
    """Deployments, newest first."""

    deployments: list[DeploymentOut]
    next_cursor: str | None


class EventOut(FromRow):
    """Something that happened."""

    id: int
    at: datetime
    kind: EventKind
    message: str = Field(
        description="One sentence, for people.", examples=["Agent 1 (web-1) connected from 192.0.2.7."]
    )
    agent_id: int | None
    project_name: str | None
    deployment_id: int | None
    job_id: str | None
    details: dict[str, Any] | None = Field(description="More of it, for programs; what depends on the kind.")

    @field_validator("details", mode="before")
    @classmethod
    def _without_private(cls, details: Any) -> Any:
        return details and {name: value for name, value in details.items() if not name.startswith("_")}


class EventPage(BaseModel):
    """Events, newest first."""

    events: list[EventOut]
    next_cursor: str | None


class ProjectPlaceOut(FromRow):
    """A project on one agent."""

    agent: AgentBrief
    latest: DeploymentOut = Field(description="The newest deployment, whatever became of it.")
    current: DeploymentOut | None = Field(description="The one that runs; null when none does.")


class ProjectOut(BaseModel):
    """A project and every agent that it was deployed to."""

    project_name: str
    agents: list[ProjectPlaceOut]


class ProjectPage(BaseModel):
    """Projects, by name."""

    projects: list[ProjectOut]
    next_cursor: str | None
