"""One counter row an entity and view type: merge duplicates, then the named unique constraint

In a migration of its own, so that it can be run on a database whose counters were kept without it.

Revision ID: 20261121_unique
Revises: 20261121_content
"""

import logging

from alembic import op

revision = "20261121_unique"
down_revision = "20261121_content"
branch_labels = None
depends_on = None

log = logging.getLogger("alembic.runtime.migration")

NAME = "view_counters_entity_id_view_type_unique"

# Identical rows too, which no key tells apart: all of a pair are taken out and one is put back.
MERGE = """
    WITH removed AS (
        DELETE FROM view_counters
        WHERE (entity_id, view_type) IN (
            SELECT entity_id, view_type FROM view_counters GROUP BY 1, 2 HAVING count(*) > 1
        )
        RETURNING *
    )
    INSERT INTO view_counters (entity_id, view_type, count, sealed,
                               first_viewed_at, last_viewed_at, created_at, updated_at)
    SELECT entity_id, view_type, sum(count), sum(sealed),
           min(first_viewed_at), max(last_viewed_at), min(created_at), max(updated_at)
    FROM removed GROUP BY entity_id, view_type
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE view_counters IN ACCESS EXCLUSIVE MODE")
    op.execute(MERGE)
    op.execute(f"ALTER TABLE view_counters DROP CONSTRAINT IF EXISTS {NAME}")
    op.create_unique_constraint(NAME, "view_counters", ["entity_id", "view_type"])


def downgrade() -> None:
    log.warning(
        "dropping %s: without it this version and every later one refuse to write views;"
        " `alembic upgrade head` merges duplicates and adds it again",
        NAME,
    )
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint(NAME, "view_counters")
