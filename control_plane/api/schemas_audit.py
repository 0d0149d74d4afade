"""What answers about the audit look like; see `schemas`."""

from datetime import datetime

from pydantic import BaseModel, Field

from control_plane.api.schemas import FromRow


class AuditOut(FromRow):
    """A request that changed something, or was refused to."""

    id: int
    at: datetime
    token_id: int | None = Field(description="Null for the token that the control plane was started with.")
    actor: str = Field(description="The token's name at that time.")
    role: str = Field(description="The token's; empty for an enrolment's.")
    address: str = Field(description="From which it came.")
    request_id: str = Field(description="The answer's `X-Request-ID`; empty for an enrolment.")
    action: str = Field(description="The route's operation id, or `enroll_agent`.", examples=["deploy"])
    object: str = Field(description="What it was about, for people.", examples=["project shop on agent 3"])
    outcome: str = Field(
        description="`done`; `repeated`, which changed nothing more; or the problem's code.", examples=["not_allowed"]
    )
    job_id: str | None
    result_id: int | None = Field(description="Of the deployment, token, organisation or agent that came of it.")
    previous_hash: str = Field(description="That of the organisation's entry before.")
    hash: str = Field(description="What chains this entry to that one; docs/audit.md has the recipe.")


class AuditPage(BaseModel):
    """Entries of the audit, newest first."""

    entries: list[AuditOut]
    next_cursor: str | None
