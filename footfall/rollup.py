"""From raw events to one row an entity and day.

`roll_up` computes a day's rows as a whole, so that twice is the same as once, and writes those that are not
so already. While a day still gets events, `roll_forward` adds what came since, and remembers whom it has
counted; both give the same rows.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import TextClause

from footfall import days, entities, schema_check
from footfall.definitions import (
    BREAKDOWNS,
    COUNTS,
    FIGURE_COLUMNS,
    FIGURES,
    Seam,
    figures_of,
    kinds_of_views,
    slices_of_all,
    slices_of_day,
    viewers_of_all,
)
from footfall.errors import Unavailable
from footfall.schema import EventDay, RollupDay, SeenRun, SeenVisitor

log = logging.getLogger(__name__)

# Any number that nobody else uses as the first half of an advisory lock's key; the second half is the day
ROLLUP_LOCK = 710862
TRY_LOCK = text("SELECT pg_try_advisory_lock(:lock, :day)")
UNLOCK = text("SELECT pg_advisory_unlock(:lock, :day)")
# A rollup of a large day takes longer than a writer's statement may
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '15min'")
# Enough to count a million events without the disk; a rollup takes some of these at a time, sorted and hashed
# (twice as much), in each of the processes that PostgreSQL allows it
WORK_MEM = text("SET LOCAL work_mem = '64MB'")
# Compiling the statements takes longer than they do
NO_JIT = text("SET LOCAL jit = off")

# Of what has just come the planner knows nothing, and may compare each row of one table with each of another
NO_NESTED_LOOPS = text("SET LOCAL enable_nestloop = off")

# A whole day's slices are counted by all processors, each by one: to share one among several costs as much as
# it saves, since most of what is counted is seen once
SLICE_BY_SLICE = (
    text("SET LOCAL parallel_setup_cost = 0"),
    text("SET LOCAL parallel_tuple_cost = 0"),
    text("SET LOCAL min_parallel_table_scan_size = '5TB'"),
    text("SET LOCAL parallel_leader_participation = off"),
    # Each entity's visitors are sorted by themselves, not all of them at once by entity and visitor, which
    # takes twice as long. Older than 16, PostgreSQL knows nothing else.
    text("""
        SELECT set_config(name, 'off', true) FROM pg_settings WHERE name = 'enable_presorted_aggregate'
    """),
)

DAYS_TO_ROLL = text("""
    SELECT day FROM event_days LEFT JOIN rollup_days USING (day)
    WHERE day BETWEEN :first AND :last AND sealed_at IS NULL
      AND event_days.version IS DISTINCT FROM rollup_days.version
    ORDER BY day
""")
NEVER_ANALYZED = text("""
    SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class
    WHERE reltuples < 0 AND relkind = 'r' AND (
        oid = ANY(CAST(
            ARRAY['entities', 'event_kinds', 'daily_stats', 'seen_visitors', 'seen_runs'] AS regclass[]
        ))
        OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST('view_events' AS regclass))
    )
""")
ONE_DAY = timedelta(days=1)
# Events that a reader adds in less than a tenth of a second, and how long fewer are left to readers
MANY = 10_000
LONG = timedelta(minutes=5)
HOLD_OFF_TRIES = 300
HOLD_OFF_POLL_SECONDS = 0.2


def _added(breakdown: str) -> str:
    """Two {value: views} as one, by a look at what came: it is much less than what is there."""
    return f"""{breakdown} = CASE WHEN excluded.{breakdown} = '{{}}' THEN d.{breakdown}
        ELSE d.{breakdown} || (
            SELECT jsonb_object_agg(
                key, CAST(value AS bigint) + coalesce(CAST(d.{breakdown} ->> key AS bigint), 0)
            ) FROM jsonb_each_text(excluded.{breakdown})
        ) END"""  # noqa: S608 - a constant


def _same(columns: Sequence[str], table: str) -> str:
    """Whether the row `d` says what a row of `table` says."""
    return " IS NOT DISTINCT FROM ".join(
        f"({', '.join(f'{of}.{name}' for name in columns)})" for of in (table, "d")
    )


ADD_TO_ROW = ", ".join(
    (*(f"{name} = d.{name} + excluded.{name}" for name in COUNTS), *map(_added, BREAKDOWNS))
)

ADD_FIGURES = text(f"""
    INSERT INTO daily_stats AS d (entity_id, entity_type, day, {FIGURE_COLUMNS})
    SELECT entity_id, entity_type, day, {FIGURE_COLUMNS} FROM counted JOIN entities ON entities.id = entity_id
    ON CONFLICT (entity_id, day) DO UPDATE SET {ADD_TO_ROW}
""")  # noqa: S608 - constants

# What is so already is left alone: a day that is checked at night and found right costs no writing
DROP_FIGURES = text(f"""
    DELETE FROM daily_stats AS d WHERE day = :day AND NOT EXISTS (
        SELECT FROM counted WHERE counted.entity_id = d.entity_id
            AND {_same(FIGURES, "counted")}
    )
""")  # noqa: S608 - constants
PUT_FIGURES = text(f"""
    INSERT INTO daily_stats (entity_id, entity_type, day, {FIGURE_COLUMNS})
    SELECT entity_id, entity_type, day, {FIGURE_COLUMNS} FROM counted JOIN entities ON entities.id = entity_id
    ON CONFLICT (entity_id, day) DO NOTHING
""")  # noqa: S608 - constants
DROP_RUNS = text(f"""
    DELETE FROM seen_runs AS d WHERE day = :day AND NOT EXISTS (
        SELECT FROM slices WHERE slices.entity_id = d.entity_id AND slices.visitors[1] = d.first
            AND {_same(("authenticated", "visitors"), "slices")}
    )
""")  # noqa: S608 - constants
PUT_RUNS = text("""
    INSERT INTO seen_runs (entity_id, day, authenticated, first, visitors)
    SELECT entity_id, day, authenticated, visitors[1], visitors FROM slices WHERE visitors IS NOT NULL
    ON CONFLICT (day, entity_id, authenticated, first) DO NOTHING
""")

# In the order of the index: neighbours are found and stored together. Nobody else adds to a day that is held,
# and without ON CONFLICT a row costs half as much.
REMEMBER_VIEWERS = text("""
    INSERT INTO seen_visitors (day, entity_id, visitor, authenticated)
    SELECT day, entity_id, visitor, authenticated FROM viewers WHERE seen IS NULL
    ORDER BY day, entity_id, visitor
""")
REMEMBER_SIGN_INS = text("""
    INSERT INTO seen_visitors (day, entity_id, visitor, authenticated)
    SELECT day, entity_id, visitor, true FROM viewers WHERE authenticated AND NOT seen
    ORDER BY day, entity_id, visitor
    ON CONFLICT (day, entity_id, visitor) DO UPDATE SET authenticated = true
""")


@dataclass(frozen=True, slots=True)
class RollupResult:
    """What a rollup did: how many daily rows it wrote, and which version of the day they hold now."""

    day: date
    rows: int
    version: int


def days_to_roll(connection: Connection, today: date) -> list[date]:
    """The closed days whose daily rows are not those of their raw rows, oldest first."""
    return _unclean_days(connection, date.min, today - ONE_DAY)


def roll_up(engine: Engine, day: date, now: datetime, *, keep_visitors: bool = False) -> RollupResult | None:
    """Recompute the daily rows of `day` and replace those that differ; None when another rollup of it is
    running, or nothing is kept of it.

    May be run twice, late, or by several at once. An event that is committed while this runs is not in it,
    but it has raised the day's version, so the day stays unclean and the next run takes it. With
    `keep_visitors` the day can be rolled forward from here.
    """
    return _alone(engine, day, lambda connection: _replace(connection, day, now, keep_visitors))


def roll_forward(engine: Engine, day: date, now: datetime) -> RollupResult | None:
    """Add to the daily rows of `day` what came since; from the beginning when they cannot be added to.

    None as `roll_up`.
    """
    return _alone(engine, day, lambda connection: _add(connection, day, now))


def roll_up_closed_days(
    engine: Engine, today: date, now: datetime, *, recheck: bool = False
) -> list[RollupResult]:
    """Roll up every closed day that is not clean; what another rollup holds is left to it.

    With `recheck` also yesterday if it was only rolled forward: computed as a whole, once a night.
    """
    yesterday = today - ONE_DAY
    with engine.begin() as connection:
        _forget_visitors(connection, yesterday)
        todo = set(days_to_roll(connection, today))
        if recheck and connection.scalar(select(RollupDay.visitors_kept).where(RollupDay.day == yesterday)):
            todo.add(yesterday)
    return _done(roll_up(engine, day, now, keep_visitors=day == yesterday) for day in sorted(todo))


def catch_up(engine: Engine, today: date, now: datetime, *, sparing: bool = False) -> list[RollupResult]:
    """Roll the days forward that still get events (tomorrow by clocks that are ahead, yesterday by browsers
    that were offline), and up those before them that some latecomer made unclean.

    `sparing` leaves a day alone for some minutes while little has come: readers add that by themselves, and
    a daily row costs the same to change for one more view as for a hundred.
    """
    yesterday = today - ONE_DAY
    with engine.begin() as connection:
        _forget_visitors(connection, yesterday)
        over = days_to_roll(connection, yesterday)
        going_on = _unclean_days(connection, yesterday, today + ONE_DAY)
        if sparing:
            going_on = [day for day in going_on if not _can_wait(connection, day, now)]
    return [
        *_done(roll_up(engine, day, now) for day in over),
        *_done(roll_forward(engine, day, now) for day in going_on),
    ]


def _can_wait(connection: Connection, day: date, now: datetime) -> bool:
    """Whether what came to `day` since it was rolled is little, and not long ago."""
    seam = Seam.of(connection, [day])
    if seam.raw.get(day, -1) == -1:
        return False
    rolled_at = connection.scalar(select(RollupDay.rolled_up_at).where(RollupDay.day == day))
    if rolled_at is None or now - rolled_at >= LONG:
        return False
    count = text(f"SELECT count(*) FROM ({seam.events}) AS came_since")  # noqa: S608 - constants
    return int(connection.scalar(count, seam.parameters) or 0) < MANY


@contextmanager
def held_off(engine: Engine, days: Collection[date]) -> Iterator[None]:
    """No rollup of `days` runs until the block ends; one that does is waited for.

    Raises `Unavailable` when that takes longer than a minute.
    """
    with engine.connect() as connection, ExitStack() as held:
        for day in sorted(days):
            for _ in range(HOLD_OFF_TRIES):
                if held.enter_context(_only_rollup_of(connection, day)):
                    break
                time.sleep(HOLD_OFF_POLL_SECONDS)
            else:
                raise Unavailable(f"{day} is being rolled up; try again later", retry_after_seconds=60)
        yield


def _unclean_days(connection: Connection, first: date, last: date) -> list[date]:
    return list(connection.scalars(DAYS_TO_ROLL, {"first": first, "last": last}))


def _done(results: Iterable[RollupResult | None]) -> list[RollupResult]:
    return [result for result in results if result is not None]


def _alone(
    engine: Engine, day: date, work: Callable[[Connection], RollupResult | None]
) -> RollupResult | None:
    """Do `work` in one snapshot, while no other rollup of `day` runs.

    Raises `SchemaError` when this code cannot write here: rows of another version would say less, or other.
    """
    schema_check.require_before_work(engine)
    engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection, _only_rollup_of(connection, day) as alone:
        if not alone:
            log.info("rollup skipped, another one is running", extra={"day": day})
            return None
        _gather_statistics(connection)
        with connection.begin():
            connection.execute(STATEMENT_TIMEOUT)
            result = work(connection)
    if result is not None:
        log.info("day rolled up", extra={"day": day, "rows": result.rows})
    return result


def _gather_statistics(connection: Connection) -> None:
    """Of what has none yet: of a new day and of a new site the planner would take tables for empty, and join
    them row by row. Afterwards autovacuum sees to it.
    """
    with connection.begin():
        for table in connection.scalars(NEVER_ANALYZED).all():
            connection.execute(text(f"ANALYZE {table}"))


def _replace(connection: Connection, day: date, now: datetime, keep_visitors: bool) -> RollupResult | None:
    version, table = _version(connection, day), days.partitions(connection).get(day)
    if version is None or table is None:
        return None  # never opened, or its raw rows are gone: its daily rows are all there is
    for setting in SLICE_BY_SLICE:
        connection.execute(setting)
    parameters = {"day": day, "entity_id": entities.site(connection).id, **kinds_of_views(connection)}
    table = connection.dialect.identifier_preparer.quote(table)
    _count(connection, slices_of_day(table), parameters)
    connection.execute(DROP_FIGURES, {"day": day})
    rows = connection.execute(PUT_FIGURES).rowcount
    connection.execute(delete(SeenVisitor).where(SeenVisitor.day == day))
    if keep_visitors:
        connection.execute(DROP_RUNS, {"day": day})
        connection.execute(PUT_RUNS)
    else:
        connection.execute(delete(SeenRun).where(SeenRun.day == day))
    return _note(connection, RollupResult(day, rows, version), now, keep_visitors)


def _add(connection: Connection, day: date, now: datetime) -> RollupResult | None:
    seam = Seam.of(connection, [day])
    version = _version(connection, day)
    if version is None or seam.raw.get(day) == -1:
        return _replace(connection, day, now, keep_visitors=True)
    if day not in seam.raw:
        return RollupResult(day=day, rows=0, version=version)
    parameters = {**seam.parameters, "entity_id": entities.site(connection).id}
    _compute(connection, "viewers", viewers_of_all(seam), parameters)
    _count(connection, slices_of_all(seam, "viewers"), parameters)
    rows = connection.execute(ADD_FIGURES).rowcount
    connection.execute(REMEMBER_VIEWERS)
    connection.execute(REMEMBER_SIGN_INS)
    return _note(connection, RollupResult(day, rows, version), now, visitors_kept=True)


def _version(connection: Connection, day: date) -> int | None:
    return connection.scalar(
        select(EventDay.version).where(EventDay.day == day, EventDay.sealed_at.is_(None))
    )


def _note(connection: Connection, result: RollupResult, now: datetime, visitors_kept: bool) -> RollupResult:
    noted = {"version": result.version, "rolled_up_at": now, "visitors_kept": visitors_kept}
    statement = insert(RollupDay).values(day=result.day, **noted)
    connection.execute(statement.on_conflict_do_update(index_elements=["day"], set_=noted))
    return result


def _count(connection: Connection, slices: TextClause, parameters: Mapping[str, Any]) -> None:
    """Leaves the slices, and the figures that they add up to, in the temporary tables `slices`, `counted`."""
    _compute(connection, "slices", slices, parameters)
    _compute(connection, "counted", text(figures_of("slices")), {})


def _compute(connection: Connection, table: str, query: TextClause, parameters: Mapping[str, Any]) -> None:
    """A temporary table in between: only a query that writes nothing is done by several processes."""
    for setting in (WORK_MEM, NO_JIT, NO_NESTED_LOOPS):
        connection.execute(setting)
    connection.execute(text(f"CREATE TEMP TABLE {table} ON COMMIT DROP AS {query.text}"), parameters)


def _forget_visitors(connection: Connection, first_kept: date) -> None:
    """Days before get hardly any events: they are rolled up as a whole when one comes."""
    for table in (SeenVisitor, SeenRun):
        connection.execute(delete(table).where(table.day < first_kept))
    connection.execute(
        update(RollupDay)
        .where(RollupDay.day < first_kept, RollupDay.visitors_kept)
        .values(visitors_kept=False)
    )


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
