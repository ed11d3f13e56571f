"""The days that events belong to: opened with a partition, changed by writers, rolled up, sealed.

`event_days` holds the truth about each. A day with a row has had a partition; `version` counts the
transactions that changed its raw rows; `sealed_at` says that they were dropped for good.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from footfall.schema import PARTITION_PREFIX, EventDay

# Waiting for a lock holds up everybody who comes later, so waits are short and the next tick tries again
LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '500ms'")
# Opening and sealing are rare and must see each other's result; any number, the same everywhere
DAYS_LOCK = text("SELECT pg_advisory_xact_lock(7108621)")

DAYS_AHEAD = 2  # clocks ahead, and zones ahead of UTC, reach tomorrow; nothing honest reaches further

# By their bounds and not by their names, which anybody may change
PARTITIONS = text("""
    SELECT CAST(substring(pg_get_expr(partition.relpartbound, partition.oid) FROM '[0-9]+-[0-9]+-[0-9]+')
        AS date) AS day, partition.relname AS name
    FROM pg_inherits JOIN pg_class AS partition ON partition.oid = pg_inherits.inhrelid
    WHERE pg_inherits.inhparent = to_regclass('view_events')
""")

# A counter is what was sealed and the raw rows: what goes with the day is moved to the sealed part
SEAL_COUNTERS = text("""
    UPDATE view_counters AS c SET sealed = c.sealed + day.views
    FROM (
        SELECT entity_id, view_type, count(*) AS views
        FROM view_events JOIN event_kinds AS kind ON kind.id = kind_id AND outcome = 'counted'
        WHERE day = :day GROUP BY entity_id, view_type
    ) AS day
    WHERE c.entity_id = day.entity_id AND c.view_type = day.view_type
""")


def open_days(connection: Connection, days: Iterable[date]) -> None:
    """Make partitions for those of `days` that have none and are not sealed. The caller commits, at once.

    A partition is made as a table of its own and then attached: CREATE TABLE ... PARTITION OF would wait
    behind every reader, and every writer behind it.
    """
    connection.execute(LOCK_TIMEOUT)
    connection.execute(DAYS_LOCK)
    sealed_through = last_sealed_day(connection)
    known = set(connection.scalars(select(EventDay.day)))
    for day in sorted(set(days) - known):
        if sealed_through is None or day > sealed_through:
            _open_day(connection, day)


def missing_days(connection: Connection, days: Collection[date]) -> set[date]:
    """Those of `days` that have never been opened."""
    known = connection.scalars(select(EventDay.day).where(EventDay.day.in_(days)))
    return set(days) - set(known)


def partitions(connection: Connection) -> dict[date, str]:
    """The partitions that take events, by their day."""
    return {row.day: row.name for row in connection.execute(PARTITIONS)}


def without_partition(connection: Connection) -> list[date]:
    """The open days whose partition somebody has taken away: their events cannot be stored."""
    open_ = connection.scalars(select(EventDay.day).where(EventDay.sealed_at.is_(None)))
    return sorted(set(open_) - partitions(connection).keys())


def hold_open(connection: Connection, days: Collection[date]) -> dict[date, int]:
    """Those of `days` that take events, with their versions, held until the transaction ends.

    Sealing waits for it, and so do other writers of the same day: whoever sees a version of a day also
    sees all rows that carry that version or a lower one. In the order of days, so that two writers never
    wait for each other.
    """
    query = (
        select(EventDay.day, EventDay.version)
        .where(EventDay.day.in_(days), EventDay.sealed_at.is_(None))
        .order_by(EventDay.day)
        .with_for_update(key_share=True)
    )
    return {row.day: row.version for row in connection.execute(query)}


def raise_versions(connection: Connection, days: Collection[date]) -> None:
    """Note that `days`, which this transaction holds, have new raw rows."""
    for day in sorted(days):
        connection.execute(update(EventDay).where(EventDay.day == day).values(version=EventDay.version + 1))


def note_removals(connection: Connection, days: Collection[date]) -> None:
    """Note that `days` have lost raw rows: nothing can be added to what was counted of them before."""
    raised = {"version": EventDay.version + 1, "removed_at_version": EventDay.version + 1}
    for day in sorted(days):
        connection.execute(update(EventDay).where(EventDay.day == day).values(**raised))


def last_sealed_day(connection: Connection) -> date | None:
    """Days are sealed in order: up to and including this one nothing is taken any more."""
    return connection.scalar(select(func.max(EventDay.day)).where(EventDay.sealed_at.is_not(None)))


def seal(connection: Connection, day: date, now: datetime) -> None:
    """Drop the raw rows of `day` and refuse new ones for good. The caller has made sure that it may."""
    connection.execute(SEAL_COUNTERS, {"day": day})
    connection.execute(text(f"DROP TABLE {partition_name(day)}"))
    connection.execute(update(EventDay).where(EventDay.day == day).values(sealed_at=now))


def index_entities(connection: Connection, day: date) -> None:
    """Let the events of `day` be found by what was viewed, now that hardly any come. The caller commits, at
    once: writers of the day wait. May be called again.
    """
    name = f"{partition_name(day)}_entity_id_index"
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is None:
        connection.execute(LOCK_TIMEOUT)
        connection.execute(text(f"CREATE INDEX {name} ON {partition_name(day)} (entity_id)"))


def partition_name(day: date) -> str:
    """The table that holds the events of `day`."""
    return f"{PARTITION_PREFIX}{day:%Y_%m_%d}"


def make_partition(connection: Connection, day: date) -> None:
    """Make the table of `day`, which has none, and attach it. The caller commits, at once."""
    connection.execute(text(f"CREATE TABLE {partition_name(day)} (LIKE view_events INCLUDING ALL)"))
    attach_partition(connection, day)


def attach_partition(connection: Connection, day: date) -> None:
    """Attach the table of `day`; PostgreSQL refuses when other days' events are in it."""
    connection.execute(
        text(
            f"ALTER TABLE view_events ATTACH PARTITION {partition_name(day)}"
            f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
    )


def _open_day(connection: Connection, day: date) -> None:
    make_partition(connection, day)
    connection.execute(insert(EventDay).values(day=day, version=0, removed_at_version=0))
