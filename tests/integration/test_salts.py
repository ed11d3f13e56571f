"""Salts: one a day, the same for everybody, ahead of need, and gone when their time is over."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, event, select

from footfall import salts, visitors
from footfall.clock import day_start
from footfall.database import make_engine
from footfall.errors import Unavailable
from footfall.salts import SaltCache
from footfall.schema import Salt
from tests.factory import day, make_settings

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
TODAY = day("2026-11-20")
TOMORROW = day("2026-11-21")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def gone() -> Iterator[Engine]:
    """An engine whose database is away."""
    engine = make_engine(make_settings(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing"))
    yield engine
    engine.dispose()


def days_stored(connection: Connection) -> set[date]:
    return set(connection.scalars(select(Salt.day)))


def connections_made(engine: Engine) -> list[object]:
    """Grows with every transaction on `engine`."""
    seen: list[object] = []
    event.listen(engine, "begin", seen.append)
    return seen


def test_two_processes_have_the_same_salt(engine: Engine) -> None:
    one, other = SaltCache(engine, UTC), SaltCache(engine, UTC)
    assert one.for_day(TODAY, NOW) == other.for_day(TODAY, NOW)
    assert len(one.for_day(TODAY, NOW)) == 32


def test_every_day_has_its_own_salt(engine: Engine) -> None:
    found = SaltCache(engine, UTC).for_days([day("2026-11-14"), day("2026-11-19"), TODAY, TOMORROW], NOW)
    assert len(set(found.values())) == 4


def test_many_who_need_a_first_salt_at_once_get_one(engine: Engine) -> None:
    caches = [SaltCache(engine, UTC) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda cache: cache.for_day(TODAY, NOW), caches))
    assert len(found) == 1


def test_days_asked_for_in_opposite_orders_at_once_do_not_deadlock(engine: Engine) -> None:
    days = [TODAY - timedelta(days=back) for back in range(7)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda turn: SaltCache(engine, UTC).for_days(days[::turn], NOW),
                [1, -1] * 4,
            )
        )
    assert all(one == found[0] for one in found)


def test_a_days_salt_is_asked_for_once_and_tomorrows_with_it(engine: Engine) -> None:
    cache = SaltCache(engine, UTC)
    today = cache.for_day(TODAY, NOW)
    transactions = connections_made(engine)
    for minute in range(0, 60 * 15, 10):
        assert cache.for_day(TODAY, NOW + timedelta(minutes=minute)) == today
    cache.for_day(TOMORROW, NOW)
    assert transactions == []


def test_midnight_passes_while_the_database_is_away(engine: Engine, gone: Engine) -> None:
    cache = SaltCache(engine, UTC)
    today = cache.for_day(TODAY, NOW)
    tomorrow = cache.for_day(TOMORROW, NOW)
    cache._engine = gone
    night = datetime(2026, 11, 21, 0, 0, 1, tzinfo=UTC)
    assert cache.for_day(TOMORROW, night) == tomorrow
    assert cache.for_day(TODAY, night) == today
    with pytest.raises(Unavailable):
        cache.for_day(day("2026-11-22"), night)
    cache._engine = engine
    assert cache.for_day(day("2026-11-22"), night + timedelta(seconds=6))


def test_without_the_database_a_new_process_has_no_salts_and_says_so(gone: Engine) -> None:
    with pytest.raises(Unavailable):
        SaltCache(gone, UTC).for_day(TODAY, NOW)


def test_memory_lets_go_of_a_salt_48_hours_after_its_day_began(engine: Engine, gone: Engine) -> None:
    cache = SaltCache(engine, UTC)
    first = cache.for_day(TODAY, NOW)
    end = datetime(2026, 11, 22, tzinfo=UTC)
    cache.for_day(TOMORROW, end - timedelta(hours=12))
    assert cache.for_day(TODAY, end - timedelta(seconds=1)) == first
    cache._engine = gone
    with pytest.raises(Unavailable):
        cache.for_day(TODAY, end)


def test_an_old_day_is_never_held_in_memory(engine: Engine, gone: Engine) -> None:
    cache = SaltCache(engine, UTC)
    cache.for_days([TODAY, day("2026-11-15")], NOW)
    cache._engine = gone
    with pytest.raises(Unavailable):
        cache.for_day(day("2026-11-15"), NOW)


def test_today_is_the_sites_today(engine: Engine) -> None:
    cache = SaltCache(engine, ZoneInfo("Pacific/Auckland"))
    cache.for_day(TODAY, datetime(2026, 11, 20, 12, tzinfo=UTC))  # 1 o'clock on the 21st there
    with engine.connect() as connection:
        assert days_stored(connection) == {TODAY, TOMORROW, day("2026-11-22")}


def test_made_ahead_twice_is_made_once(connection: Connection) -> None:
    salts.make_ahead(connection, TODAY, NOW)
    before = set(connection.scalars(select(Salt.salt)))
    salts.make_ahead(connection, TODAY, NOW)
    assert set(connection.scalars(select(Salt.salt))) == before
    assert days_stored(connection) == {TODAY, TOMORROW}


# 23, 25 and 24 hours long
@pytest.mark.parametrize("local_day", ["2026-03-29", "2026-10-25", "2026-11-20"])
def test_a_salt_is_deleted_48_hours_after_its_day_began(connection: Connection, local_day: str) -> None:
    begin = day_start(day(local_day), BERLIN)
    salts.ensure(connection, [day(local_day)], begin - timedelta(days=1))
    end = begin + timedelta(hours=48)
    assert salts.delete_expired(connection, end - timedelta(microseconds=1), BERLIN) == 0
    assert salts.delete_expired(connection, end, BERLIN) == 1
    assert salts.delete_expired(connection, end, BERLIN) == 0


def test_a_salt_that_was_made_late_lives_48_hours_too(connection: Connection) -> None:
    salts.ensure(connection, [day("2026-11-15")], NOW)
    assert salts.delete_expired(connection, NOW + timedelta(hours=48, microseconds=-1), UTC) == 0
    assert salts.delete_expired(connection, NOW + timedelta(hours=48), UTC) == 1


def test_deleting_leaves_the_days_that_still_take_views(connection: Connection) -> None:
    days = [TODAY - timedelta(days=back) for back in range(-1, 5)]
    salts.ensure(connection, days, NOW - timedelta(days=10))
    salts.delete_expired(connection, NOW, UTC)
    assert days_stored(connection) == {TODAY - timedelta(days=1), TODAY, TOMORROW}


def test_a_key_is_held_as_long_as_its_salt(engine: Engine) -> None:
    cache = SaltCache(engine, UTC, b"pepper")
    yesterday = TODAY - timedelta(days=1)
    keys = cache.keys_for_days({yesterday, TODAY}, NOW)
    assert keys[TODAY] == visitors.day_key(b"pepper", cache.for_day(TODAY, NOW))
    later = datetime.combine(TODAY, time(), UTC) + timedelta(hours=30)
    cache.keys_for_days({TODAY}, later)
    assert yesterday not in cache._held
    assert yesterday not in cache.keys_for_days({TODAY}, later)
    assert yesterday not in cache._keys
