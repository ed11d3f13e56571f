"""The door behind which a view is safe: through Redis, or straight into PostgreSQL while Redis is away.

Answered means durable. An error in the middle leaves the outcome unknown; then every view of the group goes
the other way under its own id, and the writer finds the second copy.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from threading import Thread

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from footfall import counts, entities, fallback, keys, stream
from footfall.breaker import Breaker
from footfall.content_types import PAGE
from footfall.database import read_snapshot
from footfall.entities import Name
from footfall.errors import SchemaError, Unavailable
from footfall.event import View
from footfall.settings import Settings
from footfall.stream import Counts, Taken

log = logging.getLogger(__name__)

# For so long after Redis went away, counts are refused: the database's may be lower than what was shown
COUNTS_REFUSED_SECONDS = 10.0


class Acceptance:
    """Takes views for one process."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings) -> None:
        self._engine = engine
        self._redis = redis
        self._settings = settings
        self._pressure = stream.Pressure(settings.queue_limit_entries)
        self._breaker = Breaker("Redis", "views go to the database", enabled=settings.redis_enabled)
        if not settings.redis_enabled:
            log.warning("views go straight to the database: VIEW_TRACKING_REDIS_ENABLED is false")
        self._has_looked = False
        self._is_level = False  # Redis knows what was taken without it, also before this process began
        self.fallback_views = 0  # how many went past Redis

    @property
    def may_append(self) -> bool:
        """Whether pages may be appended to the queue without asking `take`, which looks at Redis first."""
        return self._breaker.is_closed and self._is_level and self._pressure.is_known_to_be_low

    def lost(self, error: RedisError) -> None:
        """Appending failed."""
        self._breaker.open(error)

    def take(self, views: Sequence[View], now: datetime) -> list[Taken]:
        """Make `views` durable; what became of each, parallel to them.

        Raises `Unavailable` when no store can take them. Those with the status `limited` were refused, those
        with `unavailable` have a count that could not be read; the others are safe.
        """
        if not views:
            return []
        if self._redis_is_usable(now):
            try:
                self._pressure.refuse_when_full(self._redis)
                return self._through_redis(views, now)
            except RedisError as error:
                self._breaker.open(error)
        return self._through_postgres(views, now)

    def shown(self, name: Name) -> Counts:
        """What is shown of an entity: {view type: count}, empty for one without views.

        Raises `Unavailable` without Redis for the first seconds, and when neither store answers.
        """
        if name[0] == PAGE.name:
            return self._stored([name])[name]  # nobody keeps a live count of a page
        if self._breaker.is_closed:
            try:
                found = counts.shown(self._redis, name)
                if found is not None:
                    return found
            except RedisError as error:
                self._breaker.open(error)
        if self._breaker.away_seconds < COUNTS_REFUSED_SECONDS and not self._breaker.is_closed:
            raise Unavailable("counts are being brought up to date", round(COUNTS_REFUSED_SECONDS))
        return self._stored([name])[name]

    def _redis_is_usable(self, now: datetime) -> bool:
        if self._breaker.is_closed and self._is_level:
            return True
        if not self._has_looked:
            self._has_looked = True
            self._look_if_first(now)
        elif self._breaker.is_time_to_look:
            # aside: whoever is taken with others does not wait, nor make them wait, for a Redis that is away
            Thread(target=self._look_if_first, args=(now,), name="look-for-redis", daemon=True).start()
        return self._breaker.is_closed

    def _look_if_first(self, now: datetime) -> None:
        with self._breaker.looking() as is_the_one:
            if is_the_one:
                try:
                    self._look(now)
                except Exception:  # in a thread of nobody's, where it would end unheard
                    log.exception("looking for Redis failed")

    def _look(self, now: datetime) -> None:
        """Go back to Redis if it takes writes: one that is full answers a ping."""
        try:
            self._redis.set(keys.PROBE, "", px=1_000)
            self._breaker.begin_return()
            fallback.copy_to_redis(self._engine, self._redis, now)
            counts.raise_noted(self._engine, self._redis)
        except RedisError as error:
            self._breaker.open(error)
            return
        except SQLAlchemyError:
            return
        self._is_level = True
        if not self._breaker.is_closed:
            self._breaker.close()

    def _through_redis(self, views: Sequence[View], now: datetime) -> list[Taken]:
        taken = stream.take(self._redis, views, [None] * len(views), now)
        unseeded = [i for i, one in enumerate(taken) if one.status == "seed"]
        if not unseeded:
            return taken
        try:
            seeds, refused = self._seeds({views[i].event.name for i in unseeded}, now)
        except Unavailable:  # which is nothing to those who came with them
            return [Taken("unavailable", one.outcome, 0) if one.status == "seed" else one for one in taken]
        again = [i for i in unseeded if views[i].event.name not in refused]
        for i, one in zip(again, self._take_seeded([views[i] for i in again], seeds, now), strict=True):
            taken[i] = one
        return [Taken("limited", one.outcome, 0) if one.status == "seed" else one for one in taken]

    def _take_seeded(self, views: Sequence[View], seeds: Mapping[Name, Counts], now: datetime) -> list[Taken]:
        return stream.take(self._redis, views, [seeds[view.event.name] for view in views], now)

    def _seeds(self, names: Collection[Name], now: datetime) -> tuple[dict[Name, Counts], set[Name]]:
        """The database's counts for entities that nobody has asked for yet, and those over the day's cap."""
        try:
            with read_snapshot(self._engine) as connection:
                stored = counts.stored(connection, names)
                unseen = {name for name, by_type in stored.items() if not by_type}
                return stored, entities.over_cap(connection, unseen, now, self._settings)
        except SQLAlchemyError as error:
            raise Unavailable("the counts cannot be read now") from error

    def _stored(self, names: Collection[Name]) -> dict[Name, Counts]:
        try:
            with self._engine.connect() as connection:
                return counts.stored(connection, names)
        except SQLAlchemyError as error:
            raise Unavailable("the counts cannot be read now") from error

    def _through_postgres(self, views: Sequence[View], now: datetime) -> list[Taken]:
        try:
            taken = fallback.take(self._engine, self._settings, views, now)
        except (SQLAlchemyError, SchemaError) as error:
            raise Unavailable("no store takes views now") from error
        self.fallback_views += len(views)
        if self._breaker.may_be_used:
            self._tell_redis(views, now)
        return taken

    def _tell_redis(self, views: Sequence[View], now: datetime) -> None:
        """Of views that may have been written after the others' slots were copied: theirs."""
        try:
            fallback.copy_to_redis(self._engine, self._redis, now, views)
        except RedisError as error:
            self._breaker.open(error)
        except SQLAlchemyError as error:
            # the views are safe; their viewers' next ones may count once more
            log.warning("slots not told to Redis", extra={"error": type(error).__name__})
