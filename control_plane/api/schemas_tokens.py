"""What requests and answers about tokens and organisations look like; see `schemas`."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from control_plane.api.schemas import FromRow
from control_plane.api.schemas_agents import DAY_SECONDS, LabelText
from control_plane.core.access import MAX_LABELS, MAX_PATTERNS, Role
from control_plane.core.tokens import TokenKind

OrganizationId = Annotated[int, Field(ge=1, le=2**63 - 1, description="An organisation's id.")]
_PROJECTS = "Patterns, with `*` and `?`, of the projects that it may touch; empty: all."
_LABELS = "Labels that the agents it may touch all have; empty: all agents."


class TokenRequest(BaseModel):
    """A token for the API."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "ci of shop", "role": "deployer", "projects": ["shop-*"], "labels": {"env": "staging"}},
                {"name": "on-call", "role": "operator"},
            ]
        },
    )

    name: str = Field(max_length=100, description="Who or what uses it, for people.")
    role: Role = Field(description="What it may do; each role may all that those before it may.")
    organization_id: Annotated[OrganizationId, Field(strict=True)] | None = Field(
        default=None, description="Of which organisation; another one than the caller's for root only."
    )
    projects: list[Annotated[str, Field(max_length=63)]] = Field(
        default=[], max_length=MAX_PATTERNS, description=_PROJECTS
    )
    labels: dict[LabelText, LabelText] = Field(default={}, max_length=MAX_LABELS, description=_LABELS)
    expires_at: AwareDatetime | None = Field(default=None, description="When it ends by itself; null: never.")


class RotationRequest(BaseModel):
    """How long the old token is good beside the new one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: int = Field(
        default=0, strict=True, ge=0, le=30 * DAY_SECONDS, description="How long the old one is good beside the new."
    )


class TokenOut(FromRow):
    """A token, without itself."""

    id: int
    kind: TokenKind = Field(description="`api`, or `enrollment` for hosts that are to become agents.")
    name: str
    role: Role | None = Field(description="Null for an enrolment.")
    organization_id: int
    projects: list[str] = Field(description=_PROJECTS)
    labels: dict[str, str] = Field(description=f"{_LABELS} Of an enrolment: what its agents get.")
    uses_left: int | None = Field(description="Of an enrolment: how many more hosts it enrols.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    previous_until: datetime | None = Field(description="Until when the token before the last rotation is good.")

    @field_validator("projects", mode="before")
    @classmethod
    def _no_projects(cls, value: Any) -> Any:
        return value or []

    @field_validator("labels", mode="before")
    @classmethod
    def _no_labels(cls, value: Any) -> Any:
        return value or {}


class NewTokenOut(TokenOut):
    """A token that was made just now."""

    token: str = Field(description="Shown this once; keep it.", examples=["ida_…"])


class TokenPage(BaseModel):
    """Tokens, newest first."""

    tokens: list[TokenOut]
    next_cursor: str | None


class OrganizationRequest(BaseModel):
    """An organisation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "acme"}]})

    name: str = Field(max_length=63, description="a-z, 0-9 and `-`, a letter or digit at each end.")


class OrganizationOut(FromRow):
    """Whose agents, projects and tokens these are."""

    id: int
    name: str
    created_at: datetime


class OrganizationPage(BaseModel):
    """Organisations, lowest id first."""

    organizations: list[OrganizationOut]
    next_cursor: str | None


class Me(BaseModel):
    """Who the caller is."""

    name: str = Field(description="Of the token; `API_TOKEN` for the one that the control plane was started with.")
    token_id: int | None
    role: Role
    organization: OrganizationOut
    projects: list[str] = Field(description=_PROJECTS)
    labels: dict[str, str] = Field(description=_LABELS)
