"""Every difference between the models and the database, also those with which views can be written."""

import io
from collections.abc import Iterator
from typing import Any

from sqlalchemy import CheckConstraint, Connection, PrimaryKeyConstraint, text

from footfall import schema_check
from footfall.doctor.database import KIND
from footfall.doctor.report import Finding, Found, Instance
from footfall.schema import Base

CONSTRAINTS = text("""
    SELECT conrelid::regclass::text AS table_name, conname AS name FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace AND contype IN ('c', 'p')
""")


def drift(instance: Instance) -> Found:
    """Is there any other difference between the models and the database?

    What `columns` and `unique_keys` have found is left out: they know better what to do about it.
    """
    with instance.engine.connect() as connection:
        found = [
            Finding("warning", what, instance.commands.sql(sql)) for what, sql in differences(connection)
        ]
    return Found("the schema has nothing more and nothing less than the models", found)


def differences(connection: Connection) -> list[tuple[str, str]]:
    """What is different, and the SQL that makes it as it should be."""
    return [*_missing_constraints(connection), *_differences(connection)]


def _differences(connection: Connection) -> Iterator[tuple[str, str]]:
    # slow to import, and nobody else needs it
    from alembic.autogenerate import produce_migrations
    from alembic.operations import Operations
    from alembic.operations.ops import (
        AddColumnOp,
        AlterColumnOp,
        CreateTableOp,
        CreateUniqueConstraintOp,
        DropColumnOp,
        ModifyTableOps,
    )
    from alembic.runtime.migration import MigrationContext

    of_columns = (AddColumnOp, AlterColumnOp, CreateTableOp, DropColumnOp)
    names = set(Base.metadata.tables)
    options = {
        "compare_type": True,
        "compare_server_default": True,
        # others may keep tables beside ours
        "include_name": lambda name, kind, _: kind != "table" or name in names,
    }
    found = produce_migrations(MigrationContext.configure(connection, opts=options), Base.metadata)
    known_tables = {flaw.table for flaw in schema_check.column_flaws(connection)}
    known_keys = {constraint.name for constraint in schema_check.keys_to_add(connection)}
    for group in found.upgrade_ops.ops if found.upgrade_ops is not None else ():
        for one in group.ops if isinstance(group, ModifyTableOps) else [group]:
            in_known_table = getattr(one, "table_name", None) in known_tables
            if in_known_table and isinstance(one, of_columns):
                continue
            if isinstance(one, CreateUniqueConstraintOp) and one.constraint_name in known_keys:
                continue
            output = io.StringIO()
            context = MigrationContext.configure(
                dialect_name="postgresql", opts={"as_sql": True, "output_buffer": output}
            )
            Operations(context).invoke(one)
            yield _in_words(one.to_diff_tuple()), " ".join(output.getvalue().split()).rstrip(";")


def _missing_constraints(connection: Connection) -> Iterator[tuple[str, str]]:
    """Alembic compares neither CHECKs nor primary keys."""
    there = {(row.table_name, row.name) for row in connection.execute(CONSTRAINTS)}
    required = {constraint.name for constraint in schema_check.keys_to_add(connection)}
    for table in Base.metadata.tables.values():
        for constraint in sorted(table.constraints, key=lambda one: str(one.name)):
            is_compared = isinstance(constraint, CheckConstraint | PrimaryKeyConstraint) and constraint.name
            definition = _definition(constraint) if is_compared else ""
            is_there = (table.name, constraint.name) in there or constraint.name in required
            if definition and not is_there:
                yield (
                    f"{table.name} has no constraint {constraint.name}",
                    f"ALTER TABLE {table.name} ADD CONSTRAINT {constraint.name} {definition}",
                )


def _definition(constraint: Any) -> str:
    """As SQL; empty for the primary key of a table that has none."""
    if isinstance(constraint, CheckConstraint):
        return f"CHECK ({constraint.sqltext})"
    key = ", ".join(constraint.columns.keys())
    return f"{KIND[type(constraint)]} ({key})" if key else ""


def _in_words(difference: Any) -> str:
    """One of Alembic's tuples, or a list of them about one column."""
    if isinstance(difference, list):
        _, _, table, column, *_ = difference[0]
        kinds = " and ".join(one[0].removeprefix("modify_") for one in difference)
        return f"{table}.{column} has another {kinds} than the model"
    kind, *rest = difference
    verb, _, what = kind.partition("_")
    name = f"{rest[1]}.{rest[-1].name}" if what == "column" else rest[-1].name
    return f"the {what} {name} is {'missing' if verb == 'add' else 'in no model'}"
