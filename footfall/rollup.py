"""From raw events to one row an entity and day: recomputed as a whole, so that twice is the same as once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, Engine, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from footfall import entities
from footfall.definitions import EACH_ENTITY, FIGURE_COLUMNS, THE_SITE, figures
from footfall.schema import DailyStats, EventDay, RollupDay

log = logging.getLogger(__name__)

# Any number that nobody else uses as the first half of an advisory lock's key; the second half is the day
ROLLUP_LOCK = 710862
TRY_LOCK = text("SELECT pg_try_advisory_lock(:lock, :day)")
UNLOCK = text("SELECT pg_advisory_unlock(:lock, :day)")
# A rollup of a large day takes longer than a writer's statement may
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '15min'")

DAYS_TO_ROLL = text("""
    SELECT day FROM event_days LEFT JOIN rollup_days USING (day)
    WHERE day < :today AND sealed_at IS NULL
      AND event_days.version IS DISTINCT FROM rollup_days.version
    ORDER BY day
""")


@dataclass(frozen=True, slots=True)
class RollupResult:
    """What a rollup did: how many daily rows the day has now, computed from which version of it."""

    day: date
    rows: int
    version: int


def days_to_roll(connection: Connection, today: date) -> list[date]:
    """The closed days whose daily rows are not those of their raw rows, oldest first."""
    return list(connection.scalars(DAYS_TO_ROLL, {"today": today}))


def roll_up(engine: Engine, day: date, now: datetime) -> RollupResult | None:
    """Recompute the daily rows of `day`; None when another rollup of it is running, or nothing is kept of it.

    May be run twice, late, or by several at once. An event that is committed while this runs is not in it,
    but it has raised the day's version, so the day stays unclean and the next run takes it.
    """
    engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection, _only_rollup_of(connection, day) as alone:
        if not alone:
            log.info("rollup skipped, another one is running", extra={"day": day})
            return None
        with connection.begin():
            result = _replace(connection, day, now)
    if result is not None:
        log.info("day rolled up", extra={"day": day, "rows": result.rows})
    return result


def roll_up_closed_days(engine: Engine, today: date, now: datetime) -> list[RollupResult]:
    """Roll up every closed day that is not clean; what another rollup holds is left to it."""
    with engine.connect() as connection:
        todo = days_to_roll(connection, today)
    results = [roll_up(engine, day, now) for day in todo]
    return [result for result in results if result is not None]


def _replace(connection: Connection, day: date, now: datetime) -> RollupResult | None:
    connection.execute(STATEMENT_TIMEOUT)
    version = connection.scalar(
        select(EventDay.version).where(EventDay.day == day, EventDay.sealed_at.is_(None))
    )
    if version is None:
        return None  # never opened, or its raw rows are gone: its daily rows are all there is
    connection.execute(delete(DailyStats).where(DailyStats.day == day))
    rows = _insert_figures(connection, EACH_ENTITY, {"days": [day]})
    site_id = entities.site(connection).id
    rows += _insert_figures(connection, THE_SITE, {"days": [day], "entity_id": site_id})
    statement = insert(RollupDay).values(day=day, version=version, rolled_up_at=now)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["day"], set_={"version": version, "rolled_up_at": now}
        )
    )
    return RollupResult(day=day, rows=rows, version=version)


def _insert_figures(connection: Connection, events: str, parameters: dict[str, object]) -> int:
    query = figures(events)
    statement = text(
        f"INSERT INTO daily_stats (entity_id, day, {FIGURE_COLUMNS}) {query.text}"  # noqa: S608
    ).bindparams(query._bindparams["days"])
    return connection.execute(statement, parameters).rowcount


@contextmanager
def _only_rollup_of(connection: Connection, day: date) -> Iterator[bool]:
    """Hold the day's session lock, taken and given back in transactions of their own: a rollup that waited
    for it inside its transaction would compute from a snapshot older than the rows that it replaces.
    """
    key = {"lock": ROLLUP_LOCK, "day": day.toordinal()}
    with connection.begin():
        taken = bool(connection.scalar(TRY_LOCK, key))
    try:
        yield taken
    finally:
        if taken:
            with connection.begin():
                connection.execute(UNLOCK, key)
