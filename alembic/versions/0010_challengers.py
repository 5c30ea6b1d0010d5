"""What challengers say of exams, beside the model that is active

Revision ID: 0010
Revises: 0009
Created: 2026-11-25 16:40:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "challenger_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("classification_id", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verdict", sa.String(length=64), nullable=True),
        sa.Column("probabilities", sa.JSON(), nullable=True),
        sa.Column("verdict_code", sa.String(length=64), nullable=True),
        sa.Column("verdict_reason", sa.Text(), nullable=True),
        sa.Column("distance", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("classified_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model_versions.id"], name=op.f("fk_challenger_results_model_id")),
        sa.ForeignKeyConstraint(
            ["classification_id"], ["classifications.id"], name=op.f("fk_challenger_results_classification_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_challenger_results")),
        sa.UniqueConstraint(
            "model_id", "classification_id", name=op.f("uq_challenger_results_model_id_classification_id")
        ),
    )
    op.create_index(op.f("ix_challenger_results_classification_id"), "challenger_results", ["classification_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_challenger_results_classification_id"), table_name="challenger_results")
    op.drop_table("challenger_results")
