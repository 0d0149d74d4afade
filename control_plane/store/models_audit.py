"""The audit's table; see `models`. `store.audit` writes it, and nothing changes or removes a row of it."""

from datetime import datetime

from sqlalchemy import Text, text
from sqlmodel import Field, SQLModel

from control_plane.store.columns import UTCDateTime, index

AUDIT_HAS_TOKEN = text("token_id IS NOT NULL")
AUDIT_IS_NO_DEPLOY = text("action <> 'deploy'")
AUDIT_IS_NOT_DONE = text("outcome <> 'done'")
"""What is sought is rare: a deploy that is done is in none of these two indexes, for each costs a deploy time."""


class Audit(SQLModel, table=True):
    """One request that changed something, or was refused to. It refers to no row: it outlives them."""

    __table_args__ = (
        index("ix_audit_organization", "organization_id", "id"),
        index("ix_audit_token", "token_id", "id", where=AUDIT_HAS_TOKEN),
        index("ix_audit_action", "organization_id", "action", "id", where=AUDIT_IS_NO_DEPLOY),
        index("ix_audit_outcome", "organization_id", "outcome", "id", where=AUDIT_IS_NOT_DONE),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(primary_key=True)
    """Without a gap."""
    organization_id: int
    """Of the token, whatever organisation it acted on."""
    at: datetime = Field(sa_type=UTCDateTime)
    """When it was written: in the order of ids."""
    token_id: int | None = None
    actor: str
    """The token's name at that time."""
    role: str
    address: str
    request_id: str
    action: str
    object: str = Field(sa_type=Text)
    outcome: str
    job_id: str | None = None
    result_id: int | None = None
    """Of what came of it: the deployment, token, organisation or agent."""
    previous_hash: str
    """Of the organisation's row before this one."""
    hash: str
