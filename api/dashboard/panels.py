"""What the dashboard's panels show: pure functions from the answers of the API to what a template prints."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any

from markupsafe import Markup

from api.dashboard import charts
from api.dashboard.charts import Column
from footfall.cache import Answer
from footfall.event import UNKNOWN_COUNTRY
from footfall.fields import NO_DETAIL

# not strftime's: it writes them in the operator's language
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
CHART_HEIGHT, SMALL_HEIGHT, STRIP_HEIGHT = 248, 170, 56
DAY_TICKS, SMALL_TICKS = 10, 5
WEEK = 7  # of so few days each is called by its weekday
FLAG_LETTERS = 0x1F1E6 - ord("A")  # regional indicators, two of which are a flag

WORDS = {"api": "API", NO_DETAIL: "Not told"}
NOT_COUNTED = {
    "bot": ("Bots", "crawlers and other programs, by their user agent"),
    "own": ("Own views", "of authors looking at what is theirs"),
    "repeat": ("Repeats", "the same viewer again, within the window of the content type"),
}


@dataclass(frozen=True, slots=True)
class Card:
    """One figure, and how it compares with the same span before."""

    name: str
    value: int
    change: str = ""
    direction: str = ""  # better or worse; neither, when nothing can be said
    before: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the most viewed."""

    name: str
    detail: str
    url: str
    views: int
    visitors: int | None
    bar: Markup


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and the table behind it."""

    title: str
    drawing: Markup
    head: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    numbers: int = 1  # columns of the table with numbers, after its first
    series: Sequence[str] = ()  # named in a legend when there are several
    has_gap: bool = False
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a breakdown."""

    name: str
    value: int
    bar: Markup
    percent: str
    flag: str = ""
    code: str = ""  # of a country, which the browser can name
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A table whose rows have bars behind them."""

    title: str
    of: str  # what the rows are
    bars: Sequence[Bar]
    empty: str
    note: str = ""
    has_shares: bool = True


def card(name: str, value: int, daily: Sequence[int | None], days: int) -> Card:
    """A figure of the last `days` days with its change against as many days before.

    `daily` has the figure of every day that is kept, the last of them today, None for a day with a gap. Only
    whole days are compared, each with the one `days` days earlier: with the hours that today has had so far,
    every morning would look like a loss. Of today alone it says what yesterday had.
    """
    if days == 1:
        yesterday = daily[-2] if len(daily) > 1 else None
        return Card(name, value, before="" if yesterday is None else f"{yesterday:,} yesterday")
    now, before = _total(daily[-days:-1]), _total(daily[-2 * days : -days - 1])
    if len(daily) < 2 * days or now is None or not before:
        return Card(name, value)
    percent = 100 * (now - before) / before
    shown = f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.1f} %"
    direction = "" if now == before else "better" if now > before else "worse"
    told = f"vs {days} days before"
    return Card(name, value, shown.replace("-", "\N{MINUS SIGN}"), direction, told)


def by_day(daily: Sequence[Mapping[str, Any]], name: str, gaps: Set[str] = frozenset()) -> list[int | None]:
    """A figure of each day, as `card` takes it; `gaps` are the days with one, besides those that say so."""
    return [None if row.get("gap") or row["date"] in gaps else row[name] for row in daily]


def days(daily: Sequence[Mapping[str, Any]]) -> Chart:
    """Views and visitors a day, of `daily_views`; the last day is today."""
    drawn = [
        _day(row, index, len(daily), (row["views"], row["unique_viewers"]), row["gap"])
        for index, row in enumerate(daily)
    ]
    return _columns("days", "Views and visitors a day", drawn, ("Views", "Unique visitors"), DAY_TICKS)


def counts(name: str, title: str, noun: str, daily: Sequence[Mapping[str, Any]], gaps: Set[str]) -> Chart:
    """Something else a day, of `daily_signups` or `daily_posts`; `gaps` are the days with one."""
    drawn = [
        _day(row, index, len(daily), (row["count"],), row["date"] in gaps) for index, row in enumerate(daily)
    ]
    return _columns(name, title, drawn, (noun,), SMALL_TICKS, SMALL_HEIGHT)


def hours(hourly: Sequence[Mapping[str, Any]], zone: tzinfo, *, is_wide: bool) -> Chart:
    """Views an hour, of `hourly_views`, whose last hour is the current one."""
    ticks = DAY_TICKS if is_wide else SMALL_TICKS
    moments = [datetime.fromisoformat(row["hour"]).astimezone(zone) for row in hourly]
    drawn = [
        Column(
            f"{day_name(moment.date())}, {moment:%H:%M}",
            f"{moment:%H:%M}",
            (row["views"],),
            is_open=index == len(moments) - 1,
        )
        for index, (moment, row) in enumerate(zip(moments, hourly, strict=True))
    ]
    return _columns("hours", "Views an hour, last 24 hours", drawn, ("Views",), ticks)


def live(realtime: Answer, zone: tzinfo) -> Chart:
    """Views a minute, of `views_by_minute`."""
    values = [
        (f"{datetime.fromisoformat(row['minute']).astimezone(zone):%H:%M}", row["views"])
        for row in realtime["views_by_minute"]
    ]
    title = "Views a minute, last 30 minutes"
    total = sum(views for _, views in values)
    return Chart(
        title,
        charts.strip(values, f"{title}: {total:,} in all. The table has every minute.", height=STRIP_HEIGHT),
        ("Minute", "Views"),
        [(minute, f"{views:,}") for minute, views in reversed(values)],
    )


def traffic(of: Callable[[Answer, str], Any], answer: Answer, total: int) -> dict[str, Breakdown]:
    """The breakdowns that every page has; `of` takes a figure of an answer, for the audience."""
    by = {name: of(answer, f"views_by_{name}") for name in ("country", "device", "type", "source")}
    return {
        "referrers": names(
            "Referrers",
            "Site",
            of(answer, "top_referrers"),
            "No view came from another site.",
            "the ten with most views",
        ),
        "countries": countries(by["country"], total),
        "devices": breakdown("Devices", "Device", by["device"], "No views.", total),
        "view_types": breakdown("View types", "Type", by["type"], "No views.", total),
        "sources": breakdown("View sources", "Source", by["source"], "No views.", total),
    }


def breakdown(
    title: str, of: str, values: Mapping[str, int], empty: str, total: int | None = None
) -> Breakdown:
    """Views by something that has identifiers, which are shown as words; shares are of `total` or the sum."""
    whole = sum(values.values()) if total is None else total
    bars = [_bar(words(name), value, values, whole) for name, value in values.items()]
    return Breakdown(title, of, bars, empty)


def names(title: str, of: str, values: Mapping[str, int], empty: str, note: str = "") -> Breakdown:
    """Counts of names that stay as they are; without shares, for they are not all there."""
    bars = [_bar(name, value, values, 0) for name, value in values.items()]
    return Breakdown(title, of, bars, empty, note, has_shares=False)


def countries(values: Mapping[str, int], total: int) -> Breakdown:
    """Views by country. Browsers know the names; without scripts the code has to do."""
    bars = [
        _bar(
            "Unknown" if code == UNKNOWN_COUNTRY else code,
            value,
            values,
            total,
            flag=flag(code),
            code="" if code == UNKNOWN_COUNTRY else code,
        )
        for code, value in values.items()
    ]
    return Breakdown(
        "Countries", "Country", bars, "No views, so no countries.", note="the ten with most views"
    )


def not_counted(values: Mapping[str, int]) -> Breakdown:
    """Events that are no views, and why."""
    total = sum(values.values())
    bars = [
        _bar(NOT_COUNTED[why][0], value, values, total, detail=NOT_COUNTED[why][1])
        for why, value in values.items()
    ]
    return Breakdown(
        "Not counted, and why", "Reason", bars if total else [], "Everything that came was a view."
    )


def gap_days(daily: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the days in which nobody counted for a while."""
    return [day_name(date.fromisoformat(row["date"])) for row in daily if row["gap"]]


def flag(code: str) -> str:
    """The emoji of a two-letter country code; none for a country that is not known."""
    if len(code) != 2 or not code.isascii() or not code.isupper() or code == UNKNOWN_COUNTRY:
        return ""
    return "".join(chr(FLAG_LETTERS + ord(letter)) for letter in code)


def words(name: str) -> str:
    """An identifier as words: payment_declined is `Payment declined`."""
    if name in WORDS:
        return WORDS[name]
    spaced = name.replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def visitors_name(days: int) -> str:
    """What their number is called: of several days it is a sum."""
    return "Unique visitors" if days == 1 else "Visitor days"


def day_name(day: date) -> str:
    """Such as `Sat 21 Nov`."""
    return f"{WEEKDAYS[day.weekday()]} {day.day} {MONTHS[day.month - 1]}"


def span_name(first: date, last: date) -> str:
    """Such as `Sun 15 Nov – Sat 21 Nov 2026`."""
    return (
        f"{day_name(last)} {last.year}"
        if first == last
        else f"{day_name(first)} – {day_name(last)} {last.year}"
    )


def moment_name(moment: str | None, zone: tzinfo) -> str:
    """Such as `21 Nov 2026, 14:02`; a dash for none."""
    if moment is None:
        return "–"
    local = datetime.fromisoformat(moment).astimezone(zone)
    return f"{local.day} {MONTHS[local.month - 1]} {local.year}, {local:%H:%M}"


def _total(values: Sequence[int | None]) -> int | None:
    """Their sum; None when one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _bar(name: str, value: int, values: Mapping[str, int], total: int, **more: str) -> Bar:
    percent = 100 * value / total if total else 0.0
    shown = "" if not total else "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"
    return Bar(name, value, charts.share(value, max(values.values())), shown, **more)


def _columns(
    name: str,
    title: str,
    drawn: Sequence[Column],
    series: Sequence[str],
    ticks: int,
    height: int = CHART_HEIGHT,
) -> Chart:
    """A column chart, and its table with the latest first."""
    total = sum(column.values[0] for column in drawn)
    has_gap = any(column.gap for column in drawn)
    label = f"{title}: {total:,} in all{_peak(drawn)}. The table has every number."
    return Chart(
        title,
        charts.columns(name, drawn, series, label, height=height, ticks=ticks),
        ("Hour" if name == "hours" else "Day", *series, "Note"),
        [
            (column.name, *(f"{value:,}" for value in column.values), _note(column))
            for column in reversed(drawn)
        ],
        series=series if len(series) > 1 else (),
        numbers=len(series),
        has_gap=has_gap,
        is_empty=total == 0 and not has_gap,
    )


def _day(row: Mapping[str, Any], index: int, count: int, values: tuple[int, ...], gap: bool) -> Column:
    day = date.fromisoformat(row["date"])
    is_today = index == count - 1
    short = f"{WEEKDAYS[day.weekday()]} {day.day}" if count <= WEEK else f"{day.day} {MONTHS[day.month - 1]}"
    return Column(day_name(day), "Today" if is_today else short, values, gap, is_today)


def _note(column: Column) -> str:
    return "gap: not counted for a while" if column.gap else "so far" if column.is_open else ""


def _peak(drawn: Sequence[Column]) -> str:
    highest = max(drawn, key=lambda column: column.values[0])
    return f", most on {highest.name} with {highest.values[0]:,}" if highest.values[0] else ""
