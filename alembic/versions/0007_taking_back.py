"""Reports that are taken back, images that are rejected, and when an exam came to its end without a result

Revision ID: 0007
Revises: 0006
Created: 2026-11-23 20:20:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("series", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("deliveries", sa.Column("attempted", sa.Boolean(), server_default=sa.false(), nullable=False))
    deliveries = sa.table("deliveries", sa.column("attempted", sa.Boolean()), sa.column("attempts", sa.Integer()),
                          sa.column("sop_uid", sa.String()))  # fmt: skip
    op.execute(
        deliveries.update()
        .where(sa.or_(deliveries.c.attempts > 0, deliveries.c.sop_uid.is_not(None)))
        .values(attempted=sa.true())
    )
    op.create_table(
        "retractions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("grounds", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(length=128), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_retractions_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retractions")),
        sa.UniqueConstraint("series_id", name=op.f("uq_retractions_series_id")),
    )
    op.create_table(
        "rejected_instances",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("note_uid", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_uid", sa.String(length=64), nullable=False),
        sa.Column("grounds", sa.String(length=16), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_instances")),
        sa.UniqueConstraint("study_uid", "sop_uid", name=op.f("uq_rejected_instances_study_uid_sop_uid")),
    )


def downgrade() -> None:
    op.drop_table("rejected_instances")
    op.drop_table("retractions")
    op.drop_column("deliveries", "attempted")
    op.drop_column("series", "withdrawn_at")
    op.drop_column("series", "ended_at")
