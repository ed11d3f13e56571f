"""What holds after each test of running processes, whatever it has killed: the books balance to the unit."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from footfall import ledger, stream, verify
from footfall.clock import days_back, site_day, utc_now
from footfall.database import make_engine, read_snapshot
from footfall.days import DAYS_AHEAD
from footfall.settings import Settings
from tests.waiting import wait_until

WRITTEN_SECONDS = 90.0  # for what is queued to be written, also when the stores are on their way back
BALANCED_SECONDS = 10.0  # for what somebody still sends


def check(settings: Settings) -> None:
    """Wait until the queue is empty, then fail unless every day, also the open one, balances, and counters
    and daily rows are what the events say.
    """
    engine, redis = make_engine(settings), stream.connect(settings)
    found: list[Mapping[str, Any]] = []

    def is_balanced() -> bool:
        found[:] = _unbalanced(engine, redis, settings)
        return not found

    try:
        wait_until(lambda: _is_written(engine, redis), "the queue to be empty", WRITTEN_SECONDS)
        try:
            wait_until(is_balanced, "the ledger to balance", BALANCED_SECONDS)
        except AssertionError as error:
            error.add_note(f"these days do not: {found}")
            raise
        # a shown count may be one too high after a switch between the stores; tests of counts look at it
        verdict = verify.audit(engine, redis, settings, utc_now())
        assert [each for each in verdict.differences if each.where != "shown count"] == []
    finally:
        redis.close()
        engine.dispose()


def _is_written(engine: Engine, redis: Redis) -> bool:
    """Whether both stores answer and nothing is queued."""
    try:
        engine.connect().close()
        return stream.backlog(redis, utc_now()).entries == 0
    except (RedisError, DBAPIError):
        return False


def _unbalanced(engine: Engine, redis: Redis, settings: Settings) -> list[Mapping[str, Any]]:
    now = utc_now()
    newest = site_day(now, settings.time_zone) + timedelta(days=DAYS_AHEAD)
    days = days_back(newest, settings.daily_retention_days + DAYS_AHEAD)
    with read_snapshot(engine) as connection:
        lines = ledger.ledger(connection, redis, days, now, settings.time_zone)
    return [line for line in lines if not line["balanced"]]
