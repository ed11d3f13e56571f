"""Dead letters that could not be read keep what was decided about them, so that they can be replayed

Revision ID: 20261121_dead_letters
Revises: 20261121_adoptions
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121_dead_letters"
down_revision = "20261121_adoptions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("dead_letters", sa.Column("outcome", sa.Text))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("dead_letters", "outcome")
