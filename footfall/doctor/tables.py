"""What is in the tables: the days' partitions, what is past its time, what could not be stored, how much."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta

from sqlalchemy import Connection, func, select, text

from footfall import days, salts
from footfall.clock import site_day
from footfall.doctor.report import Finding, Found, Instance, ago, size
from footfall.schema import Base, DailyStats, EventDay, Salt

LATE_DAYS = 1  # past a retention: what is dropped twice a day is late then
SALTS_LATE = timedelta(hours=1)  # looked at every 10 minutes
FLOOD = 100  # dead letters within the last hour: not a bad client, but something of ours
KEYS_USED = 0.5  # of the entities' keys
DISK_FREE = {"problem": 0.02, "warning": 0.1}
MOST_ENTITIES = 2**31 - 1

TABLE_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")
REASONS = text("""
    SELECT reason, count(*) AS letters, min(created_at) AS first, max(created_at) AS last,
        count(*) FILTER (WHERE created_at > :lately) AS lately, max(id) AS last_id
    FROM dead_letters GROUP BY reason ORDER BY letters DESC
""")
SIZES = text("""
    SELECT coalesce(parent.relname, tables.relname) AS name,
        CAST(sum(pg_table_size(tables.oid)) AS bigint) AS table_bytes,
        CAST(sum(pg_indexes_size(tables.oid)) AS bigint) AS index_bytes
    FROM pg_class AS tables
    LEFT JOIN pg_inherits ON pg_inherits.inhrelid = tables.oid
    LEFT JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
    WHERE tables.relnamespace = current_schema()::regnamespace AND tables.relkind IN ('r', 'p')
      AND coalesce(parent.relname, tables.relname) = ANY(:tables)
    GROUP BY 1 ORDER BY 2 DESC
""")


def partitions(instance: Instance) -> Found:
    """Has every day that takes events its partition, and every partition its day?"""
    today = site_day(instance.now, instance.settings.time_zone)
    wanted = {today, today + timedelta(days=1)}
    with instance.engine.connect() as connection:
        there = days.partitions(connection)
        known = {
            row.day: row.sealed_at for row in connection.execute(select(EventDay.day, EventDay.sealed_at))
        }
        last_sealed = days.last_sealed_day(connection)
        found = [
            Finding("warning", f"{day} has no partition yet", instance.mend, fixable=True)
            for day in sorted(wanted - known.keys())
        ]
        found += [
            _lost(instance, connection, day, today - timedelta(days=1))
            for day in days.without_partition(connection)
        ]
    for day, name in sorted(there.items()):
        drop = instance.commands.sql(f"DROP TABLE {name}")
        if known.get(day) is not None or (day not in known and last_sealed and day <= last_sealed):
            what = f"{name} is still there, but {day} is sealed: its views are counted without it"
            found.append(Finding("warning", what, drop))
        elif day not in known:
            what = f"{name} is there, but {day} is not in event_days: its events are not counted"
            found.append(Finding("problem", what, instance.mend, fixable=True))
    return Found(f"{len(there)} days have a partition, today and tomorrow among them", found)


def _lost(instance: Instance, connection: Connection, day: date, yesterday: date) -> Finding:
    """What is left of an open day whose partition is gone."""
    name = days.partition_name(day)
    what = f"{day} takes events, but its partition is gone: they cannot be stored"
    if connection.scalar(TABLE_EXISTS, {"name": name}):
        what = f"{name} is detached: events of {day} cannot be stored"
    elif has_daily_rows(connection, day) and day < yesterday:
        what += "; its daily rows are all that is left, and sealing the day keeps them"
    elif has_daily_rows(connection, day):
        what += f"; restore {name}, or an empty one is made and tonight's rollup replaces the daily rows"
    return Finding("problem", what, instance.mend, fixable=True)


def has_daily_rows(connection: Connection, day: date) -> bool:
    """Whether anything was counted of `day`."""
    return bool(connection.scalar(select(func.count()).where(DailyStats.day == day)))


def retention(instance: Instance) -> Found:
    """Is anything kept for longer than promised?"""
    settings = instance.settings
    today = site_day(instance.now, settings.time_zone) - timedelta(days=LATE_DAYS)
    raw = today - timedelta(days=settings.raw_retention_days)
    daily = today - timedelta(days=settings.daily_retention_days)
    limit = instance.now - salts.LIFETIME - SALTS_LATE
    log = instance.commands.read_log("upkeep")
    with instance.engine.connect() as connection:
        old_raw = connection.scalars(
            select(EventDay.day)
            .where(EventDay.day < raw, EventDay.sealed_at.is_(None))
            .order_by(EventDay.day)
        ).all()
        oldest_daily = connection.scalar(select(func.min(DailyStats.day)).where(DailyStats.day < daily))
        old_salts = connection.scalar(
            select(func.count()).where(
                Salt.day <= site_day(limit, settings.time_zone), Salt.created_at <= limit
            )
        )
    found = []
    if old_raw:
        what = f"raw events of {old_raw[0]} are kept past their {settings.raw_retention_days} days"
        more = f" (and {len(old_raw) - 1} days more)" if len(old_raw) > 1 else ""
        found.append(Finding("problem", what + more, log))
    if oldest_daily:
        what = f"daily rows of {oldest_daily} are kept past their {settings.daily_retention_days} days"
        found.append(Finding("warning", what, log))
    if old_salts:
        what = f"{old_salts} salts are kept past their 48 hours: visitors of those days can still be tested"
        found.append(Finding("problem", what, instance.commands.start_again("upkeep")))
    return Found(f"raw events since {raw + timedelta(days=LATE_DAYS)} at the earliest, no old salts", found)


def dead_letters(instance: Instance) -> Found:
    """Is there anything that could not be stored?"""
    with instance.engine.connect() as connection:
        rows = connection.execute(REASONS, {"lately": instance.now - timedelta(hours=1)}).all()
    if not rows:
        return Found("no event was refused by the database", (), {"letters": 0})
    letters = sum(row.letters for row in rows)
    first = ago((instance.now - min(row.first for row in rows)).total_seconds())
    last = ago((instance.now - max(row.last for row in rows)).total_seconds())
    reasons = ", ".join(f"{row.letters} {row.reason}" for row in rows)
    what = f"{letters} events could not be stored, the first {first} ago, the last {last} ago: {reasons}"
    show = "SELECT day, reason, detail, count(*) FROM dead_letters GROUP BY 1, 2, 3 ORDER BY 4 DESC"
    is_flood = sum(row.lately for row in rows) > FLOOD
    finding = Finding("problem" if is_flood else "warning", what, instance.commands.sql(show))
    return Found("", [finding], {"letters": letters, "reasons": {row.reason: row.letters for row in rows}})


def sizes(instance: Instance) -> Found:
    """How much is there, and what comes near a limit?"""
    with instance.engine.connect() as connection:
        rows = connection.execute(SIZES, {"tables": list(Base.metadata.tables)}).all()
        last_id = connection.scalar(text("SELECT max(id) FROM entities")) or 0
    figures = {row.name: {"table": row.table_bytes, "indexes": row.index_bytes} for row in rows}
    whole = sum(row.table_bytes + row.index_bytes for row in rows)
    found = list(_disk(instance))
    if last_id > KEYS_USED * MOST_ENTITIES:
        what = f"{last_id / MOST_ENTITIES:.0%} of the keys that entities can have are used up"
        found.append(
            Finding("warning", what, instance.commands.sql("SELECT max(id), count(*) FROM entities"))
        )
    largest = ", ".join(f"{row.name} {size(row.table_bytes + row.index_bytes)}" for row in rows[:3])
    return Found(f"{size(whole)} of tables and indexes: {largest}", found, {"bytes": figures})


def _disk(instance: Instance) -> Iterator[Finding]:
    """Of the embedded stores; nobody sees the disk of others."""
    if instance.folder is None:
        return
    usage = shutil.disk_usage(instance.folder)
    free = usage.free / usage.total
    for severity, share in DISK_FREE.items():
        if free < share:
            what = f"the disk of {instance.folder} is nearly full: {size(usage.free)} are free"
            yield Finding("problem" if severity == "problem" else "warning", what, f"df -h {instance.folder}")
            return
