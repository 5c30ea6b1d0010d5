"""Promotions, training runs, who imported a model, and why an exam is indeterminate

Revision ID: 0002
Revises: 0001
Created: 2026-11-23 07:40:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("previous_id", sa.Integer(), nullable=True),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("promoted_by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model_versions.id"], name=op.f("fk_promotions_model_id")),
        sa.ForeignKeyConstraint(["previous_id"], ["model_versions.id"], name=op.f("fk_promotions_previous_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_table(
        "training_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("requested_by", sa.String(length=128), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("done", sa.Integer(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("figures", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model_versions.id"], name=op.f("fk_training_runs_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
    )
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_training_runs_state"), ["state"], unique=False)
    # Plain ALTERs: SQLite would make the whole table anew for a batch, and rows that refer to it forbid that.
    op.add_column(
        "model_versions", sa.Column("imported_by", sa.String(length=128), nullable=False, server_default="unknown")
    )
    op.add_column("classifications", sa.Column("verdict_code", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("classifications", sa.Column("distance", sa.Double(), nullable=True))
    # Until now nothing but too few slices or the abstention band made an exam indeterminate.
    op.execute(
        "UPDATE classifications SET verdict_code = CASE WHEN verdict_reason LIKE 'only %' THEN 'few_slices' "
        "ELSE 'undecided' END WHERE verdict = 'indeterminate'"
    )


def downgrade() -> None:
    op.drop_column("classifications", "distance")
    op.drop_column("classifications", "verdict_code")
    op.drop_column("model_versions", "imported_by")
    op.drop_index(op.f("ix_training_runs_state"), table_name="training_runs")
    op.drop_table("training_runs")
    op.drop_table("promotions")
