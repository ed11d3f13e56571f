"""Readiness says what is wrong, and is not ready when views could not be taken or written."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import readiness, rollup, stream
from footfall.database import make_engine
from footfall.settings import Settings
from tests.factory import make_event, store

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


def test_ready_with_everything_there(engine: Engine, redis: Redis, settings: Settings) -> None:
    found = readiness.check(engine, redis, settings, NOW)
    assert found.ready
    assert all(check["ok"] for check in found.checks.values())


def test_not_ready_without_the_database(redis: Redis, settings: Settings) -> None:
    away = make_engine(replace(settings, database_url="postgresql+psycopg2://nobody@127.0.0.1:1/none"))
    found = readiness.check(away, redis, settings, NOW)
    assert not found.ready
    assert "DATABASE_URL" in found.checks["database"]["problem"]
    assert found.checks["redis"]["ok"]


def test_redis_away_is_shown_and_keeps_nobody_away(engine: Engine, settings: Settings) -> None:
    away = stream.connect(replace(settings, redis_url="redis://127.0.0.1:1"))
    found = readiness.check(engine, away, settings, NOW)
    assert found.ready, "views go straight to the database"
    assert not found.checks["queue"]["ok"]
    assert "REDIS_URL" in found.checks["redis"]["problem"]
    assert found.checks["schema"]["ok"]


def test_not_ready_on_a_schema_that_cannot_be_written_to(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"))
    try:
        found = readiness.check(engine, redis, settings, NOW)
        assert not found.ready
        assert "view_events" in found.checks["schema"]["problems"][0]
    finally:
        with engine.begin() as connection:
            connection.execute(
                text("ALTER TABLE view_events ADD CONSTRAINT view_events_day_id_unique UNIQUE (day, id)")
            )


def test_not_ready_when_nobody_writes(engine: Engine, redis: Redis, settings: Settings) -> None:
    stream.put(redis, [make_event(settings, NOW)])
    added = datetime.fromtimestamp(
        int(redis.xinfo_stream(stream.STREAM_KEY)["last-generated-id"].split(b"-")[0]) / 1000, UTC
    )
    assert readiness.check(engine, redis, settings, added + timedelta(seconds=59)).ready
    found = readiness.check(engine, redis, settings, added + timedelta(seconds=61))
    assert not found.ready
    assert found.checks["queue"]["entries"] == 1
    assert found.checks["queue"]["oldest_seconds"] == pytest.approx(61, abs=0.1)


def test_a_late_rollup_is_shown_and_keeps_nobody_away(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW - timedelta(days=1))])
    found = readiness.check(engine, redis, settings, NOW)
    assert found.ready
    assert found.checks["rollup"] == {"ok": False, "last": None, "waiting_days": ["2026-03-09"]}
    rollup.roll_up_closed_days(engine, NOW.date(), NOW)
    assert readiness.check(engine, redis, settings, NOW).checks["rollup"]["last"] == NOW.isoformat()
