"""Whole rollups keep whether a visitor was signed in beside the visitor

Revision ID: 20261121_seen_flags
Revises: 20261121_kinds
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "20261121_seen_flags"
down_revision = "20261121_kinds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _replace_column(sa.Boolean)


def downgrade() -> None:
    _replace_column(sa.BigInteger)


def _replace_column(of: type[sa.Boolean | sa.BigInteger]) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Days that can be rolled forward are rolled up as a whole, once
    op.execute("UPDATE rollup_days SET visitors_kept = false WHERE visitors_kept")
    op.execute("DELETE FROM seen_runs")
    op.drop_column("seen_runs", "authenticated")
    op.add_column("seen_runs", sa.Column("authenticated", ARRAY(of), nullable=False))
