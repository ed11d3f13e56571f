"""What was taken over from another site's tables

Revision ID: 20261121_adoptions
Revises: 20261121_audits
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121_adoptions"
down_revision = "20261121_audits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "adoptions",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("entity_id", sa.Integer, nullable=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["entities.id"], name="adoptions_entity_id_fkey", ondelete="CASCADE"
        ),
        sa.UniqueConstraint(
            "source", "entity_id", "part", "value", name="adoptions_source_entity_id_part_value_unique"
        ),
    )


def downgrade() -> None:
    # the counts stay; adopting again afterwards would add all of it a second time
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("adoptions")
