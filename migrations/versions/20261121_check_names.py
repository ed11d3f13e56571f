"""Names of CHECK constraints: the models', also where the naming convention was applied to them twice

Written by hand and not with `op`: run online, it would give the convention's prefix and suffix to a name that
has them; run as a script (`--sql`), it does not.

Revision ID: 20261121_names
Revises: 20261121_dead_letters
"""

from alembic import op

revision = "20261121_names"
down_revision = "20261121_dead_letters"
branch_labels = None
depends_on = None

NAMES = {
    "site": ["site_only_row_check"],
    "view_events": ["view_events_outcome_check", "view_events_device_check"],
}
RENAME = """
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = '{table}'::regclass AND conname = '{table}_{name}_check'
        ) THEN
            ALTER TABLE {table} RENAME CONSTRAINT {table}_{name}_check TO {name};
        END IF;
    END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, names in NAMES.items():
        for name in names:
            op.execute(RENAME.format(table=table, name=name))


def downgrade() -> None:
    # the code before does not ask for these names
    op.execute("SET LOCAL lock_timeout = '5s'")
