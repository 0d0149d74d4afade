"""What requests and answers about agents look like; see `schemas`."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from control_plane.api.schemas import AgentBrief
from control_plane.core.access import MAX_LABELS

DAY_SECONDS = 24 * 60 * 60
LabelText = Annotated[str, Field(max_length=63)]


class AgentHealth(BaseModel):
    """What an agent told when it last answered a health check; null is what it does not tell."""

    latency_seconds: float = Field(description="From the question to the whole answer.")
    version: str | None = None
    docker_version: str | None = None
    compose_version: str | None = None
    docker_error: str | None = Field(default=None, description="Why Docker or Compose cannot be used there.")
    disk_free_bytes: int | None = Field(default=None, description="Of the disk that holds the agent's projects.")
    disk_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_total_bytes: int | None = None
    load_average: list[float] | None = Field(default=None, description="Over 1, 5 and 15 minutes.")
    error: str | None = Field(default=None, description="Why the check itself failed there.")


class AgentOut(AgentBrief):
    """A host that has connected at least once, and how it is."""

    health: AgentHealth | None = Field(description="Its last answer to a health check; null before the first.")
    health_at: datetime | None = Field(description="When that answer came.")
    missed_checks: int = Field(description="Health checks in a row that it has left unanswered.")
    labels: dict[str, str] = Field(description="What operators have marked it with.", examples=[{"env": "prod"}])
    cordoned: bool = Field(description="Whether no new project is placed here unless a deploy names this agent.")
    bound: bool = Field(description="Whether its hostname can be had only with a token of its own.")

    @field_validator("labels", mode="before")
    @classmethod
    def _as_object(cls, rows: Any) -> Any:
        return {row.key: row.value for row in rows} if isinstance(rows, list) else rows


class AgentPage(BaseModel):
    """Agents, lowest id first."""

    agents: list[AgentOut]
    total: int = Field(description="All that match, on this page or not.")
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class AgentChanges(BaseModel):
    """What is to change of an agent; what is not named stays (RFC 7396)."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"labels": {"env": "prod", "old": None}}, {"cordoned": True}]}
    )

    labels: dict[LabelText, LabelText | None] | None = Field(
        default=None, max_length=MAX_LABELS, description="Labels to set, and with null those to take away."
    )
    cordoned: bool | None = Field(default=None, strict=True, description="Whether new projects are kept off.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.labels is None and self.cordoned is None:
            raise ValueError("say what to change: labels, cordoned or both")
        return self


class EnrollmentRequest(BaseModel):
    """A token by which hosts may become agents, once each."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{}, {"uses": 20, "labels": {"env": "prod"}}]}
    )

    name: str = Field(default="enrolment", max_length=100, description="What it is for, for people.")
    labels: dict[LabelText, LabelText] = Field(
        default={}, max_length=MAX_LABELS, description="What the agents are marked with."
    )
    uses: int = Field(default=1, strict=True, ge=1, le=10_000, description="How many hosts it enrols.")
    expires_in_seconds: int = Field(
        default=15 * 60, strict=True, ge=60, le=30 * DAY_SECONDS, description="How long it is good for."
    )


class Enrollment(BaseModel):
    """An enrolment's token, shown this once."""

    id: int = Field(description="By which `DELETE /tokens/{id}` takes it back.")
    name: str
    token: str = Field(examples=["ide_…"])
    labels: dict[str, str]
    uses: int
    expires_at: datetime


class AgentToken(BaseModel):
    """An agent's own token, shown this once."""

    token: str = Field(description="The agent's `AGENT_SECRET_TOKEN` from now on.", examples=["idh_…"])
