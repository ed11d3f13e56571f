"""Days come and go: prepared ahead, raw events and daily rows dropped after their time, salts at once."""

import logging
from datetime import date, datetime, timedelta

from redis import Redis
from sqlalchemy import Connection, Engine, delete, func, select, text
from sqlalchemy.exc import OperationalError

from footfall import days, event_kinds, known_referrers, ledger, salts, schema_check, stream
from footfall.clock import site_day
from footfall.schema import DailyStats, EventDay, RollupDay, ViewSlot
from footfall.settings import Settings

log = logging.getLogger(__name__)

# What is still in the queue may belong to a day that is about to be dropped; ids reach back a day, so an
# entry that is younger than a day belongs to days that are kept.
OLDEST_ENTRY = timedelta(days=1)
# A large day takes longer to index than a writer's statement may
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '15min'")


def turn_days(engine: Engine, settings: Settings, now: datetime) -> None:
    """Make the next days' partitions and salts ahead, delete salts and slots past their time, and index days
    that get hardly any events any more.

    May be called at any time, any often; often enough, no salt outlives its 48 hours by much.
    """
    today = site_day(now, settings.time_zone)
    with engine.begin() as connection:
        days.open_days(connection, [today + timedelta(days=n) for n in range(days.DAYS_AHEAD + 1)])
    with engine.begin() as connection:
        salts.make_ahead(connection, today, now)
        salts.delete_expired(connection, now, settings.time_zone)
        connection.execute(delete(ViewSlot).where(ViewSlot.ends_at <= now))
    _index_closed_days(engine, today - timedelta(days=1))


def drop_expired(engine: Engine, redis: Redis, settings: Settings, now: datetime) -> list[date]:
    """Seal and drop the raw days past their retention, oldest first, then what else has expired.

    Returns the days that were sealed. Stops at a day that must not be dropped yet (not rolled up from its
    last version, or possibly still in the queue, or locked by a long reader); the next run tries again.
    Raises `SchemaError` and drops nothing when the schema is not the one that this code writes to.
    """
    schema_check.require_before_work(engine)
    today = site_day(now, settings.time_zone)
    sealed = []
    queue_is_young = stream.backlog(redis, now).oldest_seconds < OLDEST_ENTRY.total_seconds()
    for day in _expired_days(engine, today - timedelta(days=settings.raw_retention_days)):
        if not queue_is_young or not _seal(engine, day, now):
            log.warning("raw day kept past its retention", extra={"day": day})
            break
        sealed.append(day)
    first_kept = today - timedelta(days=settings.daily_retention_days)
    with engine.begin() as connection:
        _drop_daily_rows(connection, first_kept)
        known_referrers.forget(connection, first_kept)
        first_raw = connection.scalar(select(func.min(EventDay.day)).where(EventDay.sealed_at.is_(None)))
        if first_raw is not None:  # an event may be of a day that has not come, by so many
            event_kinds.forget(connection, first_raw - timedelta(days=days.DAYS_AHEAD))
    stream.drop_tallies_before(redis, first_kept)
    stream.forget_idle_consumers(redis)
    return sealed


def _expired_days(engine: Engine, first_kept: date) -> list[date]:
    with engine.connect() as connection:
        query = select(EventDay.day).where(EventDay.day < first_kept, EventDay.sealed_at.is_(None))
        return list(connection.scalars(query.order_by(EventDay.day)))


def _seal(engine: Engine, day: date, now: datetime) -> bool:
    """Drop one day if its daily rows hold all of it. One transaction: sealed and dropped, or neither."""
    try:
        with engine.begin() as connection:
            connection.execute(days.LOCK_TIMEOUT)
            connection.execute(days.DAYS_LOCK)
            if not _clean_and_held(connection, day):
                return False
            days.seal(connection, day, now)
            return True
    except OperationalError as error:
        if not _is_locked(error):
            raise
        return False


def _is_locked(error: OperationalError) -> bool:
    return getattr(error.orig, "pgcode", None) == "55P03"  # lock_not_available: somebody is at it


def _index_closed_days(engine: Engine, first_open: date) -> None:
    with engine.connect() as connection:
        closed = sorted(day for day in days.partitions(connection) if day < first_open)
    for day in closed:
        try:
            with engine.begin() as connection:
                connection.execute(STATEMENT_TIMEOUT)
                days.index_entities(connection, day)
        except OperationalError as error:
            if not _is_locked(error):
                raise
            log.warning("index of a closed day is for the next run", extra={"day": day})


def _clean_and_held(connection: Connection, day: date) -> bool:
    """Whether the day is clean, asked under a lock that waits for its writers and keeps new ones out."""
    version = connection.scalar(
        select(EventDay.version).where(EventDay.day == day, EventDay.sealed_at.is_(None)).with_for_update()
    )
    rolled = connection.scalar(select(RollupDay.version).where(RollupDay.day == day))
    return version is not None and version == rolled


def _drop_daily_rows(connection: Connection, first_kept: date) -> None:
    connection.execute(delete(DailyStats).where(DailyStats.day < first_kept))
    ledger.drop_tallies_before(connection, first_kept)
    # the newest sealed day stays: it tells which days take no events any more
    last = days.last_sealed_day(connection)
    if last is None:
        return
    gone = min(first_kept, last)
    connection.execute(delete(RollupDay).where(RollupDay.day < gone))
    connection.execute(delete(EventDay).where(EventDay.day < gone, EventDay.sealed_at.is_not(None)))
