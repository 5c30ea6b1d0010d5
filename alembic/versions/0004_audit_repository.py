"""How far the audit trail was sent, and commitments found by their transaction

Revision ID: 0004
Revises: 0003
Created: 2026-11-23 14:35:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "audit_cursors",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_cursors"),
    )
    op.create_index("ix_deliveries_transaction_uid", "deliveries", ["transaction_uid"])


def downgrade() -> None:
    op.drop_index("ix_deliveries_transaction_uid", "deliveries")
    op.drop_table("audit_cursors")
    op.drop_column("audit_events", "stored_at")
