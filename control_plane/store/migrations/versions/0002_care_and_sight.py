"""Events, idempotency records, agents' health; and indexes to look up what refers to a row that is removed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("agent") as agent:
        agent.add_column(sa.Column("health", sa.JSON(), nullable=True))
        agent.add_column(sa.Column("health_at", sa.DateTime(timezone=True), nullable=True))
        agent.add_column(sa.Column("missed_checks", sa.Integer(), nullable=False, server_default="0"))
    # What refers to a row is looked up whenever that row is removed.
    op.create_index("ix_deployment_compose_file", "deployment", ["compose_file_hash"])
    op.create_index("ix_job_deployment", "job", ["deployment_id"])
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("agent_id", sa.Integer(), nullable=True),
        sa.Column("project_name", sa.String(), nullable=True),
        sa.Column("deployment_id", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_kind", "event", ["kind", "id"])
    op.create_index(
        "ix_event_agent",
        "event",
        ["agent_id", "kind", "id"],
        sqlite_where=sa.text("agent_id IS NOT NULL AND kind <> 'deploy_accepted'"),
        postgresql_where=sa.text("agent_id IS NOT NULL AND kind <> 'deploy_accepted'"),
    )
    op.create_index(
        "ix_event_project",
        "event",
        ["project_name", "kind", "id"],
        sqlite_where=sa.text("project_name IS NOT NULL AND kind <> 'deploy_accepted'"),
        postgresql_where=sa.text("project_name IS NOT NULL AND kind <> 'deploy_accepted'"),
    )
    op.create_index(
        "ix_event_deployment",
        "event",
        ["deployment_id"],
        sqlite_where=sa.text("kind = 'deploy_accepted'"),
        postgresql_where=sa.text("kind = 'deploy_accepted'"),
    )
    op.create_table(
        "idempotency_record",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_idempotency_record_created", "idempotency_record", ["created_at"])
