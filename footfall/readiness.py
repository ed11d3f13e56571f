"""Whether views can be taken and written now, and if not, what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from footfall import days, rollup, schema_check, stream, verify
from footfall.clock import site_day
from footfall.schema import RollupDay
from footfall.settings import Settings

# A tick a second writes what came; after a minute nobody is writing
OLDEST_ENTRY_SECONDS = 60.0

Check = dict[str, Any]  # "ok", and what there is to say


@dataclass(frozen=True, slots=True)
class Readiness:
    """Every check by name; ready when all of those are `ok` that taking and writing views depends on."""

    ready: bool
    checks: dict[str, Check]


def check(engine: Engine, redis: Redis, settings: Settings, now: datetime) -> Readiness:
    """Look at the stores, the schema, the queue, the rollup and the last audit.

    Never raises for a store that is away.
    """
    checks = {
        "database": _guarded(lambda: _database(engine)),
        "redis": _guarded(lambda: _redis(redis)),
        "schema": _guarded(lambda: _schema(engine)),
        "partitions": _guarded(lambda: _partitions(engine)),
        "queue": _guarded(lambda: _queue(redis, now)),
        "rollup": _guarded(lambda: _rollup(engine, settings, now)),
        "audit": _guarded(lambda: _audit(engine)),
    }
    # Without Redis, views go straight to the database; a late rollup costs readers nothing, because unclean
    # days are read from the raw events; what an audit found is there already. All are shown and keep nobody
    # away.
    needed = ["database", "schema", "partitions", *(["queue"] if checks["redis"]["ok"] else [])]
    return Readiness(ready=all(checks[name]["ok"] for name in needed), checks=checks)


def _guarded(look: Callable[[], Check]) -> Check:
    try:
        return look()
    except ProgrammingError:
        return {"ok": False, "problem": "something is missing that this asks for; see schema"}
    except SQLAlchemyError:
        return {"ok": False, "problem": "the database does not answer; check DATABASE_URL"}
    except RedisError:
        return {"ok": False, "problem": "Redis does not answer; check REDIS_URL"}


def _database(engine: Engine) -> Check:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return {"ok": True}


def _redis(redis: Redis) -> Check:
    redis.ping()
    return {"ok": True}


def _schema(engine: Engine) -> Check:
    with engine.connect() as connection:
        found = schema_check.problems(connection)
    return {"ok": not found, "revision": schema_check.code_revision(), "problems": found}


def _partitions(engine: Engine) -> Check:
    with engine.connect() as connection:
        lost = days.without_partition(connection)
    found: Check = {"ok": not lost}
    if lost:
        found["problem"] = f"the partition of {lost[0]} is gone; run: {schema_check.MEND}"
    return found


def _queue(redis: Redis, now: datetime) -> Check:
    backlog = stream.backlog(redis, now)
    found: Check = {
        "ok": backlog.oldest_seconds < OLDEST_ENTRY_SECONDS,
        "entries": backlog.entries,
        "oldest_seconds": round(backlog.oldest_seconds, 3),
    }
    if not found["ok"]:
        found["problem"] = "views are taken but not written; look at the write worker's log"
    return found


def _rollup(engine: Engine, settings: Settings, now: datetime) -> Check:
    with engine.connect() as connection:
        today = site_day(now, settings.time_zone)
        waiting = rollup.days_to_roll(connection, today)
        last = connection.scalar(select(func.max(RollupDay.rolled_up_at)).where(RollupDay.day < today))
    return {
        "ok": not waiting,
        "last": last.isoformat() if last else None,
        "waiting_days": [day.isoformat() for day in waiting],
    }


def _audit(engine: Engine) -> Check:
    with engine.connect() as connection:
        last = verify.last(connection)
    if last is None:
        return {"ok": True, "last": None}
    found: Check = {"ok": last.ok, "last": last.audited_at.isoformat(), "differences": last.found}
    if not last.ok:
        found["problem"] = "numbers that should be the same are not; see which with `footfall verify`"
    return found
