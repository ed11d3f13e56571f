"""Computed answers for five minutes, one computation at a time, and none that fails because Redis is away."""

import json
import logging
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeGuard, cast

from redis import Redis
from redis.exceptions import RedisError

from footfall import keys, scripts

log = logging.getLogger(__name__)

FRESH = timedelta(minutes=5)
KEPT_SECONDS = 900  # a stale answer still serves while one caller computes the next
LOCK_MS = 30_000  # longer than a computation; then another one tries
WAIT_SECONDS = 10.0  # for somebody else's first computation, then one's own
POLL_SECONDS = 0.02

# Give back only the lock that is one's own: it may have run out and be somebody else's by now

Answer = dict[str, Any]


def cached(
    redis: Redis,
    name: str,
    compute: Callable[[], Answer],
    now: datetime,
    *,
    refresh: bool = False,
    fresh: timedelta = FRESH,
) -> Answer:
    """The answer called `name`, which spells out every parameter that it depends on.

    Fresh: as stored. Stale: as stored, unless this caller is the one to compute it anew. Missing: computed
    by one caller, for whom the others wait. `refresh` computes in any case. Redis away: computed.
    """
    key = f"{keys.TAG}:cache:{blake2b(name.encode(), digest_size=16).hexdigest()}"
    try:
        return _cached(redis, key, compute, now, None if refresh else fresh)
    except RedisError as error:
        log.warning("computed without the cache", extra={"error": type(error).__name__})
        return compute()


def hit_rate(redis: Redis) -> float | None:
    """The share of answers that were served without computing; None before the first."""
    hits, misses = tally(redis)
    return hits / (hits + misses) if hits + misses else None


def tally(redis: Redis) -> tuple[int, int]:
    """How many answers were served without computing, and how many were computed."""
    counted = cast(dict[bytes, bytes], redis.hgetall(keys.CACHE_TALLY))
    return int(counted.get(b"hits", 0)), int(counted.get(b"misses", 0))


def _cached(
    redis: Redis, key: str, compute: Callable[[], Answer], now: datetime, fresh: timedelta | None
) -> Answer:
    stored = _stored(redis, key, fresh)
    if _is_fresh(stored, now, fresh):
        return _hit(redis, stored)
    token = secrets.token_hex(8)
    deadline = time.monotonic() + WAIT_SECONDS
    while not redis.set(f"{key}:lock", token, nx=True, px=LOCK_MS):
        if stored is not None:
            return _hit(redis, stored)
        if fresh is None or time.monotonic() > deadline:
            return _computed(redis, key, compute, now)
        # whoever computes may finish, or fail: then one of those who wait is the next to try
        time.sleep(POLL_SECONDS)
        stored = _stored(redis, key, fresh)
    try:
        # between this caller's look and its lock somebody may have finished
        stored = _stored(redis, key, fresh)
        if _is_fresh(stored, now, fresh):
            return _hit(redis, stored)
        return _computed(redis, key, compute, now)
    finally:
        unless_away(lambda: scripts.run(redis, "release", [f"{key}:lock"], [token]))


def _computed(redis: Redis, key: str, compute: Callable[[], Answer], now: datetime) -> Answer:
    answer = compute()
    unless_away(lambda: _keep(redis, key, answer, now))
    return answer


def _keep(redis: Redis, key: str, answer: Answer, now: datetime) -> None:
    redis.hincrby(keys.CACHE_TALLY, "misses", 1)
    redis.set(key, json.dumps([now.isoformat(), answer]), ex=KEPT_SECONDS)


def unless_away(command: Callable[[], object]) -> None:
    """Once there is an answer, a Redis that went away meanwhile is no reason to compute it again."""
    try:
        command()
    except RedisError as error:
        log.warning("an answer was not kept", extra={"error": type(error).__name__})


def _is_fresh(stored: list[Any] | None, now: datetime, fresh: timedelta | None) -> TypeGuard[list[Any]]:
    return stored is not None and fresh is not None and now - datetime.fromisoformat(stored[0]) < fresh


def _stored(redis: Redis, key: str, fresh: timedelta | None) -> list[Any] | None:
    """[when, answer]; nothing for one who wants it computed in any case."""
    value = None if fresh is None else redis.get(key)
    return None if value is None else cast(list[Any], json.loads(cast(bytes, value)))


def _hit(redis: Redis, stored: list[Any]) -> Answer:
    redis.hincrby(keys.CACHE_TALLY, "hits", 1)
    return cast(Answer, stored[1])
