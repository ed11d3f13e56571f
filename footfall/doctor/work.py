"""Whether the parts do their work: tasks, rollups, the API, the counts that are shown, countries."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import maxminddb
from sqlalchemy import Connection, func, select, text

from footfall import cache, counts, keys, liveness, stream
from footfall.clock import day_start, days_back, site_day
from footfall.countries import CountrySource
from footfall.database import read_snapshot
from footfall.doctor.report import Expected, Finding, Found, Instance, ago
from footfall.entities import Name
from footfall.liveness import Run
from footfall.schema import RollupDay, ShownBehind, Site, Tally

PARTS = {"write": "worker"}  # who serves a queue, if not the part of its name
WRITE_TASK = "footfall.write_events"
SLACK_SECONDS = 120.0  # a run may take a while, and a worker that stops is started again
SLACK_SHARE = 1.1  # a day may have 25 hours
UNCLEAN = timedelta(minutes=10)  # open days are rolled forward every 5 minutes or sooner
FILE_AGE = timedelta(days=40)  # these files come once a month
FALLBACK_SHARE = 0.01  # of the views of two days
MOST_COUNTS = 10_000  # shown counts that are compared

# Since when the first event that is not in its day's rows is there: by the number of its entry in the stream,
# or, of what came past the stream, by when it happened; but it was not there at the last rollup
UNCLEAN_DAYS = text("""
    SELECT event_days.day, greatest(rolled_up_at, first.came_at) AS waiting_since
    FROM event_days LEFT JOIN rollup_days USING (day) CROSS JOIN LATERAL (
        SELECT min(CASE WHEN entry > 0 THEN to_timestamp((entry >> :bits) / 1000.0) ELSE occurred_at END)
            AS came_at
        FROM view_events AS v
        WHERE v.day = event_days.day AND v.version > coalesce(rollup_days.version, -1)
    ) AS first
    WHERE sealed_at IS NULL AND event_days.version IS DISTINCT FROM rollup_days.version
      AND event_days.day <= :tomorrow AND (event_days.version > 0 OR event_days.day < :yesterday)
    ORDER BY event_days.day
""")


def tasks(instance: Instance) -> Found:
    """Does beat tick, and do the workers do what it asks for?"""
    since, runs = liveness.last_runs(instance.redis)
    schedule = instance.schedule
    late = {name for name, task in schedule.items() if _is_late(name, task, since, runs, instance.now)}
    waiting = {
        queue: _queued(instance, queue) for queue in sorted({task.queue for task in schedule.values()})
    }
    found = list(_silence(instance, late, runs, waiting))
    found += [
        Finding(
            "problem" if name == WRITE_TASK else "warning",
            f"{name} ended with {run.error} {ago((instance.now - run.ended_at).total_seconds())} ago",
            instance.commands.read_log(_part(schedule[name].queue)),
        )
        for name, run in sorted(runs.items())
        if run.error and name in schedule and name not in late
    ]
    return Found(
        f"beat and the workers of {len(waiting)} queues do what the schedule says",
        found,
        {
            "tasks": {
                name: {
                    "last_run": runs[name].ended_at.isoformat() if name in runs else None,
                    "error": (runs[name].error or None) if name in runs else None,
                    "late": name in late,
                }
                for name in sorted(schedule)
            },
            "queued": waiting,
        },
    )


def _is_late(
    name: str, task: Expected, since: datetime | None, runs: Mapping[str, Run], now: datetime
) -> bool:
    """Never run counts from the first note on: a nightly task of a new instance has not had its night yet."""
    last = runs[name].ended_at if name in runs else since
    allowed = timedelta(seconds=SLACK_SHARE * task.interval_seconds + SLACK_SECONDS)
    return last is None or now - last > allowed


def _queued(instance: Instance, queue: str) -> int:
    """Tasks that nobody has taken. Celery's broker keeps them in a list."""
    return int(instance.redis.llen(f"{keys.CELERY_PREFIX}{queue}"))


def _silence(
    instance: Instance, late: set[str], runs: Mapping[str, Run], waiting: Mapping[str, int]
) -> Iterator[Finding]:
    """Who it is that does not work: beat if not even the most frequent task of any queue is run, and none
    waits for a worker; else the workers.
    """
    every = instance.schedule
    often = {min((name for name in every if every[name].queue == q), key=every.__getitem__) for q in waiting}
    if often <= late and not any(waiting.values()):
        what = f"no task was run {_for_how_long(instance, often, runs)}: beat does not run, or no worker does"
        yield Finding("problem", what, instance.commands.start_again("beat"))
        return
    for queue, queued in waiting.items():
        of_queue = {name for name in late if instance.schedule[name].queue == queue}
        if of_queue:
            part = _part(queue)
            how = f"{queued} tasks wait for it" if queued else f"log of {part} or of beat says more"
            names = ", ".join(sorted(name.removeprefix("footfall.") for name in of_queue))
            what = f"{part} has not run {names} {_for_how_long(instance, of_queue, runs)}; {how}"
            yield Finding("problem", what, instance.commands.start_again(part))


def _part(queue: str) -> str:
    return PARTS.get(queue, queue)


def _for_how_long(instance: Instance, late: set[str], runs: Mapping[str, Run]) -> str:
    last = max((runs[name].ended_at for name in late if name in runs), default=None)
    return "yet" if last is None else f"for {ago((instance.now - last).total_seconds())}"


def api(instance: Instance) -> Found:
    """Is somebody there to take views, and was somebody in the last days?"""
    zone, now = instance.settings.time_zone, instance.now
    span = days_back(site_day(now, zone), instance.settings.raw_retention_days)
    with instance.engine.connect() as connection:
        last = connection.scalar(select(Site.last_alive_at))
        gaps = liveness.days_with_gap(connection, span, zone, now)
    commands = instance.commands
    found = []
    if last is None:
        found.append(Finding("warning", "no API process has run here yet", commands.start))
    elif now - last > liveness.GAP:
        silence = ago((now - last).total_seconds())
        found.append(Finding("problem", f"no API process lives, for {silence} already", commands.start))
    elif gaps:
        names = ", ".join(str(day) for day in sorted(gaps))
        what = f"nobody took views for more than 10 minutes on {names}: the numbers may be too low"
        found.append(Finding("warning", what, commands.read_log("api")))
    figures = {
        "last_alive_at": last.isoformat() if last else None,
        "days_with_gap": [day.isoformat() for day in sorted(gaps)],
    }
    return Found("an API process lives, and there was one in the last days", found, figures)


def rollup(instance: Instance) -> Found:
    """Are the daily rows those of the raw events?"""
    today = site_day(instance.now, instance.settings.time_zone)
    with instance.engine.connect() as connection:
        stale = stale_days(connection, instance, today)
        last = connection.scalar(select(func.max(RollupDay.rolled_up_at)))
    found = [
        Finding(
            "warning",
            f"{day} has waited {ago((instance.now - since).total_seconds())} to be rolled up",
            instance.mend,
            fixable=True,
        )
        for day, since in stale.items()
    ]
    rolled = (
        f"last rolled up {ago((instance.now - last).total_seconds())} ago" if last else "nothing rolled up"
    )
    figures = {
        "last": last.isoformat() if last else None,
        "stale_days": [day.isoformat() for day in stale],
    }
    return Found(f"{rolled}, no day waits", found, figures)


def stale_days(connection: Connection, instance: Instance, today: date) -> dict[date, datetime]:
    """The days whose daily rows have been behind for long, and since when."""
    parameters = {
        "bits": stream.SEQUENCE_BITS,
        "tomorrow": today + timedelta(days=1),
        "yesterday": today - timedelta(days=1),
    }
    found: dict[date, datetime] = {}
    for row in connection.execute(UNCLEAN_DAYS, parameters):
        since = row.waiting_since or day_start(row.day, instance.settings.time_zone)
        if instance.now - since > UNCLEAN:
            found[row.day] = since
    return found


def fallback(instance: Instance) -> Found:
    """How many views came past Redis?"""
    today = site_day(instance.now, instance.settings.time_zone)
    lately = [today - timedelta(days=1), today]
    with instance.engine.connect() as connection:
        query = select(func.coalesce(func.sum(Tally.amount), 0)).where(
            Tally.day.in_(lately), Tally.name == "accepted"
        )
        past = int(connection.scalar(query) or 0)
    through = sum(stream.ledger(instance.redis).get(f"{day}:accepted", 0) for day in lately)
    share = past / (past + through) if past else 0.0
    figures = {"past_redis": past, "through_redis": through, "share": round(share, 4)}
    if not instance.settings.redis_enabled:
        return Found("VIEW_TRACKING_REDIS_ENABLED is false: all views go past Redis", (), figures)
    found = []
    if share > FALLBACK_SHARE:
        what = f"{share:.0%} of the events of today and yesterday came past Redis ({past})"
        found.append(Finding("warning", what, instance.commands.read_log("redis")))
    return Found(f"{past} of {past + through} events of today and yesterday came past Redis", found, figures)


def shown_counts(instance: Instance) -> Found:
    """Is what is shown at least what is stored?"""
    behind, compared = counts_behind(instance)
    found = []
    if behind:
        what = f"{len(behind)} counts that are shown are lower than what is stored"
        found.append(Finding("warning", what, instance.mend, fixable=True))
    figures = {"compared": compared, "behind": len(behind)}
    return Found(f"none of {compared} counts that are shown is lower than what is stored", found, figures)


def counts_behind(instance: Instance) -> tuple[list[Name], int]:
    """The entities that are shown with less than is stored, and of how many. What is noted for the next
    tick is left out.
    """
    behind: list[Name] = []
    compared = 0
    parts = MOST_COUNTS // counts.SCAN_COUNT
    for batch in islice(counts.names_shown(instance.redis), parts):
        # first what is stored: what is shown only rises meanwhile
        with read_snapshot(instance.engine) as connection:
            stored = counts.stored(connection, batch)
            noted = _noted(connection)
        for name, by_type in stored.items():
            shown = counts.shown(instance.redis, name)
            if shown is None or name in noted:
                continue
            compared += 1
            if any(shown.get(view_type, 0) < count for view_type, count in by_type.items()):
                behind.append(name)
    return behind, compared


def _noted(connection: Connection) -> set[Name]:
    rows = connection.execute(
        counts.NAMES_BEHIND, {"ids": list(connection.scalars(select(ShownBehind.entity_id)))}
    )
    return {(row.entity_type, row.external_id) for row in rows}


def countries(instance: Instance) -> Found:
    """Where do countries come from, and is that any good?"""
    settings = instance.settings
    source = CountrySource(settings.country_header, settings.country_file).describe(instance.now)
    if "problem" in source:
        what = f"{source['problem']}: FOOTFALL_COUNTRY_FILE is {settings.country_file}"
        return Found("", [Finding("warning", what, f"ls -l {settings.country_file}")])
    if source["source"] == "none":
        return Found("no source of countries: every view has the country ZZ", (), {"source": "none"})
    figures = {"source": source["source"]}
    if settings.country_file is None:
        return Found(f"countries come from the header {settings.country_header}", (), figures)
    with maxminddb.open_database(settings.country_file) as reader:
        built_at = datetime.fromtimestamp(reader.metadata().build_epoch, UTC)
    age = instance.now - built_at
    found = []
    if age > FILE_AGE:
        what = f"the country file is {age.days} days old: addresses have moved since; fetch a newer one"
        found.append(Finding("warning", what, "footfall geo install"))
    return Found(
        f"the country file is {age.days} days old", found, {**figures, "built_at": built_at.isoformat()}
    )


def answers(instance: Instance) -> Found:
    """How many answers are served without computing them?"""
    rate = cache.hit_rate(instance.redis)
    if rate is None:
        return Found("nobody has asked for numbers yet", (), {"hit_rate": None})
    return Found(f"{rate:.0%} of the answers came from the cache", (), {"hit_rate": round(rate, 4)})
