"""How fast numbers are read: a week of a million events a day, a month of daily rows of 20,000 entities.

    .venv/bin/python -m benchmarks.read [--scale 0.1] [--runs 20] [--explain plans.txt] [--keep FOLDER]

Starts a PostgreSQL and a Redis of its own in a throwaway folder, fills them by SQL, rolls up with the real
rollup, and measures what the API calls for each answer, uncached: once with today rolled forward as beat does
it every minute, with a minute's views after that, and once with today never rolled up. With --keep the folder
stays, and the next run begins with the days that are over. Writes results/read.json beside it.
"""

import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from redis import Redis
from sqlalchemy import Connection, Engine, event, text

from footfall import days as event_days
from footfall import entities, rollup, stats, stream
from footfall.answers import AHEAD_DAYS, PERIODS, Answers
from footfall.cli import embedded
from footfall.database import make_engine, migrate, read_snapshot
from footfall.definitions import ONE_ENTITY, THE_SITE, Subject
from footfall.settings import Settings

RESULTS = Path(__file__).parent / "results" / "read.json"
NOW = datetime(2026, 3, 10, 20, 0, 30, tzinfo=UTC)
TODAY = NOW.date()
RAW_DAYS = 7
DAILY_DAYS = 30
EVENTS_A_DAY = 1_000_000
ENTITIES = 20_000
RAW_VIEWS = (300_000, 1_000_000)  # of the day that is still going on
FEW_RUNS = 3  # of what is slow and rare
TAIL_VIEWS = 1_000  # what comes in a minute, between two ticks
# One entity in twenty is a book, the others are pages
INSERT_ENTITIES = text("""
    INSERT INTO entities (entity_type, external_id, owner_id, title, created_at)
    SELECT CASE WHEN n % 20 = 0 THEN 'book' ELSE 'page' END,
        CASE WHEN n % 20 = 0 THEN n::text ELSE '/articles/' || n || '/a-path-as-long-as-they-are' END,
        'ann', 'Title ' || n, :now
    FROM generate_series(1, :entities) AS n
""")
INSERT_KINDS = text("""
    INSERT INTO event_kinds (entity_type, outcome, device, view_type, view_source, country, last_seen_on)
    SELECT entity_type, outcome, device, view_type, view_source, country, :today
    FROM unnest(ARRAY['page', 'book']) AS entity_type, unnest(ARRAY['counted', 'bot']) AS outcome,
        unnest(ARRAY['desktop', 'mobile', 'tablet', 'other']) AS device,
        unnest(ARRAY['intentional', 'listing', 'search']) AS view_type,
        unnest(ARRAY['web', 'widget']) AS view_source,
        unnest(
            ARRAY['DE', 'US', 'GB', 'FR', 'NP', 'IN', 'BR', 'JP', 'NL', 'SE', 'PL', 'CA', 'ES', 'IT', 'ZZ']
        ) AS country
""")
# The third power makes few entities popular: the first has 4 % of all views, the last 17 of a million
INSERT_EVENTS = """
    INSERT INTO {partition} (occurred_at, visitor, entry, day, entity_id, version, kind_id, id, authenticated,
        referrer_domain)
    SELECT
        CAST(:start AS timestamptz) + interval '1 second' * (CAST(:seconds AS float8) * n / :events),
        CASE WHEN chance < 0.92 THEN (random() * :visitors)::bigint END,
        n,
        CAST(:day AS date),
        entities.id,
        CAST(:version AS integer),
        kind.id,
        CAST(lpad(to_hex(n), 12, '0') || '7' || substr(md5(n || '.' || :version || CAST(:day AS text)), 1, 19)
            AS uuid),
        chance < 0.2,
        CASE WHEN chance < 0.6 THEN 'site-' || floor(300 * power(random(), 3)) || '.example.org' END
    FROM (
        SELECT n, chance, CASE WHEN chance < 0.92 THEN 'counted' ELSE 'bot' END AS outcome,
            (SELECT min(id) FROM entities WHERE entity_type <> 'site')
                + CAST(floor(:entities * power(random(), 3)) AS integer) AS entity_id,
            (ARRAY['desktop', 'desktop', 'mobile', 'mobile', 'mobile', 'tablet', 'other'])
                [1 + floor(random() * 7)] AS device,
            (ARRAY['intentional', 'intentional', 'listing', 'search'])[1 + floor(random() * 4)] AS view_type,
            (ARRAY['web', 'web', 'web', 'widget'])[1 + floor(random() * 4)] AS view_source,
            (ARRAY['DE', 'US', 'GB', 'FR', 'NP', 'IN', 'BR', 'JP', 'NL', 'SE', 'PL', 'CA', 'ES', 'IT', 'ZZ'])
                [1 + floor(15 * power(random(), 2))] AS country
        FROM (SELECT n, random() AS chance FROM generate_series(1, CAST(:events AS bigint)) AS n) AS each
    ) AS event
    JOIN entities ON entities.id = event.entity_id
    JOIN event_kinds AS kind USING (entity_type, outcome, device, view_type, view_source, country)
    ORDER BY n
"""
# Older days look like those that were rolled up
COPY_DAILY_ROWS = text("""
    INSERT INTO daily_stats SELECT (jsonb_populate_record(s, jsonb_build_object('day', s.day - :back))).*
    FROM daily_stats AS s WHERE s.day = :day
""")
CLOSE_DAY = text("""
    WITH sealed AS (
        INSERT INTO event_days (day, version, removed_at_version, sealed_at) VALUES (:day, 1, 0, :now)
    )
    INSERT INTO rollup_days (day, version, rolled_up_at, visitors_kept) VALUES (:day, 1, :now, false)
""")
NAME_OF_RANK = text("""
    SELECT entity_type, external_id FROM entities WHERE entity_type <> 'site'
    ORDER BY id OFFSET :before LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Stage:
    """What is filled and measured."""

    engine: Engine
    redis: Redis
    settings: Settings
    scale: float
    runs: int

    @property
    def answers(self) -> Answers:
        """As a process of the API has them."""
        return Answers(self.engine, self.redis, self.settings)

    def scaled(self, n: int) -> int:
        """So many of it, at this scale."""
        return max(round(n * self.scale), 1)


@click.command()
@click.option("--scale", type=float, default=1.0, show_default=True, help="Of events and entities.")
@click.option("--runs", type=int, default=20, show_default=True, help="Of each measurement.")
@click.option("--explain", type=click.Path(path_type=Path), help="Write the queries' plans there.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the data there, or begin with those there."
)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(scale: float, runs: int, explain: Path | None, keep: Path | None, out: Path) -> None:
    """Fill a database, measure every answer, print a table."""
    plans: list[str] = []
    found: dict[str, dict[str, float]] = {}
    with _stage(scale, runs, keep) as stage:
        filling = {} if _is_filled(stage) else _fill(stage)
        for raw_views in RAW_VIEWS:
            filling |= _noted(f"{raw_views:,} views of today", partial(_fill_today, stage, raw_views))
            found |= _measured(stage, f"{raw_views:,} views today, never rolled up", FEW_RUNS)
            filling |= _noted(f"rolling {raw_views:,} views forward", partial(_roll_forward, stage))
            _vacuum(stage, "daily_stats, seen_visitors, seen_runs")
            _make_tail(stage)
            what = f"{raw_views:,} views today"
            found |= _measured(stage, what, runs)
            if explain:
                plans += _plans(stage, what)
            filling |= _noted(f"rolling {TAIL_VIEWS:,} more forward", partial(_roll_forward, stage))
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(_document(scale, runs, filling, found), indent=2) + "\n")
    if explain:
        explain.write_text("\n\n".join(plans) + "\n")


@contextmanager
def _stage(scale: float, runs: int, keep: Path | None) -> Iterator[Stage]:
    folder = keep or Path(tempfile.mkdtemp(prefix="footfall-bench-"))
    sockets = embedded.socket_folder(folder)
    postgres = embedded.Postgres(folder / "postgres", sockets, folder / "postgres.log")
    redis_server = embedded.Redis(folder / "redis", sockets, folder / "redis.log")
    processes = [(server, server.start()) for server in (postgres, redis_server)]
    try:
        settings = Settings.from_mapping(
            {"DATABASE_URL": postgres.url, "REDIS_URL": redis_server.url, "FOOTFALL_PEPPER": "p" * 32}
        )
        migrate(settings.database_url, settings)
        engine = make_engine(settings, statement_timeout_ms=600_000)
        yield Stage(engine, stream.connect(settings), settings, scale, runs)
        engine.dispose()
    finally:
        for server, process in processes:
            server.stop(process)
        if keep is None:
            shutil.rmtree(folder)


def _is_filled(stage: Stage) -> bool:
    """Whether the days that are over are there. Raises `UsageError` when they are of another scale."""
    with stage.engine.connect() as connection:
        days = connection.scalar(text("SELECT count(*) FROM rollup_days WHERE day < :day"), {"day": TODAY})
        found = connection.scalar(text("SELECT count(*) FROM entities WHERE entity_type <> 'site'"))
    if days == DAILY_DAYS - 1 and found == stage.scaled(ENTITIES):
        return True
    if found:
        raise click.UsageError("the folder holds half a data set, or one of another scale; delete it")
    return False


def _fill(stage: Stage) -> dict[str, float]:
    """Everything but today; how many seconds each step took."""
    closed = [TODAY - timedelta(days=back) for back in range(RAW_DAYS, 0, -1)]
    events = stage.scaled(EVENTS_A_DAY)
    with stage.engine.begin() as connection:
        connection.execute(INSERT_ENTITIES, {"now": NOW, "entities": stage.scaled(ENTITIES)})
        connection.execute(INSERT_KINDS, {"today": TODAY})
        event_days.open_days(connection, [*closed, TODAY])
    steps: dict[str, Callable[[], object]] = {
        f"{RAW_DAYS} days of {events:,} events": partial(_make_days, stage, closed, events),
        "rolling them up": lambda: [rollup.roll_up(stage.engine, day, NOW) for day in closed],
        f"daily rows of {DAILY_DAYS - RAW_DAYS - 1} more days": lambda: _older_days(stage, closed),
    }
    done: dict[str, float] = {}
    for what, step in steps.items():
        done |= _noted(what, step)
    return done


def _make_days(stage: Stage, days: list[date], events: int) -> None:
    for day in days:
        _make_events(stage, day, events)


def _make_events(
    stage: Stage, day: date, events: int, seconds: tuple[float, float] = (0, 86_399), *, analyze: bool = True
) -> None:
    first, last = seconds
    with stage.engine.begin() as connection:
        version = event_days.hold_open(connection, [day])[day] + 1
        connection.execute(
            text(INSERT_EVENTS.format(partition=event_days.partition_name(day))),
            {
                "start": datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=first),
                "seconds": last - first,
                "version": version,
                "events": events,
                "day": day,
                "entities": stage.scaled(ENTITIES),
                "visitors": stage.scaled(EVENTS_A_DAY) // 4,
            },
        )
        event_days.raise_versions(connection, [day])
    if analyze:
        _vacuum(stage, event_days.partition_name(day))


def _older_days(stage: Stage, closed: list[date]) -> None:
    with stage.engine.begin() as connection:
        for back in range(1, DAILY_DAYS - RAW_DAYS):
            source = closed[back % RAW_DAYS]
            day = closed[0] - timedelta(days=back)
            connection.execute(COPY_DAILY_ROWS, {"day": source, "back": (source - day).days})
            connection.execute(CLOSE_DAY, {"day": day, "now": NOW})
        connection.execute(
            text(
                "INSERT INTO view_counters SELECT entity_id, view_type.key, sum(view_type.value::bigint), 0,"
                " :now, :now, :now, :now FROM daily_stats, jsonb_each_text(views_by_type) AS view_type"
                " WHERE views > 0 AND entity_id <> (SELECT id FROM entities WHERE entity_type = 'site')"
                " GROUP BY 1, 2"
            ),
            {"now": NOW},
        )
    _vacuum(stage, "daily_stats, view_counters, entities, event_days, rollup_days")


def _fill_today(stage: Stage, raw_views: int) -> None:
    """Bring today to that many raw events, spread over the time until now, and forget its rollup."""
    with stage.engine.begin() as connection:
        partition = event_days.partition_name(TODAY)
        connection.execute(text(f"TRUNCATE {partition}"))  # a constant's name
        event_days.note_removals(connection, [TODAY])
    _make_events(stage, TODAY, stage.scaled(raw_views), (0, _since_midnight() - 60))


def _make_tail(stage: Stage) -> None:
    _make_events(
        stage, TODAY, TAIL_VIEWS, (_since_midnight() - 60, _since_midnight()), analyze=False
    )  # a minute is too short for autovacuum to come by


def _roll_forward(stage: Stage) -> None:
    rollup.roll_forward(stage.engine, TODAY, NOW)


def _since_midnight() -> float:
    return (NOW - datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)).total_seconds()


def _vacuum(stage: Stage, tables: str) -> None:
    # as autovacuum would have done by then
    with stage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE {tables}"))


def _questions(stage: Stage) -> dict[str, Callable[[], object]]:
    """Every answer, computed anew as the API does: with its snapshot, its JSON and the cache's write."""
    answers = stage.answers
    with read_snapshot(stage.engine) as connection:
        known = {name: _entity(connection, rank) for name, rank in _ranks(stage).items()}
        site = entities.site(connection)
    questions: dict[str, Callable[[], object]] = {}
    for name, row in known.items():
        for n in (30, 7):
            questions[f"entity ({name}), {n} days"] = partial(answers.entity, row, n, NOW, refresh=True)
    for n in AHEAD_DAYS:
        questions[f"site-wide, {n} days"] = partial(answers.sitewide, n, NOW, refresh=True)
    for kind, view_type in (("page", None), ("book", None), ("book", "listing")):
        for period in PERIODS:
            name = f"top {kind}s, {period}" + (f", {view_type}" if view_type else "")
            questions[name] = partial(answers.top, kind, period, view_type, 20, NOW, refresh=True)
    most_viewed = known["most viewed"].id
    questions["export of an entity"] = partial(_export, stage, ONE_ENTITY, most_viewed)
    questions["export of the site"] = partial(_export, stage, THE_SITE, site.id)
    questions["now (realtime)"] = partial(_realtime, stage)
    return questions


def _ranks(stage: Stage) -> dict[str, int]:
    return {"most viewed": 1, "in the middle": stage.scaled(ENTITIES) // 2 + 1}


def _entity(connection: Connection, rank: int) -> entities.EntityRow:
    name = connection.execute(NAME_OF_RANK, {"before": rank - 1}).one()
    found = entities.find(connection, name.entity_type, name.external_id)
    if found is None:
        raise LookupError(name)
    return found


def _export(stage: Stage, subject: Subject, entity_id: int) -> list[dict[str, Any]]:
    span = stats.Span.ending_today(DAILY_DAYS, NOW, UTC)
    with read_snapshot(stage.engine) as connection:
        return list(stats.daily_rows(connection, subject, entity_id, span))


def _realtime(stage: Stage) -> dict[str, Any]:
    with read_snapshot(stage.engine) as connection:
        return stats.realtime(connection, NOW, UTC)


def _measured(stage: Stage, when: str, runs: int) -> dict[str, dict[str, float]]:
    """{what: milliseconds}; printed as it is found."""
    click.echo(f"\n{when:<48}{'min':>9}{'median':>9}{'p95':>9}  ms")
    answers = stage.answers
    cached: dict[str, Callable[[], object]] = {
        "site-wide, 30 days, cached": partial(answers.sitewide, 30, NOW),
        "top pages, month, cached": partial(answers.top, "page", "month", None, 20, NOW),
    }
    questions = {**_questions(stage), **cached}
    found = {}
    for name, ask in questions.items():
        found[f"{name}, {when}"] = figures = _median(ask, runs)
        click.echo(f"{name:<48}" + "".join(f"{milliseconds:>9.1f}" for milliseconds in figures.values()))
    return found


def _noted(what: str, work: Callable[[], object]) -> dict[str, float]:
    """{what: seconds}; printed when it is done."""
    seconds = _timed(work)
    click.echo(f"{what:<48}{seconds:>9.1f}  s")
    return {what: seconds}


def _median(ask: Callable[[], object], runs: int) -> dict[str, float]:
    ask()  # what is compiled and read from disk once
    seconds = sorted(_timed(ask) for _ in range(runs))
    return {
        "min_ms": round(1000 * seconds[0], 2),
        "median_ms": round(1000 * statistics.median(seconds), 2),
        "p95_ms": round(1000 * seconds[round(0.95 * (len(seconds) - 1))], 2),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _plans(stage: Stage, when: str) -> list[str]:
    """The plan of every statement of every question."""
    plans = []
    for name, ask in _questions(stage).items():
        statements = _statements(stage.engine, ask)
        for statement, parameters in statements:
            with stage.engine.connect() as connection:
                lines = connection.exec_driver_sql(
                    f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters
                ).scalars()
                plan = "\n".join(lines)
            plans.append(f"=== {name}, {when}\n{statement.strip()}\n\n{plan}")
    return plans


def _statements(engine: Engine, ask: Callable[[], object]) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return seen


def _document(
    scale: float, runs: int, filling: dict[str, float], found: dict[str, dict[str, float]]
) -> dict[str, Any]:
    return {
        "scale": scale,
        "runs": runs,
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "seconds": {what: round(seconds, 1) for what, seconds in filling.items()},
        "milliseconds": found,
    }


if __name__ == "__main__":
    main()
