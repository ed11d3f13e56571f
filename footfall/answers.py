"""The readers' answers: each from one snapshot, computed once in five minutes, for API and dashboard."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

from redis import Redis
from sqlalchemy import Connection, Engine

from footfall import cache, keys, stats
from footfall.cache import Answer
from footfall.database import read_snapshot
from footfall.entities import EntityRow
from footfall.settings import Settings
from footfall.stats import Span

AHEAD_DAYS = (1, 7, 30)  # the dashboard's ranges, which beat keeps fresh
# What else somebody asked for lately is kept fresh too: the next one does not wait either
ASKED_LATELY = timedelta(hours=1)
MOST_ASKED = 40
PERIODS = {"day": 1, "week": 7, "month": 30, "all": None}
REALTIME_FRESH = timedelta(seconds=5)


class Answers:
    """Computes and caches for one process. Authorising the reader comes before, and is never cached."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings) -> None:
        self._engine = engine
        self._redis = redis
        self._settings = settings

    def entity(self, entity: EntityRow, days: int, now: datetime, *, refresh: bool = False) -> Answer:
        """An entity's figures of the last `days` days."""
        span = self._span(days, now)
        return self._cached(
            f"entity {entity.id} {days} {span.days[-1]} {entity.title} {entity.reactions} {entity.comments}",
            lambda connection: stats.entity_stats(connection, entity, span),
            now,
            refresh,
        )

    def sitewide(self, days: int, now: datetime, *, refresh: bool = False) -> Answer:
        """The site's figures of the last `days` days."""
        self._note(refresh, ["sitewide", days], now)
        span = self._span(days, now)
        return self._cached(
            f"sitewide {days} {span.days[-1]}",
            lambda connection: stats.sitewide_stats(connection, span),
            now,
            refresh,
        )

    def top(
        self,
        entity_type: str,
        period: str,
        view_type: str | None,
        limit: int,
        now: datetime,
        *,
        refresh: bool = False,
    ) -> Answer:
        """The most viewed entities of a type: {"items": [...]}."""
        self._note(refresh, ["top", entity_type, period, view_type, limit], now)
        days = PERIODS[period]
        span = None if days is None else self._span(min(days, self._settings.daily_retention_days), now)
        return self._cached(
            f"top {entity_type} {period} {view_type} {limit} {span.days[-1] if span else ''}",
            lambda connection: {"items": stats.top(connection, entity_type, span, view_type, limit)},
            now,
            refresh,
        )

    def realtime(self, now: datetime) -> Answer:
        """What happens now; computed at most every five seconds."""
        return cache.cached(
            self._redis,
            "realtime",
            lambda: self._compute(lambda c: stats.realtime(c, now, self._settings.time_zone)),
            now,
            fresh=REALTIME_FRESH,
        )

    def refresh_ahead(self, now: datetime) -> None:
        """Compute what the dashboard shows first and what was asked for lately: nobody waits for it then."""
        asked: list[list[Any]] = [
            ["sitewide", days] for days in AHEAD_DAYS if days <= self._settings.daily_retention_days
        ]
        asked += [question for question in self._asked_lately(now) if question not in asked]
        answers: dict[str, Callable[..., Answer]] = {"sitewide": self.sitewide, "top": self.top}
        for what, *parameters in asked:
            answers[what](*parameters, now, refresh=True)

    def _note(self, refresh: bool, question: list[Any], now: datetime) -> None:
        """Remember that somebody wants to know; `refresh` is what keeps it fresh, and no wish of anybody."""
        if not refresh:
            cache.unless_away(lambda: self._redis.zadd(keys.ASKED, {json.dumps(question): now.timestamp()}))

    def _asked_lately(self, now: datetime) -> list[list[Any]]:
        since = (now - ASKED_LATELY).timestamp()
        self._redis.zremrangebyscore(keys.ASKED, "-inf", since)
        latest = cast(list[bytes], self._redis.zrevrange(keys.ASKED, 0, MOST_ASKED - 1))
        return [json.loads(question) for question in latest]

    def _span(self, days: int, now: datetime) -> Span:
        return Span.ending_today(days, now, self._settings.time_zone)

    def _cached(
        self, name: str, compute: Callable[[Connection], dict[str, Any]], now: datetime, refresh: bool
    ) -> Answer:
        return cache.cached(self._redis, name, lambda: self._compute(compute), now, refresh=refresh)

    def _compute(self, compute: Callable[[Connection], dict[str, Any]]) -> Answer:
        with read_snapshot(self._engine) as connection:
            return compute(connection)
