"""The panels of the whole site's page, put together from the answers of the API."""

from datetime import datetime
from typing import Any

from flask import url_for

from api.dashboard import charts, panels
from api.dashboard.choice import Choice, can_be_shown, entity_url, longest_days
from api.dashboard.panels import Card, Entry
from api.parts import parts
from footfall.cache import Answer
from footfall.content_types import CONTENT_TYPES, PAGE

LISTED = 100  # of the most viewed: what the search box looks through
SHOWN_NOW = 5


def values(choice: Choice, answer: Answer, now: datetime) -> dict[str, Any]:
    """What the template prints. `answer` is the site's, over the chosen range."""
    zone = parts().settings.time_zone
    realtime = parts().answers.realtime(now)
    total = choice.of(answer, "total_page_views")
    daily = choice.of(answer, "daily_views")
    hourly = choice.of(answer, "hourly_views")
    gaps = {row["date"] for row in daily if row["gap"]}
    is_day = choice.days == 1  # one day makes no chart of days; its hours do
    return {
        "cards": _cards(choice, answer, parts().answers.sitewide(longest_days(), now)),
        "is_empty": answer["total_page_views"] == 0,
        "live": panels.live(realtime, zone),
        "current_visitors": realtime["current_visitors"],
        "current_pages": _current_pages(realtime, choice),
        "main_chart": panels.hours(hourly, zone, is_wide=True) if is_day else panels.days(daily),
        "hours": None if is_day else panels.hours(hourly, zone, is_wide=False),
        "event_charts": []
        if is_day
        else [
            panels.counts("signups", "Signups a day", "Signups", answer["daily_signups"], gaps),
            panels.counts("posts", "Posts a day", "Posts", answer["daily_posts"], gaps),
        ],
        "entries": _entries(choice, answer, now),
        "types": [(name, panels.words(name)) for name in CONTENT_TYPES],
        "found": _found(choice),
        **panels.traffic(choice.of, answer, total),
        "errors": panels.breakdown(
            "Errors by type", "Type", answer["errors_by_type"], "No errors were told in this range."
        ),
        "not_counted": panels.not_counted(answer["not_counted"]),
        "export": url_for("reading.sitewide_export", days=choice.days),
    }


def _cards(choice: Choice, answer: Answer, longest: Answer) -> list[Card]:
    days = choice.days
    daily = choice.of(longest, "daily_views")
    gaps = {row["date"] for row in daily if row["gap"]}
    views, visitors = panels.by_day(daily, "views"), panels.by_day(daily, "unique_viewers")
    signups, posts = (
        panels.by_day(longest[name], "count", gaps) for name in ("daily_signups", "daily_posts")
    )
    return [
        panels.card("Views", choice.of(answer, "total_page_views"), views, days),
        panels.card(panels.visitors_name(days), choice.of(answer, "visitor_days"), visitors, days),
        panels.card("Signups", answer["new_signups"], signups, days),
        panels.card("Posts", answer["new_posts"], posts, days),
        Card("API calls", answer["total_api_calls"]),
        Card("Errors", answer["total_errors"]),
    ]


def _entries(choice: Choice, answer: Answer, now: datetime) -> list[Entry]:
    """The most viewed of the chosen type that match what is searched for."""
    if choice.entity_type == PAGE.name and not choice.is_everybody:
        views = choice.of(answer, "views_by_page")
        items = [
            {"entity_id": path, "title": None, "views": n, "visitor_days": None} for path, n in views.items()
        ]
    else:
        found = parts().answers.top(choice.entity_type, choice.period, None, LISTED, now)
        items = found["items"]
    most = max((item["views"] for item in items), default=0)
    wanted = choice.query.casefold()
    return [
        _entry(item, most, choice)
        for item in items
        if wanted in item["entity_id"].casefold() or wanted in (item["title"] or "").casefold()
    ]


def _entry(item: dict[str, Any], most: int, choice: Choice) -> Entry:
    entity_id = item["entity_id"]
    return Entry(
        name=item["title"] or entity_id,
        detail=entity_id if item["title"] else "",
        url=_url(choice.entity_type, entity_id, choice),
        views=item["views"],
        visitors=item["visitor_days"],
        bar=charts.share(item["views"], most),
    )


def _current_pages(realtime: Answer, choice: Choice) -> list[tuple[str, int, str]]:
    """(path, views, address) of the pages that are viewed now."""
    shown = list(realtime["top_pages"].items())[:SHOWN_NOW]
    return [(path, views, _url(PAGE.name, path, choice)) for path, views in shown]


def _found(choice: Choice) -> str:
    """The address of what is searched for, should its whole name have been typed."""
    return _url(choice.entity_type, choice.query, choice)


def _url(entity_type: str, entity_id: str, choice: Choice) -> str:
    return entity_url(entity_type, entity_id, choice) if can_be_shown(entity_type, entity_id) else ""
