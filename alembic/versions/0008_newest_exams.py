"""The newest exams are found without sorting all of them

Revision ID: 0008
Revises: 0007
Created: 2026-11-24 00:30:00
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_series_received_at_id", "series", ["received_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_series_received_at_id", table_name="series")
