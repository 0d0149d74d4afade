"""The audit: who did what, each row chained to the one before."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("result_id", sa.Integer(), nullable=True),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    _index("ix_audit_organization", ["organization_id", "id"])
    _index("ix_audit_token", ["token_id", "id"], sa.text("token_id IS NOT NULL"))
    _index("ix_audit_action", ["organization_id", "action", "id"], sa.text("action <> 'deploy'"))
    _index("ix_audit_outcome", ["organization_id", "outcome", "id"], sa.text("outcome <> 'done'"))


def _index(name: str, columns: list[str], where: sa.TextClause | None = None) -> None:
    op.create_index(name, "audit", columns, sqlite_where=where, postgresql_where=where)
