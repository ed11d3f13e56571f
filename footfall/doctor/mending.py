"""What the doctor does itself: only what loses nothing that cannot be computed again."""

import logging
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial

from sqlalchemy import Connection, PrimaryKeyConstraint, UniqueConstraint, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from footfall import counts, days, rollup, schema_check
from footfall.clock import site_day
from footfall.doctor.database import KIND, count_duplicates, reason_of
from footfall.doctor.report import Instance, Report
from footfall.doctor.tables import TABLE_EXISTS, has_daily_rows
from footfall.doctor.work import counts_behind, stale_days
from footfall.schema import EventDay, RollupDay, ViewEventRow

log = logging.getLogger(__name__)

ONE_DAY = timedelta(days=1)
LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '5s'")
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '15min'")  # a key on a week of events takes its time

# The same as in the migration 20261121_unique, which must not import from here. Identical rows too, which no
# key tells apart: all of a pair are taken out and one is put back.
MERGE_COUNTERS = """
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
    RETURNING entity_id, view_type
"""
HAS_INDEX = text("""
    SELECT count(*) FROM pg_indexes
    WHERE schemaname = current_schema() AND tablename = :table AND indexname = :name
""")
# What is shown of them is raised by the next tick; noted twice is noted
NOTE_BEHIND = text("""
    INSERT INTO shown_behind (entity_id, view_type)
    SELECT :entity_id, :view_type WHERE NOT EXISTS (
        SELECT FROM shown_behind WHERE entity_id = :entity_id AND view_type = :view_type
    )
""")
# As `days.seal` does it from raw rows, which are gone here
SEAL_COUNTERS_BY_DAILY_ROWS = text("""
    UPDATE view_counters AS c SET sealed = c.sealed + day.views
    FROM (
        SELECT entity_id, key AS view_type, CAST(sum(CAST(value AS bigint)) AS bigint) AS views
        FROM daily_stats, jsonb_each_text(views_by_type) WHERE day = :day GROUP BY 1, 2
    ) AS day
    WHERE c.entity_id = day.entity_id AND c.view_type = day.view_type
""")


def mend(instance: Instance, report: Report) -> list[str]:
    """Do what the report's findings say can be done; what was done, and what was not and why. Commits."""
    wanted = {check.name for check in report.checks if any(finding.fixable for finding in check.findings)}
    done = [line for name, work in MENDS.items() if name in wanted for line in work(instance)]
    for line in done:
        log.info("mending", extra={"what": line})
    return done


def _transaction(instance: Instance, what: str, work: Callable[[Connection], Iterator[str]]) -> Iterator[str]:
    """What `work` says it has done, once that is committed. What fails keeps nothing else from being done."""
    try:
        with instance.engine.begin() as connection:
            connection.execute(LOCK_TIMEOUT)
            connection.execute(STATEMENT_TIMEOUT)
            lines = list(work(connection))
    except SQLAlchemyError as error:
        lines = [f"not done: {what}: {reason_of(error)}"]
    yield from lines


def _add_keys(instance: Instance) -> Iterator[str]:
    with instance.engine.connect() as connection:
        missing = schema_check.keys_to_add(connection)
    for constraint in missing:
        yield from _transaction(instance, str(constraint.name), partial(_add_key, constraint=constraint))


def _add_key(connection: Connection, constraint: UniqueConstraint | PrimaryKeyConstraint) -> Iterator[str]:
    table, name, key = constraint.table.name, constraint.name, ", ".join(constraint.columns.keys())
    connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    if table == "view_counters":
        merged = connection.execute(text(MERGE_COUNTERS)).all()
        for row in merged:
            connection.execute(NOTE_BEHIND, {"entity_id": row.entity_id, "view_type": row.view_type})
        if merged:
            yield f"merged the rows of {len(merged)} pairs of ({key}) in {table}"
    elif pairs := connection.scalar(count_duplicates(table, key)):
        yield f"not done: {table} has {pairs} times the same ({key}); keep one row of each and run this again"
        return
    # one of that name does not do what it should: not valid, deferrable, partial, of other columns
    connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"))
    if connection.scalar(HAS_INDEX, {"table": table, "name": name}):
        connection.execute(text(f"DROP INDEX {name}"))
    kind = KIND[type(constraint)]
    connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT {name} {kind} ({key})"))
    yield f"added {name}"


def _open_partitions(instance: Instance) -> Iterator[str]:
    today = site_day(instance.now, instance.settings.time_zone)
    with instance.engine.connect() as connection:
        lost = days.without_partition(connection)
        unknown = _unknown_partitions(connection)
        ahead = days.missing_days(connection, [today, today + ONE_DAY]) - set(unknown)
    for day in lost:
        yield from _transaction(
            instance, str(day), partial(_restore, day=day, instance=instance, yesterday=today - ONE_DAY)
        )
    for day in unknown:
        yield from _transaction(instance, str(day), partial(_note, day=day))
    for day in sorted(ahead):
        yield from _transaction(instance, str(day), partial(_open, day=day))


def _restore(connection: Connection, day: date, instance: Instance, yesterday: date) -> Iterator[str]:
    connection.execute(days.DAYS_LOCK)
    if connection.scalar(TABLE_EXISTS, {"name": days.partition_name(day)}):
        days.attach_partition(connection, day)
        yield f"attached the partition of {day}"
    elif day < yesterday and has_daily_rows(connection, day):
        connection.execute(SEAL_COUNTERS_BY_DAILY_ROWS, {"day": day})
        connection.execute(update(EventDay).where(EventDay.day == day).values(sealed_at=instance.now))
        yield f"sealed {day}: its raw events are gone, its daily rows stay"
    else:
        days.make_partition(connection, day)
        yield f"made an empty partition for {day}"


def _unknown_partitions(connection: Connection) -> list[date]:
    """Partitions of days that nobody has noted, but for those sealed so long ago that the note is gone."""
    known = set(connection.scalars(select(EventDay.day)))
    sealed_through = days.last_sealed_day(connection)
    unknown = days.partitions(connection).keys() - known
    return sorted(day for day in unknown if sealed_through is None or day > sealed_through)


def _note(connection: Connection, day: date) -> Iterator[str]:
    """As changed, so that it is rolled up as a whole."""
    connection.execute(days.DAYS_LOCK)
    rows = connection.scalar(select(func.max(ViewEventRow.version)).where(ViewEventRow.day == day)) or 0
    rolled = connection.scalar(select(RollupDay.version).where(RollupDay.day == day)) or 0
    version = max(rows, rolled) + 1
    connection.execute(insert(EventDay).values(day=day, version=version, removed_at_version=version))
    yield f"noted {day}, which has a partition"


def _open(connection: Connection, day: date) -> Iterator[str]:
    days.open_days(connection, [day])
    yield f"made the partition of {day}"


def _roll_up(instance: Instance) -> Iterator[str]:
    today = site_day(instance.now, instance.settings.time_zone)
    with instance.engine.connect() as connection:
        stale = list(stale_days(connection, instance, today))
    for day in stale:
        keep_visitors = day >= today - ONE_DAY
        result = rollup.roll_up(instance.engine, day, instance.now, keep_visitors=keep_visitors)
        if result is None:
            yield f"not done: {day} is being rolled up by another process"
        else:
            yield f"rolled up {day}: {result.rows} rows written"


def _raise_shown(instance: Instance) -> Iterator[str]:
    behind, _ = counts_behind(instance)
    counts.raise_noted(instance.engine, instance.redis)
    counts.raise_all(instance.engine, instance.redis)
    yield f"raised what is shown of {len(behind)} entities to what is stored"


# By the check whose findings they mend, in the order in which they build upon each other
MENDS: dict[str, Callable[[Instance], Iterator[str]]] = {
    "unique_keys": _add_keys,
    "partitions": _open_partitions,
    "rollup": _roll_up,
    "shown_counts": _raise_shown,
}
