"""The tables. Imported by the queries of this floor and by migrations, and by nobody above it as API models.

Statuses hold the values of `core.states`; times are UTC; partial indexes serve both as "what is active"
look-ups, small however long the history grows, and as locks that let one of a kind exist at a time. Those
look-ups carry `status` as a column too: one more equality is what makes SQLite choose them over a full index.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, LargeBinary, Text, text
from sqlmodel import Field, Relationship, SQLModel

from control_plane.core.states import AgentStatus, DeploymentStatus, JobStatus
from control_plane.store.columns import UTCDateTime, index

JOB_IS_ACTIVE = text("status IN ('queued', 'in_progress')")
"""Literal on purpose: SQLite matches a partial index by the text of its condition, not by bound values."""
JOB_IS_UNSENT = text("status = 'queued' AND sent_at IS NULL")
JOB_HAS_FAILED = text("status = 'failed'")
DEPLOYMENT_IS_ACTIVE = text("status IN ('pending', 'running')")
DEPLOYMENT_HAS_ENDED = text("status IN ('failed', 'stopped')")
IS_ACTIVE_STATUS_QUERY = text("command_type = 'STATUS' AND status IN ('queued', 'in_progress')")
IS_ACTIVE_HEALTH_CHECK = text("command_type = 'HEALTH_CHECK' AND status IN ('queued', 'in_progress')")
PLACEMENT_HOLDS_NAME = text("NOT released")
TOKEN_HAS_AGENT = text("agent_id IS NOT NULL")
AGENT_IS_KNOWN = text("forgotten_at IS NULL")
EVENT_ACCEPTS_DEPLOY = text("kind = 'deploy_accepted'")
"""Such an event is found through its deployment, whose indexes are there: each more costs a deploy 1 % of its time."""
EVENT_HAS_AGENT = text("agent_id IS NOT NULL AND kind <> 'deploy_accepted'")
EVENT_HAS_PROJECT = text("project_name IS NOT NULL AND kind <> 'deploy_accepted'")


class Organization(SQLModel, table=True):
    """Whose agents, projects and tokens these are: what nothing reaches across."""

    id: int = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=UTCDateTime)


class Agent(SQLModel, table=True):
    """A host that has connected at least once. Its hostname is its identity within its organisation."""

    __table_args__ = (
        index("ux_agent_hostname", "organization_id", "hostname", where=AGENT_IS_KNOWN, unique=True),
        index("ix_agent_organization", "organization_id", "id"),
        index("ix_agent_status", "organization_id", "status", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    hostname: str
    ip_address: str
    status: str = AgentStatus.OFFLINE
    last_seen: datetime = Field(sa_type=UTCDateTime)
    version: str = ""
    architecture: str = ""
    created_at: datetime = Field(sa_type=UTCDateTime)
    capabilities: str = ""
    instance: str = ""
    connection_id: str = ""
    """The socket that owns this row's status; the late clean-up of another one changes nothing."""
    health: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    """What the agent's last answered HEALTH_CHECK told, in our own words."""
    health_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    """When that answer came."""
    missed_checks: int = 0
    """HEALTH_CHECKs in a row that were not answered in time."""
    cordoned: bool = False
    """Whether no new project is placed here."""
    bound: bool = False
    """Whether its hostname can be had only with a token of its own, from the first such token on."""
    forgotten_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    """When an operator took it from the fleet; its history stays, and a host of its name is another agent."""
    labels: list["AgentLabel"] = Relationship(sa_relationship_kwargs={"lazy": "selectin", "order_by": "AgentLabel.key"})


class AgentLabel(SQLModel, table=True):
    """One `key=value` that an operator gave an agent."""

    __tablename__ = "agent_label"
    __table_args__ = (index("ix_agent_label", "key", "value", "agent_id"),)

    agent_id: int = Field(primary_key=True, foreign_key="agent.id")
    key: str = Field(primary_key=True)
    value: str


class ComposeFile(SQLModel, table=True):
    """A Compose file as it was sent, kept once however often it is deployed."""

    __tablename__ = "compose_file"

    sha256: str = Field(primary_key=True)
    content: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=UTCDateTime)


class Deployment(SQLModel, table=True):
    """One POST /deploy: a revision of a project on an agent."""

    __table_args__ = (
        index("ix_deployment_organization", "organization_id", "id"),
        index("ix_deployment_project", "organization_id", "project_name", "id"),
        index("ix_deployment_agent", "agent_id", "id"),
        index("ix_deployment_compose_file", "compose_file_hash"),
        index("ix_deployment_active", "agent_id", "status", "project_name", where=DEPLOYMENT_IS_ACTIVE),
        index("ix_deployment_ended", "organization_id", "status", "id", where=DEPLOYMENT_HAS_ENDED),
        index("ix_deployment_ended_agent", "agent_id", "status", "id", where=DEPLOYMENT_HAS_ENDED),
        index(
            "ix_deployment_ended_project",
            *("organization_id", "project_name", "status", "id"),
            where=DEPLOYMENT_HAS_ENDED,
        ),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(primary_key=True)
    organization_id: int
    project_name: str
    agent_id: int = Field(foreign_key="agent.id")
    status: str = DeploymentStatus.PENDING
    compose_file_hash: str = Field(foreign_key="compose_file.sha256")
    created_at: datetime = Field(sa_type=UTCDateTime)
    updated_at: datetime = Field(sa_type=UTCDateTime)
    last_logs: str = Field(default="", sa_type=Text)
    last_error: str | None = Field(default=None, sa_type=Text)


class Placement(SQLModel, table=True):
    """A project on an agent: its newest deployment, the one that runs, and its hold on the folded name.

    Compose makes one project of `Web`, `web` and `_web` on a host. The unique index gives the folded name
    to one of them, from its first deploy until it was stopped (`released`).
    """

    __table_args__ = (index("ux_placement_name", "agent_id", "folded_name", where=PLACEMENT_HOLDS_NAME, unique=True),)

    organization_id: int = Field(primary_key=True)
    project_name: str = Field(primary_key=True)
    agent_id: int = Field(primary_key=True, foreign_key="agent.id")
    folded_name: str
    released: bool = False
    latest_deployment_id: int
    current_deployment_id: int | None = None
    updated_at: datetime = Field(sa_type=UTCDateTime)


class Job(SQLModel, table=True):
    """One command's execution on an agent. Ids are UUIDv7, so that their order is the order of creation."""

    __table_args__ = (
        index("ix_job_organization", "organization_id", "id"),
        index("ix_job_project", "organization_id", "project_name", "id"),
        index("ix_job_agent", "agent_id", "id"),
        index("ix_job_deployment", "deployment_id"),
        index("ix_job_active", "agent_id", "status", "id", where=JOB_IS_ACTIVE),
        index("ix_job_deadline", "deadline_at", where=JOB_IS_ACTIVE),
        index("ix_job_failed", "organization_id", "status", "id", where=JOB_HAS_FAILED),
        index("ix_job_failed_agent", "agent_id", "status", "id", where=JOB_HAS_FAILED),
        index("ix_job_failed_project", "organization_id", "project_name", "status", "id", where=JOB_HAS_FAILED),
        index("ux_job_status_query", "agent_id", "project_name", where=IS_ACTIVE_STATUS_QUERY, unique=True),
        index("ux_job_health_check", "agent_id", where=IS_ACTIVE_HEALTH_CHECK, unique=True),
    )

    id: str = Field(primary_key=True)
    organization_id: int
    deployment_id: int | None = Field(default=None, foreign_key="deployment.id")
    agent_id: int = Field(foreign_key="agent.id")
    project_name: str | None = None
    command_type: str
    status: str = JobStatus.QUEUED
    reason: str | None = None
    logs: str = Field(default="", sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    data: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    attempt: int = 0
    """How often the command was sent."""
    timeout_seconds: int
    created_at: datetime = Field(sa_type=UTCDateTime)
    updated_at: datetime = Field(sa_type=UTCDateTime)
    deadline_at: datetime = Field(sa_type=UTCDateTime)
    """Until it is sent: when it must have been sent. Afterwards: when its final answer must have come."""
    sent_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    sent_instance: str = ""
    """The agent's process that it was last sent to, where the agent names it."""
    finished_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class JobLog(SQLModel, table=True):
    """What a running job has said so far, in pieces; merged into `job.logs` when the job is over."""

    __tablename__ = "job_log"

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    position: int = Field(primary_key=True)
    text: str = Field(sa_type=Text)


class Event(SQLModel, table=True):
    """Something that happened, for operators; written with what it tells, and never changed.

    It refers to no row: it outlives them.
    """

    __table_args__ = (
        index("ix_event_kind", "organization_id", "kind", "id"),
        index("ix_event_agent", "agent_id", "kind", "id", where=EVENT_HAS_AGENT),
        index("ix_event_project", "organization_id", "project_name", "kind", "id", where=EVENT_HAS_PROJECT),
        index("ix_event_deployment", "deployment_id", where=EVENT_ACCEPTS_DEPLOY),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(primary_key=True)
    organization_id: int
    """What is of the control plane itself is of the first organisation, whose tokens may be root."""
    at: datetime = Field(sa_type=UTCDateTime)
    """When it was written: in the order of ids, so that a time can be looked up by halving them."""
    kind: str
    agent_id: int | None = None
    project_name: str | None = None
    deployment_id: int | None = None
    job_id: str | None = None
    message: str = Field(sa_type=Text)
    """One sentence."""
    details: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)


class IdempotencyRecord(SQLModel, table=True):
    """A caller's Idempotency-Key, what it was used for, and what was answered; kept for a day."""

    __tablename__ = "idempotency_record"
    __table_args__ = (index("ix_idempotency_record_created", "created_at"),)

    key: str = Field(primary_key=True)
    organization_id: int = Field(primary_key=True)
    request_hash: str
    """SHA-256 of the method, the path and the body."""
    job_id: str | None = None
    answer: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    created_at: datetime = Field(sa_type=UTCDateTime)


class Token(SQLModel, table=True):
    """A secret by which callers, agents or hosts that become agents are known; only its SHA-256 is here."""

    __table_args__ = (
        index("ix_token_organization", "organization_id", "kind", "id"),
        index("ix_token_agent", "agent_id", where=TOKEN_HAS_AGENT),
        index("ix_token_revision", "revision", unique=True),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    kind: str
    """A `core.tokens.TokenKind`."""
    name: str
    role: str | None = None
    """Of a caller's."""
    agent_id: int | None = Field(default=None, foreign_key="agent.id")
    """Of an agent's own: whose it is."""
    enrollment_id: int | None = None
    """Of an agent's own that an enrolment made: which one."""
    digest: str = Field(unique=True)
    previous_digest: str | None = Field(default=None, unique=True)
    """The one before the last rotation, good until `previous_until`."""
    previous_until: datetime | None = Field(default=None, sa_type=UTCDateTime)
    projects: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    """Patterns that limit it, as a list."""
    labels: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    """Of a caller's: what limits it. Of an enrolment's: what its agents get. As an object."""
    uses_left: int | None = None
    """Of an enrolment's: how many more agents it enrols."""
    created_at: datetime = Field(sa_type=UTCDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    revision: int
    """Rises with each change of any token, so that processes read again only what has changed."""
