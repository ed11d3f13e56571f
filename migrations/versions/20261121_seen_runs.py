"""Whole rollups keep visitors a hundred to a row

Revision ID: 20261121_seen_runs
Revises: 20261121_referrers
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "20261121_seen_runs"
down_revision = "20261121_referrers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "seen_runs",
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("visitors", ARRAY(sa.BigInteger), nullable=False),
        sa.Column("authenticated", ARRAY(sa.BigInteger), nullable=False),
        sa.UniqueConstraint("day", "entity_id", "first", name="seen_runs_day_entity_id_first_unique"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # The code before would take these visitors for new ones
    op.execute("UPDATE rollup_days SET visitors_kept = false WHERE visitors_kept")
    op.drop_table("seen_runs")
