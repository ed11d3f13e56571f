"""The one place that asks what time it is; everything else is told."""

from datetime import UTC, date, datetime, timedelta, tzinfo

# {zone: (the day that was asked for last, its first moment, the next day's)}: nearly always it is today
_last_days: dict[tzinfo, tuple[date, datetime, datetime]] = {}
NO_DAY = (date.min, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))


def utc_now() -> datetime:
    """The current moment, aware and in UTC."""
    return datetime.now(UTC)


def site_day(moment: datetime, zone: tzinfo) -> date:
    """The calendar day of `moment` (aware) in the site's time zone."""
    day, begins, ends = _last_days.get(zone, NO_DAY)
    if begins <= moment < ends:
        return day
    day = moment.astimezone(zone).date()
    _last_days[zone] = (day, day_start(day, zone), day_start(day + timedelta(days=1), zone))
    return day


def day_start(day: date, zone: tzinfo) -> datetime:
    """The first moment of `day` in the site's time zone, in UTC.

    A day may be 23 or 25 hours long where clocks change, so this is never `start of another day + 24 h`.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def days_back(today: date, days: int) -> list[date]:
    """`days` days ending with `today`, oldest first."""
    return [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
