"""Gaps: when nobody was there to take views

Revision ID: 20261121_gaps
Revises: 20261121_unique
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121_gaps"
down_revision = "20261121_unique"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("site", sa.Column("last_alive_at", MOMENT))
    op.create_table(
        "gaps",
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("started_at", name="gaps_pkey"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("gaps")
    op.drop_column("site", "last_alive_at")
