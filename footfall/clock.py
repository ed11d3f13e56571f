"""The one place that asks what time it is; everything else is told."""

from datetime import UTC, date, datetime, timedelta, tzinfo


def utc_now() -> datetime:
    """The current moment, aware and in UTC."""
    return datetime.now(UTC)


def site_day(moment: datetime, zone: tzinfo) -> date:
    """The calendar day of `moment` (aware) in the site's time zone."""
    return moment.astimezone(zone).date()


def day_start(day: date, zone: tzinfo) -> datetime:
    """The first moment of `day` in the site's time zone, in UTC.

    A day may be 23 or 25 hours long where clocks change, so this is never `start of another day + 24 h`.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def days_back(today: date, days: int) -> list[date]:
    """`days` days ending with `today`, oldest first."""
    return [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
