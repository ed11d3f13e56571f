"""Rolling forward: rows know their day's version, and open days know their visitors

Revision ID: 20261121_forward
Revises: 20261121_gaps
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261121_forward"
down_revision = "20261121_gaps"
branch_labels = None
depends_on = None

HOURS = ("views_by_hour", "views_by_hour_authenticated")
COUNTED = ["entity_id", "views", "unique_viewers", "views_authenticated"]


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # What is stored gets the default without being rewritten; new rows have to say
    add_number("event_days", "removed_at_version", sa.BigInteger())
    add_number("view_events", "version", sa.Integer())
    op.create_index(
        "view_events_version_occurred_at_index",
        "view_events",
        ["version", "occurred_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": True, "pages_per_range": 32},
    )
    op.add_column(
        "rollup_days", sa.Column("visitors_kept", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.alter_column("rollup_days", "visitors_kept", server_default=None)
    op.create_table(
        "seen_visitors",
        sa.Column("visitor", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("authenticated", sa.Boolean, nullable=False),
        sa.UniqueConstraint("day", "entity_id", "visitor", name="seen_visitors_day_entity_id_visitor_unique"),
    )
    for name in HOURS:
        op.add_column("daily_stats", sa.Column(name, JSONB, nullable=False, server_default="{}"))
        op.alter_column("daily_stats", name, server_default=None)
    op.drop_index("daily_stats_day_index", "daily_stats")
    op.create_index("daily_stats_day_index", "daily_stats", ["day"], postgresql_include=COUNTED)
    # The hours of days that are rolled up already: those that still have raw rows are rolled up again
    op.execute(
        "DELETE FROM rollup_days USING event_days"
        " WHERE event_days.day = rollup_days.day AND event_days.sealed_at IS NULL"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("daily_stats_day_index", "daily_stats")
    op.create_index("daily_stats_day_index", "daily_stats", ["day"])
    for name in HOURS:
        op.drop_column("daily_stats", name)
    op.drop_table("seen_visitors")
    # The code before knows whole rollups only
    op.execute("DELETE FROM rollup_days WHERE visitors_kept")
    op.drop_column("rollup_days", "visitors_kept")
    op.drop_index("view_events_version_occurred_at_index", "view_events")
    op.drop_column("view_events", "version")
    op.drop_column("event_days", "removed_at_version")


def add_number(table: str, name: str, kind: sa.types.TypeEngine[int]) -> None:
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default="0"))
    op.alter_column(table, name, server_default=None)
