"""Organisations, tokens, agents' labels; what is there already belongs to the organisation `default`."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAMES = {"uq": "%(table_name)s_%(column_0_name)s_key", "pk": "%(table_name)s_pkey"}
"""As PostgreSQL names constraints by itself, so that both dialects drop them by one name."""
ENDED = sa.text("status IN ('failed', 'stopped')")
FAILED = sa.text("status = 'failed'")
OF_PROJECT = sa.text("project_name IS NOT NULL AND kind <> 'deploy_accepted'")
KNOWN = sa.text("forgotten_at IS NULL")
OF_AGENT = sa.text("agent_id IS NOT NULL")


def upgrade() -> None:
    _make_organizations()
    _change_agents()
    _make_labels_and_tokens()
    _change_history()
    _change_keys()


def _organization_id() -> sa.Column[int]:
    return sa.Column("organization_id", sa.Integer(), nullable=False, server_default="1")


def _index(
    name: str, table: str, columns: list[str], where: sa.TextClause | None = None, *, unique: bool = False
) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _replace_index(name: str, table: str, columns: list[str], where: sa.TextClause | None = None) -> None:
    op.drop_index(name, table_name=table)
    _index(name, table, columns, where)


def _make_organizations() -> None:
    table = op.create_table(
        "organization",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    now = datetime.now(UTC)
    on_sqlite = op.get_bind().dialect.name == "sqlite"  # where the store keeps times as text, in its own form
    at = sa.literal(now.isoformat(" ", "microseconds"), sa.Text()) if on_sqlite else sa.literal(now)
    op.execute(sa.insert(table).values(id=1, name="default", created_at=at))


def _change_agents() -> None:
    op.drop_index("ix_agent_status", table_name="agent")
    last_id = _last_agent_id()
    with op.batch_alter_table("agent", naming_convention=NAMES, table_kwargs={"sqlite_autoincrement": True}) as agent:
        agent.add_column(_organization_id())
        agent.add_column(sa.Column("cordoned", sa.Boolean(), nullable=False, server_default=sa.false()))
        agent.add_column(sa.Column("bound", sa.Boolean(), nullable=False, server_default=sa.false()))
        agent.add_column(sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True))
        agent.drop_constraint("agent_hostname_key", type_="unique")
        agent.create_foreign_key("agent_organization_id_fkey", "organization", ["organization_id"], ["id"])
    if last_id is not None:
        op.execute(sa.text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'agent'").bindparams(last=last_id))
    _index("ux_agent_hostname", "agent", ["organization_id", "hostname"], KNOWN, unique=True)
    _index("ix_agent_organization", "agent", ["organization_id", "id"])
    _index("ix_agent_status", "agent", ["organization_id", "status", "id"])


def _last_agent_id() -> int | None:
    """Return the last id ever given to an agent where that is kept beside the table, which is made anew."""
    if op.get_bind().dialect.name != "sqlite":
        return None
    found: int | None = op.get_bind().execute(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'agent'")).scalar()
    return found


def _make_labels_and_tokens() -> None:
    op.create_table(
        "agent_label",
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"]),
        sa.PrimaryKeyConstraint("agent_id", "key"),
    )
    _index("ix_agent_label", "agent_label", ["key", "value", "agent_id"])
    op.create_table(
        "token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=True),
        sa.Column("agent_id", sa.Integer(), nullable=True),
        sa.Column("enrollment_id", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("previous_digest", sa.String(), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("projects", sa.JSON(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=True),
        sa.Column("uses_left", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("previous_digest"),
        sqlite_autoincrement=True,
    )
    _index("ix_token_organization", "token", ["organization_id", "kind", "id"])
    _index("ix_token_agent", "token", ["agent_id"], OF_AGENT)
    _index("ix_token_revision", "token", ["revision"], unique=True)


def _change_history() -> None:
    for table in ("deployment", "job", "event"):
        op.add_column(table, _organization_id())
    _index("ix_deployment_organization", "deployment", ["organization_id", "id"])
    _replace_index("ix_deployment_project", "deployment", ["organization_id", "project_name", "id"])
    _replace_index("ix_deployment_ended", "deployment", ["organization_id", "status", "id"], ENDED)
    project_and_status = ["organization_id", "project_name", "status", "id"]
    _replace_index("ix_deployment_ended_project", "deployment", project_and_status, ENDED)
    _index("ix_job_organization", "job", ["organization_id", "id"])
    _replace_index("ix_job_project", "job", ["organization_id", "project_name", "id"])
    _replace_index("ix_job_failed", "job", ["organization_id", "status", "id"], FAILED)
    _replace_index("ix_job_failed_project", "job", project_and_status, FAILED)
    _replace_index("ix_event_kind", "event", ["organization_id", "kind", "id"])
    _replace_index("ix_event_project", "event", ["organization_id", "project_name", "kind", "id"], OF_PROJECT)


def _change_keys() -> None:
    """Names of projects and Idempotency-Keys are each organisation's own."""
    op.drop_index("ux_placement_name", table_name="placement")
    with op.batch_alter_table("placement", naming_convention=NAMES) as placement:
        placement.add_column(_organization_id())
        placement.drop_constraint("placement_pkey", type_="primary")
        placement.create_primary_key("placement_pkey", ["organization_id", "project_name", "agent_id"])
    _index("ux_placement_name", "placement", ["agent_id", "folded_name"], sa.text("NOT released"), unique=True)
    op.drop_index("ix_idempotency_record_created", table_name="idempotency_record")
    with op.batch_alter_table("idempotency_record", naming_convention=NAMES) as record:
        record.add_column(_organization_id())
        record.drop_constraint("idempotency_record_pkey", type_="primary")
        record.create_primary_key("idempotency_record_pkey", ["key", "organization_id"])
    _index("ix_idempotency_record_created", "idempotency_record", ["created_at"])
