"""Instances of one UID with other content, audit events that nobody changes, commitment, pixels that were removed

Revision ID: 0003
Revises: 0002
Created: 2026-11-23 12:10:00
"""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_APPEND_ONLY = "the audit trail is append only"


def upgrade() -> None:
    with op.batch_alter_table("instances") as batch_op:
        batch_op.drop_constraint("uq_instances_series_id_sop_uid", type_="unique")
        batch_op.create_unique_constraint("uq_instances_series_id_path", ["series_id", "path"])
    op.add_column("series", sa.Column("pixels_removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("deliveries", sa.Column("transaction_uid", sa.String(length=64), nullable=True))
    op.add_column("audit_events", sa.Column("uid", sa.String(length=32), nullable=True))
    op.create_index("ix_audit_events_uid", "audit_events", ["uid"], unique=True)
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_events_no_{action.lower()} BEFORE {action} ON audit_events "
                f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only()"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for action in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_events_no_{action}")
    else:
        op.execute("DROP TRIGGER audit_events_append_only ON audit_events")
        op.execute("DROP FUNCTION audit_events_append_only()")
    op.drop_index("ix_audit_events_uid", "audit_events")
    op.drop_column("audit_events", "uid")
    op.drop_column("deliveries", "transaction_uid")
    op.drop_column("series", "pixels_removed_at")
    with op.batch_alter_table("instances") as batch_op:
        batch_op.drop_constraint("uq_instances_series_id_path", type_="unique")
        batch_op.create_unique_constraint("uq_instances_series_id_sop_uid", ["series_id", "sop_uid"])
