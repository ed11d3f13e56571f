"""Days are indexed by entity when they are over: until then it costs more than it saves

Revision ID: 20261121_entity_index
Revises: 20261121_names
"""

from alembic import op

revision = "20261121_entity_index"
down_revision = "20261121_daily_types"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("view_events_entity_id_index", "view_events")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("view_events_entity_id_index", "view_events", ["entity_id"])
