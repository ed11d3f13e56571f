"""Audits: what the nightly comparison of everything that is stored found

Revision ID: 20261121_audits
Revises: 20261121_forward
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "20261121_audits"
down_revision = "20261121_forward"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "audits",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("audited_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("days", ARRAY(sa.Date), nullable=False),
        sa.Column("not_looked_at", JSONB, nullable=False),
        sa.Column("found", sa.Integer, nullable=False),
        sa.Column("differences", JSONB, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audits_pkey"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("audits")
