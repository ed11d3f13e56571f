"""Whether somebody was there to take views: what tells a quiet day from one that nobody counted. And whether
the tasks run that the schedule names, which each notes in Redis.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import cast

from redis import Redis
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from footfall import keys
from footfall.clock import day_start
from footfall.schema import Gap, Site

INTERVAL_SECONDS = 60.0  # between two signs of life of a process
GAP = timedelta(minutes=10)  # shorter silences are restarts
RUNS_SINCE = "since"  # the field that says when the notes of runs begin


@dataclass(frozen=True, slots=True)
class Run:
    """The end of a task's last run: when, and the error that ended it, or none."""

    ended_at: datetime
    error: str


def note_alive(connection: Connection, now: datetime) -> None:
    """An API process lives. Notes a gap if none has said so for more than 10 minutes. The caller commits."""
    last = connection.scalar(select(Site.last_alive_at).with_for_update())
    if last is not None and now - last > GAP:
        connection.execute(insert(Gap).values(started_at=last, ended_at=now).on_conflict_do_nothing())
    if last is None or now > last:
        connection.execute(update(Site).values(last_alive_at=now))


def days_with_gap(connection: Connection, days: Iterable[date], zone: tzinfo, now: datetime) -> set[date]:
    """Those of `days` in which nobody took views for more than 10 minutes, the present silence included."""
    gaps = [
        (row.started_at, row.ended_at) for row in connection.execute(select(Gap.started_at, Gap.ended_at))
    ]
    last = connection.scalar(select(Site.last_alive_at))
    if last is not None and now - last > GAP:
        gaps.append((last, now))
    return {
        day
        for day in days
        if any(
            start < day_start(day + timedelta(days=1), zone) and end > day_start(day, zone)
            for start, end in gaps
        )
    }


def note_run(redis: Redis, task: str, now: datetime, error: str = "") -> None:
    """A task has run; `error` is the type of what ended it, if anything did. One field a task."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.hsetnx(keys.RUNS, RUNS_SINCE, now.isoformat())
        pipeline.hset(keys.RUNS, task, f"{now.isoformat()} {error}")
        pipeline.execute()


def last_runs(redis: Redis) -> tuple[datetime | None, dict[str, Run]]:
    """Since when runs are noted, None before the first, and the last run of each task."""
    fields = cast(dict[bytes, bytes], redis.hgetall(keys.RUNS))
    noted = {name.decode(): value.decode().partition(" ") for name, value in fields.items()}
    runs = {name: Run(datetime.fromisoformat(at), error) for name, (at, _, error) in noted.items()}
    since = runs.pop(RUNS_SINCE, None)
    return since.ended_at if since else None, runs
