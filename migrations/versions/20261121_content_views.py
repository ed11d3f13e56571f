"""Content views: counters, slots of the dedup window, owners' and host sites' facts about entities

Revision ID: 20261121_content
Revises: 20261120_pipeline
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261121_content"
down_revision = "20261120_pipeline"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def entity_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["entity_id"], ["entities.id"], name=f"{table}_entity_id_fkey", ondelete="CASCADE"
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("entities", sa.Column("parent_id", sa.Integer))
    op.add_column("entities", sa.Column("reactions", JSONB))
    op.add_column("entities", sa.Column("comments", sa.Integer))
    op.create_foreign_key(
        "entities_parent_id_fkey", "entities", "entities", ["parent_id"], ["id"], ondelete="SET NULL"
    )
    op.create_table(
        "view_counters",
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("view_type", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.BigInteger, nullable=False),
        sa.Column("first_viewed_at", MOMENT, nullable=False),
        sa.Column("last_viewed_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        entity_key("view_counters"),
    )
    op.create_table(
        "view_slots",
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("by_fallback", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("name", name="view_slots_pkey"),
        entity_key("view_slots"),
    )
    op.create_index("view_slots_ends_at_index", "view_slots", ["ends_at"])
    op.create_index("view_slots_entity_id_index", "view_slots", ["entity_id"])
    op.create_table(
        "shown_behind",
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("view_type", sa.Text, nullable=False),
        sa.UniqueConstraint("entity_id", "view_type", name="shown_behind_entity_id_view_type_unique"),
        entity_key("shown_behind"),
    )
    op.create_table(
        "tallies",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("day", "name", name="tallies_day_name_unique"),
    )


def downgrade() -> None:
    # all-time counts are lost; `pg_dump` before
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("tallies", "shown_behind", "view_slots", "view_counters"):
        op.drop_table(table)
    op.drop_constraint("entities_parent_id_fkey", "entities")
    for column in ("comments", "reactions", "parent_id"):
        op.drop_column("entities", column)
