"""What readers see: daily rows of clean days, raw events of the others, from one snapshot.

Every function takes a connection in one REPEATABLE READ transaction (`database.read_snapshot`), so that a day
that is rolled up meanwhile is read from one side or the other, never from both or neither.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Date

from footfall import entities
from footfall.clock import days_back
from footfall.definitions import CLEAN_DAYS, FIGURE_COLUMNS, ONE_ENTITY, THE_SITE, figures
from footfall.schema import ViewCounter

TOP_COUNTRIES = 10
TOP_REFERRERS = 10
TOP_PAGES = 20
AUDIENCES = ("", "_authenticated")

DAILY_ROWS = text(
    f"SELECT day, {FIGURE_COLUMNS} FROM daily_stats"  # noqa: S608 - constants
    " WHERE entity_id = :entity_id AND day = ANY(:days)"
).bindparams(bindparam("days", type_=ARRAY(Date)))

# Pages by views, of the clean days from their daily rows and of the others from the events
PAGES_BY_VIEWS = text("""
    SELECT page.external_id AS path, CAST(sum(counted.views) AS bigint) AS views
    FROM (
        SELECT entity_id, CASE WHEN :authenticated THEN views_authenticated ELSE views END AS views
        FROM daily_stats WHERE day = ANY(:clean)
        UNION ALL
        SELECT entity_id, count(*)
        FROM view_events
        WHERE day = ANY(:others) AND outcome = 'counted' AND (authenticated OR NOT :authenticated)
        GROUP BY entity_id
    ) AS counted
    JOIN entities AS page ON page.id = counted.entity_id AND page.entity_type = 'page'
    GROUP BY page.external_id
    HAVING sum(counted.views) > 0
    ORDER BY 2 DESC, 1
    LIMIT :most
""").bindparams(bindparam("clean", type_=ARRAY(Date)), bindparam("others", type_=ARRAY(Date)))

Figures = Mapping[str, Any]


def entity_stats(
    connection: Connection, entity: entities.EntityRow, today: date, days: int, now: datetime
) -> dict[str, Any]:
    """An entity's figures of the `days` days that end with `today`, as the contract names them."""
    rows = _figures_by_day(connection, ONE_ENTITY, entity.id, days_back(today, days))
    return {
        "entity_type": entity.entity_type,
        "entity_id": entity.external_id,
        "title": entity.title,
        **{
            f"{name}{audience}": value
            for audience in AUDIENCES
            for name, value in _traffic(rows, audience, "total_views").items()
        },
        "not_counted": _not_counted(rows.values()),
        **_all_time(connection, entity.id),
        **_engagement(entity),
        "computed_at": now.isoformat(),
    }


def sitewide_stats(connection: Connection, today: date, days: int, now: datetime) -> dict[str, Any]:
    """The whole site's figures of the `days` days that end with `today`, as the contract names them."""
    wanted = days_back(today, days)
    rows = _figures_by_day(connection, THE_SITE, entities.site(connection).id, wanted)
    return {
        **{
            f"{name}{audience}": value
            for audience in AUDIENCES
            for name, value in _traffic(rows, audience, "total_page_views").items()
        },
        **_views_by_page(connection, wanted),
        "not_counted": _not_counted(rows.values()),
        "computed_at": now.isoformat(),
    }


def _figures_by_day(
    connection: Connection, events: str, entity_id: int, days: list[date]
) -> dict[date, Figures]:
    """{day: figures} for every one of `days`, in order; a day without events has an empty mapping."""
    clean = list(connection.scalars(CLEAN_DAYS, {"days": days}))
    others = sorted(set(days) - set(clean))
    found = [
        *connection.execute(DAILY_ROWS, {"entity_id": entity_id, "days": clean}),
        *connection.execute(figures(events), {"entity_id": entity_id, "days": others}),
    ]
    by_day = {row.day: row._mapping for row in found}
    return {day: by_day.get(day, {}) for day in days}


def _traffic(rows: Mapping[date, Figures], audience: str, total: str) -> dict[str, Any]:
    every = rows.values()
    return {
        total: sum(row.get(f"views{audience}", 0) for row in every),
        "visitor_days": sum(row.get(f"unique_viewers{audience}", 0) for row in every),
        "views_by_country": _most(every, f"views_by_country{audience}", TOP_COUNTRIES),
        "views_by_device": _most(every, f"views_by_device{audience}"),
        "views_by_type": _most(every, f"views_by_type{audience}"),
        "views_by_source": _most(every, f"views_by_source{audience}"),
        "top_referrers": _most(every, f"views_by_referrer{audience}", TOP_REFERRERS),
        "daily_views": [
            {
                "date": day.isoformat(),
                "views": row.get(f"views{audience}", 0),
                "unique_viewers": row.get(f"unique_viewers{audience}", 0),
            }
            for day, row in rows.items()
        ],
    }


def _most(rows: Iterable[Figures], name: str, most: int | None = None) -> dict[str, int]:
    """The days' breakdowns added up, largest first, equals by name."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.get(name, {}))
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:most])


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


def _views_by_page(connection: Connection, days: list[date]) -> dict[str, Any]:
    clean = list(connection.scalars(CLEAN_DAYS, {"days": days}))
    parameters = {"clean": clean, "others": sorted(set(days) - set(clean)), "most": TOP_PAGES}
    return {
        f"views_by_page{audience}": {
            row.path: row.views
            for row in connection.execute(PAGES_BY_VIEWS, {**parameters, "authenticated": bool(audience)})
        }
        for audience in AUDIENCES
    }
