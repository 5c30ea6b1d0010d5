"""How a series was reconstructed, the rule that chose it, shadow, and the series that it speaks for instead of

Revision ID: 0005
Revises: 0004
Created: 2026-11-23 17:20:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("description", sa.String(length=256), nullable=False, server_default=""))
    op.add_column("series", sa.Column("kernel", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("series", sa.Column("thickness_mm", sa.Double(), nullable=True))
    op.add_column("series", sa.Column("scope_rule", sa.String(length=64), nullable=True))
    op.add_column("series", sa.Column("shadow", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("series", sa.Column("instead_of_id", sa.Integer(), nullable=True))


def downgrade() -> None:
    for name in ("instead_of_id", "shadow", "scope_rule", "thickness_mm", "kernel", "description"):
        op.drop_column("series", name)
