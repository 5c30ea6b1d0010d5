"""A model's limits stand on what it says, and so does why it serves although it failed its battery

Revision ID: 0009
Revises: 0008
Created: 2026-11-25 16:00:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_results = sa.table("classifications", sa.column("verdict", sa.String), sa.column("certainty", sa.Double))


def upgrade() -> None:
    op.add_column("classifications", sa.Column("limits", sa.Text(), nullable=False, server_default=""))
    op.add_column("classifications", sa.Column("despite", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("battery", sa.JSON(), nullable=True))
    op.add_column("model_versions", sa.Column("despite", sa.Text(), nullable=True))
    # An abstention is certain of nothing.
    op.execute(_results.update().where(_results.c.verdict == "indeterminate").values(certainty=0.0))


def downgrade() -> None:
    op.drop_column("model_versions", "despite")
    op.drop_column("model_versions", "battery")
    op.drop_column("classifications", "despite")
    op.drop_column("classifications", "limits")
