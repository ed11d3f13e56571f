"""The pipeline: entities, events by day, daily rows, dead letters, salts

Revision ID: 20261120_pipeline
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261120_pipeline"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
BREAKDOWNS = ("country", "device", "type", "source", "referrer")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    create_site_and_salts()
    create_entities()
    create_days()
    create_view_events()
    create_daily_stats()
    create_dead_letters()


def create_site_and_salts() -> None:
    op.create_table(
        "site",
        sa.Column("only_row", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("only_row", name="site_pkey"),
        sa.CheckConstraint("only_row", name="site_only_row_check"),
    )
    op.create_table(
        "salts",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("day", name="salts_pkey"),
    )


def create_entities() -> None:
    op.create_table(
        "entities",
        sa.Column("id", sa.Integer, sa.Identity(always=True), nullable=False),
        sa.Column("entity_type", sa.String(40), nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("title", sa.Text),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="entities_pkey"),
        sa.UniqueConstraint("entity_type", "external_id", name="entities_entity_type_external_id_unique"),
    )
    op.create_index("entities_entity_type_created_at_index", "entities", ["entity_type", "created_at"])
    op.execute("INSERT INTO entities (entity_type, external_id, created_at) VALUES ('site', 'site', 'epoch')")


def create_days() -> None:
    op.create_table(
        "event_days",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sealed_at", MOMENT),
        sa.PrimaryKeyConstraint("day", name="event_days_pkey"),
    )
    op.create_table(
        "rollup_days",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("rolled_up_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("day", name="rollup_days_pkey"),
    )


def create_view_events() -> None:
    op.create_table(
        "view_events",
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("visitor", sa.BigInteger),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("authenticated", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("view_type", sa.Text, nullable=False),
        sa.Column("view_source", sa.Text, nullable=False),
        sa.Column("country", sa.Text),
        sa.Column("referrer_domain", sa.Text),
        sa.UniqueConstraint("day", "id", name="view_events_day_id_unique"),
        sa.CheckConstraint(
            "outcome IN ('counted', 'own', 'repeat', 'bot')", name="view_events_outcome_check"
        ),
        sa.CheckConstraint(
            "device IN ('desktop', 'mobile', 'tablet', 'player', 'other')",
            name="view_events_device_check",
        ),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_index("view_events_entity_id_index", "view_events", ["entity_id"])


def create_daily_stats() -> None:
    counts = (
        "views",
        "unique_viewers",
        "views_authenticated",
        "unique_viewers_authenticated",
        "bots",
        "own_views",
        "repeats",
    )
    breakdowns = [
        f"views_by_{dimension}{audience}" for audience in ("", "_authenticated") for dimension in BREAKDOWNS
    ]
    op.create_table(
        "daily_stats",
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in counts],
        *[sa.Column(name, JSONB, nullable=False) for name in breakdowns],
        sa.UniqueConstraint("entity_id", "day", name="daily_stats_entity_id_day_unique"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["entities.id"], name="daily_stats_entity_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("daily_stats_day_index", "daily_stats", ["day"])


def create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("day", sa.Date),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="dead_letters_pkey"),
        sa.UniqueConstraint("entry", "position", name="dead_letters_entry_position_unique"),
    )


def downgrade() -> None:
    # every count is lost; `pg_dump` before
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in (
        "dead_letters",
        "daily_stats",
        "view_events",
        "rollup_days",
        "event_days",
        "entities",
        "salts",
        "site",
    ):
        op.drop_table(table)
