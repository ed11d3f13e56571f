"""PostgreSQL, and whether its schema is the one that this code writes to."""

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.elements import TextClause

from footfall import entities, schema_check
from footfall.doctor.report import Finding, Found, Instance
from footfall.schema import SITE_EXTERNAL_ID, SITE_TYPE, Site

SERVER = text("""
    SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
        current_setting('synchronous_commit') AS synchronous_commit,
        pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS is_read_only
""")
KIND = {PrimaryKeyConstraint: "PRIMARY KEY", UniqueConstraint: "UNIQUE"}


def postgres(instance: Instance) -> Found:
    """Does it answer, does it keep what it has committed, may one write?"""
    commands = instance.commands
    if reason := instance.unknown.get("postgres"):
        return Found("", [Finding("problem", reason, commands.own("up"))], is_fatal=True)
    try:
        with instance.engine.connect() as connection:
            server = connection.execute(SERVER).one()
    except SQLAlchemyError as error:
        what = f"PostgreSQL does not answer: {reason_of(error)}; is DATABASE_URL right?"
        return Found("", [Finding("problem", what, commands.start)], is_fatal=True)
    found = []
    for name, wanted in {"fsync": "on", "synchronous_commit": "on"}.items():
        if getattr(server, name) == "off":
            what = f"PostgreSQL runs with {name} = off: what is committed can be lost"
            mend = commands.sql(f"ALTER SYSTEM SET {name} = {wanted}")
            found.append(Finding("problem", what, f"{mend} && {commands.sql('SELECT pg_reload_conf()')}"))
    if server.is_read_only:
        what = "PostgreSQL refuses writes: it is a replica or read-only"
        found.append(Finding("problem", what, commands.sql("SHOW default_transaction_read_only")))
    return Found(f"PostgreSQL {server.version} answers", found, {"version": server.version})


def revision(instance: Instance) -> Found:
    """Are the migrations that have been run those of this code?"""
    with instance.engine.connect() as connection:
        flaw = schema_check.revision_flaw(connection)
    code = schema_check.code_revision()
    found = [] if flaw is None else [Finding("problem", flaw.text, instance.commands.of_flaw(flaw))]
    return Found(f"the database is at this code's revision, {code}", found, {"code": code}, bool(found))


def columns(instance: Instance) -> Found:
    """Is everything there that this code writes?"""
    with instance.engine.connect() as connection:
        flaws = schema_check.column_flaws(connection)
    found = [Finding("problem", flaw.text, instance.commands.of_flaw(flaw)) for flaw in flaws]
    return Found("every table has the columns that are written", found, is_fatal=bool(found))


def unique_keys(instance: Instance) -> Found:
    """Is there a key for every ON CONFLICT?"""
    with instance.engine.connect() as connection:
        flaws = schema_check.key_flaws(connection)
    found = [Finding("problem", flaw.text, instance.mend, fixable=True) for flaw in flaws]
    return Found(f"all {len(schema_check.REQUIRED_UNIQUE)} unique keys are there and valid", found)


def duplicates(instance: Instance) -> Found:
    """What stands in the way of a unique key that is missing?"""
    found = []
    with instance.engine.connect() as connection:
        for constraint in schema_check.keys_to_add(connection):
            table, key = constraint.table.name, ", ".join(constraint.columns.keys())
            pairs = connection.scalar(count_duplicates(table, key)) or 0
            if pairs and table == "view_counters":
                what = f"{pairs} pairs of ({key}) have more than one row in {table}; they can be merged"
                found.append(Finding("problem", what, instance.mend, fixable=True))
            elif pairs:
                what = (
                    f"{pairs} times the same ({key}) in {table}: look at them,"
                    f" keep one row of each, then run {instance.mend}"
                )
                found.append(Finding("problem", what, instance.commands.sql(_show_duplicates(table, key))))
    return Found("no key is there twice", found)


def count_duplicates(table: str, key: str) -> TextClause:
    """How many keys there are with more than one row."""
    return text(
        f"SELECT count(*) FROM (SELECT FROM {table} GROUP BY {key} HAVING count(*) > 1) AS twice"  # noqa: S608 - schema_check names both
    )


def _show_duplicates(table: str, key: str) -> str:
    return (
        f"SELECT tableoid::regclass, ctid, * FROM {table} WHERE ({key}) IN"  # noqa: S608 - the same
        f" (SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1) ORDER BY {key}"
    )


def site(instance: Instance) -> Found:
    """Are the days counted in the time zone of the settings, and is the site's own row there?"""
    with instance.engine.connect() as connection:
        kept = connection.scalar(select(Site.time_zone))
        has_row = entities.find(connection, SITE_TYPE, SITE_EXTERNAL_ID) is not None
    found = []
    wanted = instance.settings.time_zone.key
    if kept is None:
        found.append(
            Finding("problem", "the site's time zone was never noted", instance.commands.own("migrate"))
        )
    elif kept != wanted:
        what = f"FOOTFALL_TIME_ZONE is {wanted}, but this database counts its days in {kept}"
        found.append(Finding("problem", what, f"export FOOTFALL_TIME_ZONE={kept}"))
    if not has_row:
        what = "the row that stands for the whole site is missing: no day can be rolled up"
        statement = (
            "INSERT INTO entities (entity_type, external_id, created_at) VALUES ('site', 'site', 'epoch')"
        )
        found.append(Finding("problem", what, instance.commands.sql(statement)))
    return Found(f"days are counted in {wanted}", found, {"time_zone": kept})


def reason_of(error: SQLAlchemyError) -> str:
    """The first line of what the driver says; the others quote data."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(original).splitlines()), type(error).__name__)
