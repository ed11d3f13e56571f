"""Whether somebody was there to take views: what tells a quiet day from one that nobody counted."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from footfall.clock import day_start
from footfall.schema import Gap, Site

INTERVAL_SECONDS = 60.0  # between two signs of life of a process
GAP = timedelta(minutes=10)  # shorter silences are restarts


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
