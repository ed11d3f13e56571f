"""`footfall demo-data`: a month of invented traffic in the database of a running instance, to look at.

Days that are too old for a batch go the way of all others: through the writer, the rollup and the retention,
each told what time it is. No daily row says anything that was not counted from events.
"""

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from footfall.cli import data_dir_option
from footfall.errors import FootfallError

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from footfall.cli.demo_traffic import Month
    from footfall.event import ViewEvent
    from footfall.settings import Settings

SEED = 2026
BATCH_EVENTS = 5_000


class Refused(FootfallError):
    """There is something in the database that invented views must not be mixed with."""

    code = "refused"


@click.command("demo-data")
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How many days, today included; at most as many as daily rows are kept.",
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Another seed, another month.")
@click.option("--force", is_flag=True, help="Also into a database that has counted views already.")
@data_dir_option
def command(days: int, seed: int, force: bool, data_dir: Path) -> None:
    """Fill the database of a running instance with a month of invented traffic.

    With weekends, a day on which a large site linked to an article, an afternoon on which nobody
    counted, and views up to this minute. The same seed makes the same month. There is no way to take
    it out again, so use a --data-dir of its own.
    """
    from footfall.cli.data_dir import environment
    from footfall.cli.demo_traffic import Month
    from footfall.clock import utc_now
    from footfall.database import make_engine
    from footfall.settings import Settings
    from footfall.stream import connect

    settings = Settings.from_mapping(environment(data_dir, os.environ))
    if days > settings.daily_retention_days:
        raise Refused(
            f"daily rows are kept for {settings.daily_retention_days} days, so --days can be no more"
        )
    engine, redis = make_engine(settings), connect(settings)
    try:
        if not force:
            _refuse_real_views(engine)
        events = _fill(engine, redis, settings, Month(utc_now(), settings.time_zone, days, seed))
    finally:
        redis.close()
        engine.dispose()
    click.echo(_report(events, days, data_dir))


def _refuse_real_views(engine: "Engine") -> None:
    from sqlalchemy import text

    with engine.connect() as connection:
        # a counter outlives the raw events and the daily rows of what it counted
        used = connection.scalar(
            text("SELECT EXISTS (SELECT FROM view_events) OR EXISTS (SELECT FROM view_counters)")
        )
    if used:
        raise Refused(
            "this database has counted views already; invented ones would be mixed with them and cannot be "
            "taken out again. Use a --data-dir of its own, or --force if nothing in this one matters"
        )


def _fill(engine: "Engine", redis: "Redis", settings: "Settings", month: "Month") -> Counter[str]:
    """Let the month pass, day by day; how many events of each kind."""
    from footfall import days as event_days
    from footfall import retention, rollup
    from footfall.answers import Answers
    from footfall.cli.replay import progress_bar
    from footfall.clock import day_start

    _tell(engine, month.now - timedelta(days=month.days))
    with engine.connect() as connection:
        sealed = event_days.last_sealed_day(connection)
    written: Counter[str] = Counter()
    with progress_bar(month.days, "writing days") as bar:
        for day, events in month:
            if sealed is None or day > sealed:
                now = min(day_start(day + timedelta(days=1), month.zone), month.now)
                _write(engine, settings, events, now)
                if now < month.now:
                    rollup.roll_up(engine, day, now)
                written.update(event.entity_type for event in events)
            bar.update(1)
    _note_gap(engine, month)
    # yesterday again: the live views of a quarter past midnight reach into it
    rollup.roll_up_closed_days(engine, day, month.now)
    retention.drop_expired(engine, redis, settings, month.now)
    Answers(engine, redis, settings).refresh_ahead(month.now)
    return written


def _write(engine: "Engine", settings: "Settings", events: "Sequence[ViewEvent]", now: datetime) -> None:
    """Straight into the database, as when Redis is away: that way in takes the time from its caller."""
    from footfall import fallback
    from footfall.event import View

    for start in range(0, len(events), BATCH_EVENTS):
        part = events[start : start + BATCH_EVENTS]
        fallback.take(engine, settings, [View(event) for event in part], now)


def _tell(engine: "Engine", now: datetime) -> None:
    """Tell of the things that have owners, as the host site would."""
    from footfall import host
    from footfall.cli.demo_traffic import THINGS

    with engine.begin() as connection:
        for thing in THINGS:
            columns = {
                "title": thing.title,
                "owner_id": thing.owner,
                "reactions": dict(thing.reactions),
                "comments": thing.comments,
            }
            host.put(connection, thing.name, host.Told(columns, thing.parent), now)


def _note_gap(engine: "Engine", month: "Month") -> None:
    from sqlalchemy.dialects.postgresql import insert

    from footfall.schema import Gap

    gap = month.gap()
    if gap is not None:
        with engine.begin() as connection:
            connection.execute(
                insert(Gap).values(started_at=gap[0], ended_at=gap[1]).on_conflict_do_nothing()
            )


def _report(events: Counter[str], days: int, data_dir: Path) -> str:
    from footfall.cli.demo_traffic import THINGS

    owners = ", ".join(sorted({thing.owner for thing in THINGS}))
    folder = f" --data-dir {data_dir}" if data_dir != Path(".footfall") else ""
    content = events.total() - events["page"] - events["site_event"]
    return (
        f"{events.total():,} events of {days} days: {events['page']:,} of pages, {content:,} of content "
        f"owned by {owners}, {events['site_event']:,} of the site.\n"
        f"To read them: footfall token --role moderator --subject you{folder}"
    )
