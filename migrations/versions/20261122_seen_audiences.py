"""Whole rollups keep who was signed in as a list of its own

Revision ID: 20261122_seen_audiences
Revises: 20261121_seen_flags
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

revision = "20261122_seen_audiences"
down_revision = "20261121_seen_flags"
branch_labels = None
depends_on = None


BEFORE = ["day", "entity_id", "first"]
AFTER = ["day", "entity_id", "authenticated", "first"]


def upgrade() -> None:
    _replace_column(sa.Boolean(), BEFORE, AFTER)


def downgrade() -> None:
    _replace_column(ARRAY(sa.Boolean), AFTER, BEFORE)


def _replace_column(of: TypeEngine[Any], old_key: list[str], new_key: list[str]) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Days that can be rolled forward are rolled up as a whole, once
    op.execute("UPDATE rollup_days SET visitors_kept = false WHERE visitors_kept")
    op.execute("DELETE FROM seen_runs")
    op.drop_constraint(f"seen_runs_{'_'.join(old_key)}_unique", "seen_runs")
    op.drop_column("seen_runs", "authenticated")
    op.add_column("seen_runs", sa.Column("authenticated", of, nullable=False))
    op.create_unique_constraint(f"seen_runs_{'_'.join(new_key)}_unique", "seen_runs", new_key)
