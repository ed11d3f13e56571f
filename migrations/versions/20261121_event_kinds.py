"""Raw events name their kind instead of spelling it out

Their tables are written anew, some 3 s for a million events; nobody reads or writes raw events meanwhile.

Revision ID: 20261121_kinds
Revises: 20261121_seen_runs
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "20261121_kinds"
down_revision = "20261121_seen_runs"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
KIND = ("entity_type", "outcome", "device", "view_type", "view_source", "country")
OUTCOMES = "outcome IN ('counted', 'own', 'repeat', 'bot')"
DEVICES = "device IN ('desktop', 'mobile', 'tablet', 'player', 'other')"
SHARED = "occurred_at, visitor, entry, day, entity_id, version, id, authenticated, referrer_domain"
# Each day's table is made anew beside the one of before, filled, and put in its place
REPLACE_DAYS = """
DO $$
DECLARE of_day record;
BEGIN
    FOR of_day IN
        SELECT partition.relname AS name, pg_get_expr(partition.relpartbound, partition.oid) AS bound
        FROM pg_inherits JOIN pg_class AS partition ON partition.oid = pg_inherits.inhrelid
        WHERE pg_inherits.inhparent = to_regclass('view_events_before') ORDER BY 1
    LOOP
        EXECUTE format('ALTER TABLE view_events_before DETACH PARTITION %I', of_day.name);
        EXECUTE format('ALTER TABLE %I RENAME TO view_events_day_before', of_day.name);
        EXECUTE format('CREATE TABLE %I (LIKE view_events INCLUDING ALL)', of_day.name);
        EXECUTE format('INSERT INTO %I (%s) SELECT %s', of_day.name, '{columns}', $query${query}$query$);
        EXECUTE format('ALTER TABLE view_events ATTACH PARTITION %I %s', of_day.name, of_day.bound);
        DROP TABLE view_events_day_before;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "event_kinds",
        sa.Column("id", sa.Integer, sa.Identity(always=True), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in KIND),
        sa.Column("last_seen_on", sa.Date, nullable=False),
        sa.PrimaryKeyConstraint("id", name="event_kinds_pkey"),
        sa.UniqueConstraint(*KIND, name="event_kinds_unique"),
        sa.CheckConstraint(OUTCOMES, name=op.f("event_kinds_outcome_check")),
        sa.CheckConstraint(DEVICES, name=op.f("event_kinds_device_check")),
    )
    op.execute(f"""
        INSERT INTO event_kinds ({", ".join(KIND)}, last_seen_on)
        SELECT entity_type, outcome, device, view_type, view_source, coalesce(country, 'ZZ'), max(day)
        FROM view_events JOIN entities ON entities.id = entity_id
        GROUP BY 1, 2, 3, 4, 5, 6
    """)  # noqa: S608 - constants
    _replace_view_events(
        [
            sa.Column("kind_id", sa.Integer, nullable=False),
            sa.Column("id", sa.Uuid, nullable=False),
            sa.Column("authenticated", sa.Boolean, nullable=False),
        ],
        columns=f"kind_id, {SHARED}",
        query="""
            kind.id,
            occurred_at, visitor, entry, day, entity_id, version, v.id, authenticated, referrer_domain
            FROM view_events_day_before AS v JOIN entities ON entities.id = entity_id
            JOIN event_kinds AS kind ON kind.entity_type = entities.entity_type AND kind.outcome = v.outcome
                AND kind.device = v.device AND kind.view_type = v.view_type
                AND kind.view_source = v.view_source AND kind.country = coalesce(v.country, 'ZZ')
        """,
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _replace_view_events(
        [
            sa.Column("id", sa.Uuid, nullable=False),
            sa.Column("authenticated", sa.Boolean, nullable=False),
            sa.Column("outcome", sa.Text, nullable=False),
            sa.Column("device", sa.Text, nullable=False),
            sa.Column("view_type", sa.Text, nullable=False),
            sa.Column("view_source", sa.Text, nullable=False),
            sa.Column("country", sa.Text),
            sa.CheckConstraint(OUTCOMES, name=op.f("view_events_outcome_check")),
            sa.CheckConstraint(DEVICES, name=op.f("view_events_device_check")),
        ],
        columns=f"outcome, device, view_type, view_source, country, {SHARED}",
        query="""
            outcome, device, view_type, view_source, nullif(country, 'ZZ'),
            occurred_at, visitor, entry, day, entity_id, version, v.id, authenticated, referrer_domain
            FROM view_events_day_before AS v JOIN event_kinds AS kind ON kind.id = kind_id
        """,
    )
    op.drop_table("event_kinds")


def _replace_view_events(
    own: Sequence[sa.Column[object] | sa.CheckConstraint], *, columns: str, query: str
) -> None:
    op.rename_table("view_events", "view_events_before")
    for what in ("day_id_unique", "version_occurred_at_index"):
        op.execute(f"ALTER INDEX view_events_{what} RENAME TO view_events_before_{what}")
    op.create_table(
        "view_events",
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("visitor", sa.BigInteger),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        *own,
        sa.Column("referrer_domain", sa.Text),
        sa.UniqueConstraint("day", "id", name="view_events_day_id_unique"),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_index(
        "view_events_version_occurred_at_index",
        "view_events",
        ["version", "occurred_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": True, "pages_per_range": 32},
    )
    op.execute(REPLACE_DAYS.format(columns=columns, query=query))
    op.drop_table("view_events_before")
