"""Where the evidence of key slices comes from

Revision ID: 0006
Revises: 0005
Created: 2026-11-23 17:40:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("slice_results", sa.Column("activation", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("slice_results", "activation")
