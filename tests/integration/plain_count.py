"""What every surface should say, counted from the sent events in plain Python: nothing of `footfall.stats`.

Written from the contract, so that the two counts share no code and no query.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from footfall.event import ViewEvent

Test = Callable[[ViewEvent], bool]
DIMENSIONS: dict[str, Callable[[ViewEvent], str | None]] = {
    "views_by_country": lambda event: event.country or "ZZ",
    "views_by_device": lambda event: event.device,
    "views_by_type": lambda event: event.view_type,
    "views_by_source": lambda event: event.view_source,
    "top_referrers": lambda event: event.referrer_domain,
}
MOST = {"views_by_country": 10, "top_referrers": 10}
COLUMNS = (
    "views",
    "unique_viewers",
    "views_authenticated",
    "unique_viewers_authenticated",
    "bots",
    "own_views",
    "repeats",
)
PERIODS = {"day": 1, "week": 7, "month": 30}


@dataclass(frozen=True, slots=True)
class PlainCount:
    """The events that were kept, and the moment and place of whoever reads."""

    events: Sequence[ViewEvent]
    now: datetime
    zone: tzinfo

    def days(self, n: int) -> list[date]:
        """The last `n` days of the site."""
        today = self.now.astimezone(self.zone).date()
        return [today - timedelta(days=back) for back in reversed(range(n))]

    def entity(self, name: tuple[str, str], n: int) -> dict[str, Any]:
        """GET /api/stats/<type>/<id>."""
        own = [event for event in self.events if event.name == name]
        ever = sorted(event.occurred_at for event in own if event.outcome == "counted")
        return {
            "entity_type": name[0],
            "entity_id": name[1],
            **self._traffic(own, n, "total_views"),
            "not_counted": self._not_counted(own, n),
            "all_time_views": len(ever),
            "first_view_at": ever[0].isoformat() if ever else None,
            "last_view_at": ever[-1].isoformat() if ever else None,
        }

    def sitewide(self, n: int) -> dict[str, Any]:
        """GET /api/admin/sitewide-stats."""
        pages = [event for event in self.events if event.entity_type == "page"]
        totals = {kind: self._site_event(kind, n) for kind in ("signup", "upload", "api_call", "error")}
        days = self.days(n)
        errors = [event for event in totals["error"] if event.day in days]
        return {
            **self._traffic(pages, n, "total_page_views"),
            "new_signups": len(totals["signup"]),
            "new_posts": len(totals["upload"]),
            "total_api_calls": len(totals["api_call"]),
            "total_errors": len(totals["error"]),
            "daily_signups": _by_day(totals["signup"], days),
            "daily_posts": _by_day(totals["upload"], days),
            "errors_by_type": ranked(event.view_type for event in errors),
            **_twice(lambda audience: {"hourly_views": self._hours(pages, audience)}),
            **_twice(lambda audience: {"views_by_page": self._pages(pages, n, audience)}),
            "not_counted": self._not_counted(pages, n),
        }

    def top(self, kind: str, period: str, view_type: str | None, limit: int, most: int) -> list[Any]:
        """The items of GET /api/stats/top; `most` days of daily rows are kept."""
        counted = [e for e in self.events if e.entity_type == kind and e.outcome == "counted"]
        if view_type is not None:
            counted = [event for event in counted if event.view_type == view_type]
        if period != "all":
            days = self.days(min(PERIODS[period], most))
            counted = [event for event in counted if event.day in days]
        has_visitors = period != "all" and view_type is None
        return [
            {
                "entity_id": external_id,
                "title": None,
                "views": views,
                "visitor_days": _visitor_days(e for e in counted if e.external_id == external_id)
                if has_visitors
                else None,
            }
            for external_id, views in list(ranked(e.external_id for e in counted).items())[:limit]
        ]

    def export(self, events: Iterable[ViewEvent], n: int) -> list[list[str]]:
        """The rows of an export, header first."""
        rows = [["date", *COLUMNS, "gap"]]
        events = list(events)
        for day in self.days(n):
            of_day = [event for event in events if event.day == day]
            numbers: list[int] = []
            for audience in (_everybody, _signed_in):
                views = [event for event in of_day if event.outcome == "counted" and audience(event)]
                numbers += [len(views), _visitor_days(views)]
            outcomes = Counter(event.outcome for event in of_day)
            numbers += [outcomes["bot"], outcomes["own"], outcomes["repeat"]]
            rows.append([day.isoformat(), *map(str, numbers), "false"])
        return rows

    def realtime(self) -> dict[str, Any]:
        """GET /api/stats/realtime."""
        this_minute = self.now.replace(second=0, microsecond=0)
        minutes = [this_minute - timedelta(minutes=back) for back in reversed(range(30))]
        pages = [
            event
            for event in self.events
            if event.entity_type == "page" and event.outcome == "counted" and event.occurred_at >= minutes[0]
        ]
        recent = [event for event in pages if event.occurred_at >= self.now - timedelta(minutes=5)]
        return {
            "views_by_minute": [
                {"minute": minute.isoformat(), "views": _within(pages, minute, timedelta(minutes=1))}
                for minute in minutes
            ],
            "current_visitors": len({event.visitor for event in recent} - {None}),
            "top_pages": dict(list(ranked(event.external_id for event in recent).items())[:20]),
        }

    def counters(self) -> dict[tuple[str, str], dict[str, int]]:
        """{name: {view type: views}} of everything that was ever viewed."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for event in self.events:
            if event.outcome == "counted":
                found.setdefault(event.name, Counter())[event.view_type] += 1
        return {name: dict(by_type) for name, by_type in found.items()}

    def _traffic(self, events: Sequence[ViewEvent], n: int, total: str) -> dict[str, Any]:
        return _twice(lambda audience: self._traffic_of(events, n, total, audience))

    def _traffic_of(self, events: Sequence[ViewEvent], n: int, total: str, audience: Test) -> dict[str, Any]:
        days = self.days(n)
        views = [e for e in events if e.day in days and e.outcome == "counted" and audience(e)]
        by_day = {day: [event for event in views if event.day == day] for day in days}
        by_dimension = {
            name: dict(list(ranked(map(value, views)).items())[: MOST.get(name)])
            for name, value in DIMENSIONS.items()
        }
        return {
            total: len(views),
            "visitor_days": _visitor_days(views),
            **by_dimension,
            "daily_views": [
                {
                    "date": day.isoformat(),
                    "views": len(by_day[day]),
                    "unique_viewers": _visitor_days(by_day[day]),
                    "gap": False,
                }
                for day in days
            ],
        }

    def _site_event(self, kind: str, n: int) -> list[ViewEvent]:
        days = self.days(n)
        return [
            event
            for event in self.events
            if event.name == ("site_event", kind) and event.outcome == "counted" and event.day in days
        ]

    def _hours(self, pages: Sequence[ViewEvent], audience: Test) -> list[dict[str, Any]]:
        this_hour = self.now.replace(minute=0, second=0, microsecond=0)
        hours = [this_hour - timedelta(hours=back) for back in reversed(range(24))]
        views = [
            event
            for event in pages
            if event.outcome == "counted" and audience(event) and event.occurred_at >= hours[0]
        ]
        return [
            {"hour": hour.isoformat(), "views": _within(views, hour, timedelta(hours=1))} for hour in hours
        ]

    def _pages(self, pages: Sequence[ViewEvent], n: int, audience: Test) -> dict[str, int]:
        days = self.days(n)
        views = [e for e in pages if e.outcome == "counted" and audience(e) and e.day in days]
        return dict(list(ranked(event.external_id for event in views).items())[:20])

    def _not_counted(self, events: Iterable[ViewEvent], n: int) -> dict[str, int]:
        days = self.days(n)
        outcomes = Counter(event.outcome for event in events if event.day in days)
        return {"bot": outcomes["bot"], "own": outcomes["own"], "repeat": outcomes["repeat"]}


def ranked(values: Iterable[str | None]) -> dict[str, int]:
    """How often each value stands there, most often first, equals by name; without None."""
    counted = Counter(value for value in values if value is not None)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _twice(part: Callable[[Test], dict[str, Any]]) -> dict[str, Any]:
    signed_in = {f"{name}_authenticated": value for name, value in part(_signed_in).items()}
    return {**part(_everybody), **signed_in}


def _everybody(_: ViewEvent) -> bool:
    return True


def _signed_in(event: ViewEvent) -> bool:
    return event.authenticated


def _visitor_days(views: Iterable[ViewEvent]) -> int:
    return len({(event.day, event.visitor) for event in views if event.visitor is not None})


def _by_day(events: Sequence[ViewEvent], days: Sequence[date]) -> list[dict[str, Any]]:
    return [{"date": day.isoformat(), "count": sum(event.day == day for event in events)} for day in days]


def _within(views: Iterable[ViewEvent], start: datetime, length: timedelta) -> int:
    return sum(start <= event.occurred_at < start + length for event in views)
