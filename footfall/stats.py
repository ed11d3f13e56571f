"""What readers see: daily rows, and the raw events that are not in them yet, from one snapshot.

Every function takes a connection in one REPEATABLE READ transaction (`database.read_snapshot`), so that a day
that is rolled up meanwhile is read from one side or the other, never from both or neither.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from heapq import nlargest
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Date

from footfall import entities, liveness
from footfall.clock import days_back, site_day
from footfall.content_types import PAGE, SITE_EVENT, SITE_EVENTS
from footfall.definitions import (
    BREAKDOWNS,
    COUNTS,
    FIGURE_COLUMNS,
    ONE_ENTITY,
    THE_SITE,
    Seam,
    Subject,
    figures,
)
from footfall.ranking import VIEWS, VIEWS_AUTHENTICATED, VIEWS_OF_TYPE, most_viewed
from footfall.schema import ViewCounter

TOP_COUNTRIES = 10
TOP_REFERRERS = 10
TOP_PAGES = 20
REALTIME_MINUTES = 30
CURRENT = timedelta(minutes=5)  # who viewed within it is here now

DAILY_ROWS = text(
    f"SELECT day, {FIGURE_COLUMNS} FROM daily_stats"  # noqa: S608 - constants
    " WHERE entity_id = :entity_id AND day = ANY(:days)"
).bindparams(bindparam("days", type_=ARRAY(Date)))

DAYS = bindparam("days", type_=ARRAY(Date))
# A constant, as everything here that SQL is put together from.
# The site's views since a moment; `days` are all that lie in between, so that few partitions are read
RECENT = """
    FROM view_events AS e JOIN event_kinds AS kind
        ON kind.id = e.kind_id AND kind.entity_type = 'page' AND kind.outcome = 'counted'
    WHERE e.day = ANY(:days) AND e.occurred_at >= :since
"""
VIEWS_BY_MINUTE = text(
    f"SELECT date_trunc('minute', e.occurred_at) AS minute, count(*) AS views {RECENT} GROUP BY 1"  # noqa: S608
).bindparams(DAYS)
CURRENT_VISITORS = text(f"SELECT count(DISTINCT e.visitor) {RECENT}").bindparams(DAYS)  # noqa: S608
CURRENT_PAGES = text(
    f"WITH viewed AS (SELECT e.entity_id, count(*) AS views {RECENT} GROUP BY 1)"  # noqa: S608
    " SELECT page.external_id AS path, views FROM viewed JOIN entities AS page ON page.id = entity_id"
    " ORDER BY views DESC, path LIMIT :most"
).bindparams(DAYS)

# In the order of views before names are looked up: the planner can stop at the first that are of the type
TOP_OF_ALL_TIME = text("""
    SELECT e.external_id, e.title, CAST(counted.views AS bigint) AS views
    FROM (
        SELECT entity_id, sum(CAST(count AS float8)) AS views FROM view_counters
        WHERE CAST(:view_type AS text) IS NULL OR view_type = :view_type
        GROUP BY entity_id ORDER BY views DESC
    ) AS counted
    JOIN entities AS e ON e.id = counted.entity_id
    WHERE e.entity_type = :entity_type AND e.deleted_at IS NULL
    ORDER BY counted.views DESC, e.external_id
    LIMIT :limit
""")

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """The days that a reader asks for, and the moment at which."""

    days: tuple[date, ...]  # in order, none missing
    now: datetime
    zone: tzinfo

    @classmethod
    def ending_today(cls, days: int, now: datetime, zone: tzinfo) -> "Span":
        """The last `days` days of the site, the current one included."""
        return cls(tuple(days_back(site_day(now, zone), days)), now, zone)

    def last_hours(self) -> list[datetime]:
        """The beginnings of the last 24 hours, the current one included, oldest first."""
        this_hour = self.now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return [this_hour - timedelta(hours=back) for back in range(23, -1, -1)]

    def gaps(self, connection: Connection) -> set[date]:
        """The days in which nobody was there to take views for a while."""
        return liveness.days_with_gap(connection, self.days, self.zone, self.now)


def entity_stats(connection: Connection, entity: entities.EntityRow, span: Span) -> dict[str, Any]:
    """An entity's figures over `span`, as the contract names them."""
    rows = _figures_by_day(connection, ONE_ENTITY, entity.id, span.days)
    return {
        "entity_type": entity.entity_type,
        "entity_id": entity.external_id,
        "title": entity.title,
        **_both_audiences(rows, span.gaps(connection), "total_views"),
        "not_counted": _not_counted(rows.values()),
        **_all_time(connection, entity.id),
        **_engagement(entity),
        "computed_at": span.now.isoformat(),
    }


def sitewide_stats(connection: Connection, span: Span) -> dict[str, Any]:
    """The whole site's figures over `span`, as the contract names them."""
    hours = span.last_hours()
    days = sorted({*span.days, *(site_day(hour, span.zone) for hour in hours)})
    every_row = _figures_by_day(connection, THE_SITE, entities.site(connection).id, days)
    rows = {day: every_row[day] for day in span.days}
    pages = _pages(connection, span)
    return {
        **_both_audiences(rows, span.gaps(connection), "total_page_views"),
        **_site_events(connection, span.days),
        **_by_audience(lambda authenticated: {"hourly_views": _by_hour(every_row, hours, authenticated)}),
        **_by_audience(lambda authenticated: {"views_by_page": pages[authenticated]}),
        "not_counted": _not_counted(rows.values()),
        "computed_at": span.now.isoformat(),
    }


def top(
    connection: Connection, entity_type: str, span: Span | None, view_type: str | None, limit: int
) -> list[dict[str, Any]]:
    """The most viewed entities of a type over `span`, or of all time when it is None; most viewed first.

    `visitor_days` is None where there are no visitors to add up: of all time, and of one view type.
    """
    has_visitors = span is not None and view_type is None
    if span is None:
        wanted = {"entity_type": entity_type, "view_type": view_type, "limit": limit}
        rows: Iterable[Row[Any]] = connection.execute(TOP_OF_ALL_TIME, wanted)
    else:
        figure = VIEWS if view_type is None else VIEWS_OF_TYPE
        rows = most_viewed(
            connection, entity_type, span.days, figure, limit, view_type, has_visitors=has_visitors
        )
    return [
        {
            "entity_id": row.external_id,
            "title": row.title,
            "views": row.views,
            "visitor_days": row.visitor_days if has_visitors else None,
        }
        for row in rows
    ]


def realtime(connection: Connection, now: datetime, zone: tzinfo) -> dict[str, Any]:
    """What happens now: the site's views of each of the last 30 minutes, visitors and pages of the last 5."""
    this_minute = now.replace(second=0, microsecond=0)
    minutes = [this_minute - timedelta(minutes=back) for back in range(REALTIME_MINUTES - 1, -1, -1)]
    days = sorted({site_day(minutes[0], zone), site_day(now, zone)})
    by_minute = connection.execute(VIEWS_BY_MINUTE, {"days": days, "since": minutes[0]})
    found = {row.minute: row.views for row in by_minute}
    recent = {"days": days, "since": now - CURRENT, "most": TOP_PAGES}
    return {
        "views_by_minute": [
            {"minute": minute.isoformat(), "views": found.get(minute, 0)} for minute in minutes
        ],
        "current_visitors": connection.scalar(CURRENT_VISITORS, recent) or 0,
        "top_pages": {row.path: row.views for row in connection.execute(CURRENT_PAGES, recent)},
        "computed_at": now.isoformat(),
    }


def daily_rows(
    connection: Connection, subject: Subject, entity_id: int, span: Span
) -> Iterator[dict[str, Any]]:
    """The counts of each day, for an export: a row a day, none missing, oldest first."""
    gaps = span.gaps(connection)
    for day, row in _figures_by_day(connection, subject, entity_id, span.days).items():
        yield {
            "date": day.isoformat(),
            **{name: row.get(name, 0) for name in COUNTS},
            "gap": day in gaps,
        }


def _figures_by_day(
    connection: Connection, subject: Subject, entity_id: int, days: Sequence[date]
) -> dict[date, Figures]:
    """{day: figures} for every one of `days`, in order; a day without events has an empty mapping."""
    seam = Seam.of(connection, days)
    parameters = {"entity_id": entity_id, "days": list(seam.rolled)}
    by_day = {row.day: row._asdict() for row in connection.execute(DAILY_ROWS, parameters)}
    if seam.raw:
        statement = figures(subject, seam)
        for row in connection.execute(statement, {"entity_id": entity_id, **seam.parameters}):
            by_day[row.day] = _together(by_day.get(row.day), row._asdict())
    return {day: by_day.get(day, {}) for day in days}


def _together(rolled: Figures | None, raw: dict[str, Any]) -> dict[str, Any]:
    """The figures of a day of which some are in its daily row and the others in raw events."""
    if rolled is None:
        return raw
    return {
        **{name: rolled[name] + raw[name] for name in COUNTS},
        **{name: _added(rolled[name], raw[name]) for name in BREAKDOWNS},
    }


def _added(many: Mapping[str, int], few: Mapping[str, int]) -> dict[str, int]:
    """Two {value: views} as one; two Counters take time for the many as well."""
    return {**many, **{value: many.get(value, 0) + views for value, views in few.items()}}


def _by_hour(rows: Mapping[date, Figures], hours: Sequence[datetime], authenticated: bool) -> list[Figures]:
    views = _most(rows.values(), _column("views_by_hour", authenticated))
    return [{"hour": hour.isoformat(), "views": views.get(hour.isoformat(), 0)} for hour in hours]


def _both_audiences(rows: Mapping[date, Figures], gaps: Set[date], total: str) -> dict[str, Any]:
    return _by_audience(lambda authenticated: _traffic(rows, gaps, total, authenticated))


def _by_audience(part: Callable[[bool], Mapping[str, Any]]) -> dict[str, Any]:
    """A part of an answer for all viewers, and again for signed-in ones under names that say so."""
    everybody, signed_in = part(False), part(True)
    return {**everybody, **{f"{name}_authenticated": value for name, value in signed_in.items()}}


def _sum(rows: Mapping[date, Figures], name: str, authenticated: bool) -> int:
    return sum(row.get(_column(name, authenticated), 0) for row in rows.values())


def _column(name: str, authenticated: bool) -> str:
    return f"{name}_authenticated" if authenticated else name


def _traffic(
    rows: Mapping[date, Figures], gaps: Set[date], total: str, authenticated: bool
) -> dict[str, Any]:
    every = rows.values()
    views, unique_viewers = _column("views", authenticated), _column("unique_viewers", authenticated)

    def by(dimension: str, most: int | None = None) -> dict[str, int]:
        return _most(every, _column(f"views_by_{dimension}", authenticated), most)

    return {
        total: _sum(rows, "views", authenticated),
        "visitor_days": _sum(rows, "unique_viewers", authenticated),
        "views_by_country": by("country", TOP_COUNTRIES),
        "views_by_device": by("device"),
        "views_by_type": by("type"),
        "views_by_source": by("source"),
        "top_referrers": by("referrer", TOP_REFERRERS),
        "daily_views": [
            {
                "date": day.isoformat(),
                "views": row.get(views, 0),
                "unique_viewers": row.get(unique_viewers, 0),
                "gap": day in gaps,
            }
            for day, row in rows.items()
        ],
    }


def _site_events(connection: Connection, days: Sequence[date]) -> dict[str, Any]:
    """Signups, uploads, API calls and errors, which the host's servers tell of."""
    rows = {event_type: _site_event_figures(connection, event_type, days) for event_type in SITE_EVENTS}
    totals = {event_type: _sum(by_day, "views", False) for event_type, by_day in rows.items()}

    def daily(event_type: str) -> list[dict[str, Any]]:
        by_day = rows[event_type].items()
        return [{"date": day.isoformat(), "count": row.get("views", 0)} for day, row in by_day]

    return {
        "new_signups": totals["signup"],
        "new_posts": totals["upload"],
        "total_api_calls": totals["api_call"],
        "total_errors": totals["error"],
        "daily_signups": daily("signup"),
        "daily_posts": daily("upload"),
        "errors_by_type": _most(rows["error"].values(), "views_by_type"),
    }


def _site_event_figures(connection: Connection, event_type: str, days: Sequence[date]) -> dict[date, Figures]:
    entity = entities.find(connection, SITE_EVENT.name, event_type)
    if entity is None:
        return {day: {} for day in days}
    return _figures_by_day(connection, ONE_ENTITY, entity.id, days)


def _pages(connection: Connection, span: Span) -> dict[bool, dict[str, int]]:
    """{signed in: {path: views}}, most viewed first."""
    return {
        authenticated: {
            page.external_id: page.views
            for page in most_viewed(connection, PAGE.name, span.days, figure, TOP_PAGES)
        }
        for authenticated, figure in ((False, VIEWS), (True, VIEWS_AUTHENTICATED))
    }


def _most(rows: Iterable[Figures], name: str, most: int | None = None) -> dict[str, int]:
    """The days' breakdowns added up, largest first, equals by name."""
    total: dict[str, int] = {}
    for row in rows:
        for value, views in row.get(name, {}).items():  # Counter.update takes twice as long
            total[value] = total.get(value, 0) + views
    found: Iterable[tuple[str, int]] = total.items()
    if most is not None and len(total) > most:
        least = nlargest(most, total.values())[
            -1
        ]  # of thousands of referrers, only the last place is looked for
        found = [item for item in found if item[1] >= least]
    return dict(sorted(found, key=lambda item: (-item[1], item[0]))[:most])


def _all_time(connection: Connection, entity_id: int) -> dict[str, Any]:
    row = connection.execute(
        select(
            func.coalesce(func.sum(ViewCounter.count), 0).label("views"),
            func.min(ViewCounter.first_viewed_at).label("first"),
            func.max(ViewCounter.last_viewed_at).label("last"),
        ).where(ViewCounter.entity_id == entity_id)
    ).one()
    return {
        "all_time_views": int(row.views),
        "first_view_at": row.first.isoformat() if row.first else None,
        "last_view_at": row.last.isoformat() if row.last else None,
    }


def _engagement(entity: entities.EntityRow) -> dict[str, Any]:
    reactions = entity.reactions or {}
    return {
        "total_reactions": sum(reactions.values()),
        "reactions_by_emoji": reactions,
        "total_comments": entity.comments or 0,
    }


def _not_counted(rows: Iterable[Figures]) -> dict[str, int]:
    names = {"bot": "bots", "own": "own_views", "repeat": "repeats"}
    kept = list(rows)
    return {outcome: sum(row.get(column, 0) for row in kept) for outcome, column in names.items()}
