"""Daily rows know their entity's type, so that an index holds each day's most viewed of a type in order

Revision ID: 20261121_daily_types
Revises: 20261121_names
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121_daily_types"
down_revision = "20261121_names"
branch_labels = None
depends_on = None

COUNTED = ["entity_id", "views", "unique_viewers", "views_authenticated"]
BEFORE = "daily_stats_entity_id_fkey"
AFTER = "daily_stats_entity_id_entity_type_fkey"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_unique_constraint("entities_id_entity_type_unique", "entities", ["id", "entity_type"])
    # Most are pages: with a default for them, only the others are rewritten
    op.add_column(
        "daily_stats", sa.Column("entity_type", sa.String(40), nullable=False, server_default="page")
    )
    op.alter_column("daily_stats", "entity_type", server_default=None)
    op.execute(
        "UPDATE daily_stats SET entity_type = entities.entity_type FROM entities"
        " WHERE entities.id = daily_stats.entity_id AND entities.entity_type <> 'page'"
    )
    op.drop_constraint(BEFORE, "daily_stats", type_="foreignkey")
    op.create_foreign_key(
        AFTER,
        "daily_stats",
        "entities",
        ["entity_id", "entity_type"],
        ["id", "entity_type"],
        ondelete="CASCADE",
    )
    op.drop_index("daily_stats_day_index", "daily_stats")
    op.create_index(
        "daily_stats_day_entity_type_views_index",
        "daily_stats",
        ["day", "entity_type", "views"],
        postgresql_include=["entity_id"],
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("daily_stats_day_entity_type_views_index", "daily_stats")
    op.create_index("daily_stats_day_index", "daily_stats", ["day"], postgresql_include=COUNTED)
    op.drop_constraint(AFTER, "daily_stats", type_="foreignkey")
    op.create_foreign_key(BEFORE, "daily_stats", "entities", ["entity_id"], ["id"], ondelete="CASCADE")
    op.drop_column("daily_stats", "entity_type")
    op.drop_constraint("entities_id_entity_type_unique", "entities", type_="unique")
