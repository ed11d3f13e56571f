"""Whether the database is the one that this code writes to: checked, not hoped for."""

from functools import cache

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from footfall.database import alembic_config

# Every unique key that an ON CONFLICT of this code relies on. Without it, the statement fails at best.
REQUIRED_UNIQUE = {
    "salts": ("day",),
    "entities": ("entity_type", "external_id"),
    "event_days": ("day",),
    "rollup_days": ("day",),
    "view_events": ("day", "id"),
    "daily_stats": ("entity_id", "day"),
    "seen_visitors": ("day", "entity_id", "visitor"),
    "dead_letters": ("entry", "position"),
    "view_counters": ("entity_id", "view_type"),
    "view_slots": ("name",),
    "shown_behind": ("entity_id", "view_type"),
    "tallies": ("day", "name"),
    "adoptions": ("source", "entity_id", "part", "value"),
}

# pg_index and not only information_schema: an index can exist and be invalid, partial or on an expression
UNIQUE_KEYS = text("""
    SELECT tables.relname AS table_name,
        array_agg(columns.attname::text ORDER BY key.position) AS columns
    FROM pg_index
    JOIN pg_class AS tables ON tables.oid = pg_index.indrelid
    CROSS JOIN LATERAL unnest(pg_index.indkey::int2[]) WITH ORDINALITY AS key (number, position)
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum = key.number
    WHERE tables.relnamespace = current_schema()::regnamespace
      AND pg_index.indisunique AND pg_index.indisvalid AND pg_index.indimmediate
      AND pg_index.indpred IS NULL AND pg_index.indexprs IS NULL
    GROUP BY tables.relname, pg_index.indexrelid
""")
TABLE_EXISTS = text("SELECT to_regclass('alembic_version') IS NOT NULL")
REVISION = text("SELECT version_num FROM alembic_version")


@cache
def code_revision() -> str:
    """The newest revision that this code brings."""
    script = ScriptDirectory.from_config(alembic_config("postgresql://"))
    return script.get_current_head() or ""


def problems(connection: Connection) -> list[str]:
    """What stands between this code and this database, each with the command that mends it."""
    if not connection.scalar(TABLE_EXISTS):
        return ["the database is empty; run: footfall migrate"]
    revision = connection.scalar(REVISION)
    if revision != code_revision():
        return [
            f"the database is at revision {revision}, this code needs {code_revision()};"
            " run: footfall migrate"
        ]
    present = {(row.table_name, tuple(row.columns)) for row in connection.execute(UNIQUE_KEYS)}
    return [
        f"{table} has no valid unique key on ({', '.join(columns)});"
        f" run: ALTER TABLE {table} ADD CONSTRAINT {table}_{'_'.join(columns)}_unique"
        f" UNIQUE ({', '.join(columns)})"
        for table, columns in REQUIRED_UNIQUE.items()
        if (table, columns) not in present
    ]
