"""Whether the database is the one that this code writes to: checked, not hoped for.

At the start of every process that would write, before its batches at most every 10 s, in readiness, and by
the doctor. A schema that has drifted must be loud: what cannot be written stays where it is.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, PrimaryKeyConstraint, Row, UniqueConstraint, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import InterfaceError, OperationalError

from footfall.database import alembic_config
from footfall.errors import SchemaError
from footfall.event import Kind
from footfall.schema import Base

log = logging.getLogger(__name__)

# Every unique key that an ON CONFLICT of this code relies on. Without it, the statement fails at best.
REQUIRED_UNIQUE = {
    "site": ("only_row",),
    "gaps": ("started_at",),
    "salts": ("day",),
    "entities": ("entity_type", "external_id"),
    "event_days": ("day",),
    "rollup_days": ("day",),
    "view_events": ("day", "id"),
    "daily_stats": ("entity_id", "day"),
    "seen_visitors": ("day", "entity_id", "visitor"),
    "seen_runs": ("day", "entity_id", "authenticated", "first"),
    "dead_letters": ("entry", "position"),
    "view_counters": ("entity_id", "view_type"),
    "view_slots": ("name",),
    "shown_behind": ("entity_id", "view_type"),
    "tallies": ("day", "name"),
    "referrer_domains": ("domain",),
    "event_kinds": Kind._fields,
    "adoptions": ("source", "entity_id", "part", "value"),
}
LOOK_SECONDS = 10.0  # between two looks of a connection that writes
LOOKED = "footfall schema looked at"  # in a connection's notes: when, and what was wrong
MEND = "footfall doctor --fix"

# pg_index and not only information_schema: an index can exist and be invalid, partial or on an expression
INDEXES = text("""
    SELECT tables.relname AS table_name, indexes.relname AS index_name,
        array_agg(columns.attname::text ORDER BY key.position) AS columns,
        pg_index.indisunique AS is_unique, pg_index.indisvalid AS is_valid,
        pg_index.indimmediate AS is_immediate, pg_index.indpred IS NOT NULL AS is_partial
    FROM pg_index
    JOIN pg_class AS tables ON tables.oid = pg_index.indrelid
    JOIN pg_class AS indexes ON indexes.oid = pg_index.indexrelid
    CROSS JOIN LATERAL unnest(pg_index.indkey::int2[]) WITH ORDINALITY AS key (number, position)
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum = key.number
    WHERE tables.relnamespace = current_schema()::regnamespace AND tables.relname = ANY(:tables)
      AND pg_index.indexprs IS NULL AND key.position <= pg_index.indnkeyatts
    GROUP BY tables.relname, indexes.relname, pg_index.indexrelid
""")
COLUMNS = text("""
    SELECT tables.relname AS table_name, columns.attname AS name,
        format_type(columns.atttypid, columns.atttypmod) AS type, columns.attnotnull AS is_required,
        columns.atthasdef OR columns.attidentity <> '' AS has_default
    FROM pg_attribute AS columns JOIN pg_class AS tables ON tables.oid = columns.attrelid
    WHERE tables.relnamespace = current_schema()::regnamespace AND tables.relname = ANY(:tables)
      AND tables.relkind IN ('r', 'p') AND columns.attnum > 0 AND NOT columns.attisdropped
""")
TABLE_EXISTS = text("SELECT to_regclass('alembic_version') IS NOT NULL")
REVISIONS = text("SELECT version_num FROM alembic_version")

Index = Row[str, str, list[str], bool, bool, bool, bool]
Stored = Row[str, str, str, bool, bool]  # a column as the database has it


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that stands between this code and this database, and the command that mends it."""

    text: str
    command: str
    is_sql: bool = False  # else for a shell
    table: str = ""  # if it is about one

    def __str__(self) -> str:
        return f"{self.text}; run: {self.command}"


@cache
def code_revision() -> str:
    """The newest revision that this code brings."""
    return _scripts().get_current_head() or ""


def flaws(connection: Connection) -> list[Flaw]:
    """Everything for which this code cannot or must not write here. Nothing else is looked at when the
    revision is another one: its differences are what the migrations are for.
    """
    revision = revision_flaw(connection)
    return [revision] if revision is not None else [*column_flaws(connection), *key_flaws(connection)]


def problems(connection: Connection) -> list[str]:
    """The same in words, each with the command that mends it."""
    return list(map(str, flaws(connection)))


def require(connection: Connection) -> None:
    """Raise `SchemaError` when this code cannot write here."""
    found = flaws(connection)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SchemaError(f"{found[0]}{more}")


def require_at_start(engine: Engine) -> None:
    """The same, for a process that starts. A database that is away is no reason not to: views wait in
    Redis, and whoever writes looks again.
    """
    try:
        with engine.connect() as connection:
            require(connection)
    except (OperationalError, InterfaceError) as error:
        log.warning("the schema could not be looked at", extra={"error": type(error.orig).__name__})


def require_lately(connection: Connection) -> None:
    """The same, looked at when this connection has not done so for 10 s."""
    now = time.monotonic()
    looked_at, problem = connection.info.get(LOOKED, (now - LOOK_SECONDS, None))
    if now - looked_at >= LOOK_SECONDS:
        found = problems(connection)
        problem = found[0] if found else None
        connection.info[LOOKED] = (now, problem)
        if problem:
            log.error("nothing is written to a schema that has drifted", extra={"problem": problem})
    if problem:
        raise SchemaError(problem)


def require_before_work(engine: Engine) -> None:
    """The same, before work that takes its connections itself and must not be begun by another version."""
    with engine.connect() as connection:
        require_lately(connection)


def revision_flaw(connection: Connection) -> Flaw | None:
    """The database is empty, older or newer than this code."""
    exists = connection.scalar(TABLE_EXISTS)
    revisions = connection.scalars(REVISIONS).all() if exists else []
    if not revisions:
        return Flaw("the database is empty", "footfall migrate")
    if list(revisions) == [code_revision()]:
        return None
    there = ", ".join(revisions)
    if set(revisions) <= {script.revision for script in _scripts().walk_revisions()}:
        return Flaw(
            f"the database is at revision {there}, this code needs {code_revision()}", "footfall migrate"
        )
    return Flaw(
        f"the database is at revision {there}, which is newer than this code ({code_revision()}):"
        " start the newer version, or go back with it",
        f"alembic downgrade {code_revision()}",
    )


def key_flaws(connection: Connection) -> list[Flaw]:
    """The unique keys of `REQUIRED_UNIQUE` that an ON CONFLICT would not find, and what is there instead."""
    indexes = _indexes(connection)
    return [
        Flaw(
            f"{table} has no valid unique key on ({', '.join(columns)}){_instead(indexes, table, columns)}",
            MEND,
        )
        for table, columns in _missing_keys(indexes)
    ]


def keys_to_add(connection: Connection) -> list[UniqueConstraint | PrimaryKeyConstraint]:
    """The constraints of the models that would serve what `key_flaws` misses."""
    return [_constraint(table, columns) for table, columns in _missing_keys(_indexes(connection))]


def _indexes(connection: Connection) -> Sequence[Index]:
    return connection.execute(INDEXES, {"tables": list(REQUIRED_UNIQUE)}).all()


def _missing_keys(indexes: Iterable[Index]) -> list[tuple[str, tuple[str, ...]]]:
    serving = {(one.table_name, frozenset(one.columns)) for one in indexes if not _faults(one)}
    return [
        (table, columns)
        for table, columns in REQUIRED_UNIQUE.items()
        if (table, frozenset(columns)) not in serving
    ]


def column_flaws(connection: Connection) -> list[Flaw]:
    """What is missing, or other than this code writes it; also what would make good events look bad: a
    column that now wants a value turns them into dead letters.
    """
    models = Base.metadata.tables
    stored: dict[str, dict[str, Stored]] = {}
    for row in connection.execute(COLUMNS, {"tables": list(models)}):
        stored.setdefault(row.table_name, {})[row.name] = row
    found = []
    for name, model in models.items():
        if name not in stored:
            restore = f"pg_restore --table={name} YOUR_BACKUP"
            what = f"the table {name} is missing: restore it from the last backup"
            found.append(Flaw(what, restore, table=name))
            continue
        for column in model.columns:
            found += _flaws_of(name, column, stored[name], model.columns)
        for extra in stored[name].keys() - model.columns.keys():
            if stored[name][extra].is_required and not stored[name][extra].has_default:
                what = f"{name}.{extra} wants a value, and this code knows of no such column"
                found.append(_alter(what, name, f"ALTER COLUMN {extra} DROP NOT NULL"))
    return found


def _flaws_of(
    table: str, column: Column[object], stored: Mapping[str, Stored], known: Iterable[Column[object]]
) -> list[Flaw]:
    here = stored.get(column.name)
    wanted = type_of(column)
    if here is None:
        names = {one.name for one in known}
        others = [one.name for one in stored.values() if one.name not in names and one.type == wanted]
        if len(others) == 1:
            what = f"{table} has no column {column.name}, but {others[0]}"
            return [_alter(what, table, f"RENAME COLUMN {others[0]} TO {column.name}")]
        return [_alter(f"{table} has no column {column.name}", table, f"ADD COLUMN {column.name} {wanted}")]
    if here.type != wanted:
        what = f"{table}.{column.name} is {here.type} and not {wanted}"
        return [_alter(what, table, f"ALTER COLUMN {column.name} TYPE {wanted}")]
    if here.is_required and column.nullable:
        what = f"{table}.{column.name} refuses NULL, which this code writes"
        return [_alter(what, table, f"ALTER COLUMN {column.name} DROP NOT NULL")]
    if column.identity is not None and not here.has_default:
        what = f"{table}.{column.name} is not filled by the database any more"
        return [_alter(what, table, f"ALTER COLUMN {column.name} ADD GENERATED ALWAYS AS IDENTITY")]
    return []


def _alter(what: str, table: str, how: str) -> Flaw:
    return Flaw(what, f"ALTER TABLE {table} {how}", is_sql=True, table=table)


def type_of(column: Column[object]) -> str:
    """A column's type as PostgreSQL's format_type() spells it."""
    compiled = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    return compiled.replace("varchar", "character varying")


def _constraint(table: str, columns: Sequence[str]) -> UniqueConstraint | PrimaryKeyConstraint:
    """The model's constraint with exactly these columns."""
    for constraint in Base.metadata.tables[table].constraints:
        if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint) and {
            column.name for column in constraint.columns
        } == set(columns):
            return constraint
    raise LookupError(f"no model has a unique key on {table} ({', '.join(columns)})")


def _instead(indexes: Iterable[Index], table: str, columns: Sequence[str]) -> str:
    """What is there of the same columns, and why it does not serve."""
    near = [one for one in indexes if one.table_name == table and set(one.columns) == set(columns)]
    return f": {near[0].index_name} is {' and '.join(_faults(near[0]))}" if near else ""


def _faults(index: Index) -> list[str]:
    """Why no ON CONFLICT of ours can use an index."""
    faults = {
        "not unique": not index.is_unique,
        "not valid": not index.is_valid,
        "deferrable": not index.is_immediate,
        "partial": index.is_partial,
    }
    return [name for name, is_so in faults.items() if is_so]


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config("postgresql://"))
