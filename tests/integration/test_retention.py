"""Letting go: a day is dropped when its daily rows hold all of it, and never written again."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import days, entities, retention, rollup, stats, stream, writer
from footfall.clock import day_start, days_back, site_day
from footfall.database import read_snapshot
from footfall.settings import Settings
from tests.factory import make_event, store

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY = date(2026, 3, 10)
OLD = date(2026, 3, 2)  # one day past the seven that are kept besides today


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


@pytest.fixture(autouse=True)
def young_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    # Redis stamps its entries by the real clock
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))


def views_of(engine: Engine, path: str, now: datetime, zone: ZoneInfo, span: int = 30) -> dict[str, int]:
    """{day: views} as a reader sees them; days without are left out."""
    with read_snapshot(engine) as connection:
        page = entities.find(connection, "page", path)
        assert page is not None
        answer = stats.entity_stats(connection, page, stats.Span.ending_today(span, now, zone))
    return {each["date"]: each["views"] for each in answer["daily_views"] if each["views"]}


def partitions(engine: Engine) -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'view_events'::regclass"
    with engine.connect() as connection:
        return set(connection.scalars(text(query)))


def at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 9, 30, tzinfo=UTC)


def seven_and_one(settings: Settings) -> list[date]:
    return days_back(TODAY, settings.raw_retention_days + 2)


def test_raw_days_are_kept_for_today_and_the_seven_before(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(day)) for day in seven_and_one(settings)])
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    before = views_of(engine, "/", NOW, settings.time_zone)
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]
    assert days.partition_name(OLD) not in partitions(engine)
    assert days.partition_name(OLD + timedelta(days=1)) in partitions(engine)
    assert views_of(engine, "/", NOW, settings.time_zone) == before
    assert len(before) == 9


def test_a_day_that_is_not_clean_is_never_dropped(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    assert retention.drop_expired(engine, redis, settings, NOW) == [], "never rolled up"
    rollup.roll_up(engine, OLD, NOW)
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    assert retention.drop_expired(engine, redis, settings, NOW) == [], "rolled up before the last event"
    rollup.roll_up(engine, OLD, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]
    assert views_of(engine, "/", NOW, settings.time_zone) == {str(OLD): 2}


def test_days_are_dropped_in_order_so_that_an_unclean_one_holds_up_the_later(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    older = OLD - timedelta(days=1)
    store(engine, redis, settings, [make_event(settings, at(older)), make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == []
    rollup.roll_up(engine, older, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == [older, OLD]


def test_nothing_is_dropped_while_the_queue_may_hold_events_of_the_day(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=1))
    redis.delete(stream.STREAM_KEY)  # an entry older than its last one is not taken
    long_ago = int((NOW - timedelta(days=2)).timestamp() * 1000)
    stuck = redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"stuck"}, id=f"{long_ago}-0")
    assert retention.drop_expired(engine, redis, settings, NOW) == []
    redis.xdel(stream.STREAM_KEY, stuck)
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]


def test_a_sealed_day_takes_no_event_and_keeps_its_rows(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    retention.drop_expired(engine, redis, settings, NOW)
    late = [make_event(settings, at(OLD)), make_event(settings, at(OLD - timedelta(days=1)))]
    written = store(engine, redis, settings, late)
    assert dict(written.fates) == {"dead_letter": 2}
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT reason FROM dead_letters"))) == {"too_late"}
    assert partitions(engine) == set()
    assert rollup.roll_up(engine, OLD, NOW) is None
    assert rollup.roll_up_closed_days(engine, TODAY, NOW) == []
    assert views_of(engine, "/", NOW, settings.time_zone) == {str(OLD): 1}


def test_a_writer_that_is_at_it_is_waited_for_and_then_the_day_is_unclean(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    late = writer.Incoming(5, 0, make_event(settings, at(OLD)), b"")
    with engine.begin() as connection:
        assert writer.write_batch(connection, [late], NOW, settings) == ["row"]
        assert retention.drop_expired(engine, redis, settings, NOW) == [], "the writer's lock was ignored"
    assert retention.drop_expired(engine, redis, settings, NOW) == [], "its event would have been lost"
    rollup.roll_up(engine, OLD, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]
    assert views_of(engine, "/", NOW, settings.time_zone) == {str(OLD): 2}


def test_a_writer_that_has_only_looked_at_the_day_keeps_it_open(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    with engine.begin() as connection:
        assert set(days.hold_open(connection, [OLD])) == {OLD}
        assert retention.drop_expired(engine, redis, settings, NOW) == []
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]


def test_a_long_reader_delays_the_drop_and_never_the_writers(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    with read_snapshot(engine) as reader:
        reader.execute(text("SELECT count(*) FROM view_events"))
        assert retention.drop_expired(engine, redis, settings, NOW) == []
        store(engine, redis, settings, [make_event(settings, NOW + timedelta(days=1))])  # opens a partition
    assert retention.drop_expired(engine, redis, settings, NOW) == [OLD]


def test_the_days_of_a_long_outage_are_still_taken_when_nothing_later_was_sealed(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    queued = at(TODAY - timedelta(days=10))
    store(engine, redis, settings, [make_event(settings, queued)])
    assert views_of(engine, "/", NOW, settings.time_zone) == {"2026-02-28": 1}


def test_daily_rows_are_kept_for_their_days(engine: Engine, redis: Redis, settings: Settings) -> None:
    first = TODAY - timedelta(days=30)
    for day in (first, first + timedelta(days=1)):
        store(engine, redis, settings, [make_event(settings, at(day))])
        rollup.roll_up(engine, day, NOW)
    retention.drop_expired(engine, redis, settings, NOW)
    assert set(views_of(engine, "/", NOW, settings.time_zone, 31)) == {str(first), "2026-02-09"}
    tomorrow = NOW + timedelta(days=1)
    retention.drop_expired(engine, redis, settings, tomorrow)
    assert set(views_of(engine, "/", tomorrow, settings.time_zone, 31)) == {"2026-02-09"}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM daily_stats")) == 2, "page and site"


def test_the_newest_sealed_day_is_remembered_for_ever(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, at(OLD))])
    rollup.roll_up(engine, OLD, NOW)
    retention.drop_expired(engine, redis, settings, NOW)
    in_a_year = NOW + timedelta(days=365)
    retention.drop_expired(engine, redis, settings, in_a_year)
    with engine.connect() as connection:
        assert days.last_sealed_day(connection) == OLD
        assert connection.scalar(text("SELECT count(*) FROM daily_stats")) == 0


def test_days_are_indexed_by_entity_when_they_are_over(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    ages = [timedelta(days=n) for n in (0, 1, 2, 3)]
    store(engine, redis, settings, [make_event(settings, NOW - age) for age in ages])
    with engine.connect() as writing:
        writing.execute(text("LOCK TABLE view_events_2026_03_08 IN ROW EXCLUSIVE MODE"))
        retention.turn_days(engine, settings, NOW)
        assert _indexed(engine) == ["view_events_2026_03_07"], "a writer is at it"
    for _ in range(2):
        retention.turn_days(engine, settings, NOW)
    assert _indexed(engine) == ["view_events_2026_03_07", "view_events_2026_03_08"]


def _indexed(engine: Engine) -> list[str]:
    """The partitions that have an index on the entity."""
    query = "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%(entity_id)' AND tablename LIKE :events"
    with engine.connect() as connection:
        found = connection.scalars(text(query), {"events": "view_events%"})
        return sorted(found)


def test_preparing_makes_the_next_days_and_may_be_repeated(engine: Engine, settings: Settings) -> None:
    retention.turn_days(engine, settings, NOW)
    retention.turn_days(engine, settings, NOW)
    assert partitions(engine) == {f"view_events_2026_03_{day}" for day in (10, 11, 12)}
    with engine.connect() as connection:
        assert date(2026, 3, 11) in set(connection.scalars(text("SELECT day FROM salts")))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"])
def test_events_around_midnight_belong_to_the_sites_day(
    engine: Engine, redis: Redis, settings: Settings, zone: str
) -> None:
    """Over the nights in which the clocks of Europe and America change, every day from both its ends."""
    local = replace(settings, time_zone=ZoneInfo(zone))
    nights = [date(2026, 3, 8), date(2026, 3, 9), date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25)]
    expected: dict[str, int] = {}
    for night in nights:
        midnight = day_start(night, local.time_zone)
        moments = [midnight - timedelta(microseconds=1), midnight, midnight + timedelta(hours=22, minutes=59)]
        with freeze_time(midnight + timedelta(hours=30)) as clock:
            now = clock().replace(tzinfo=UTC)
            today = site_day(now, local.time_zone)
            store(engine, redis, local, [make_event(local, moment) for moment in moments])
            for day in (night - timedelta(days=1), night, night):
                expected[str(day)] = expected.get(str(day), 0) + 1
            seen = views_of(engine, "/", now, local.time_zone)
            assert seen == {day: n for day, n in expected.items() if day > str(today - timedelta(days=30))}
            rollup.roll_up_closed_days(engine, today, now)
            retention.drop_expired(engine, redis, local, now)
            assert views_of(engine, "/", now, local.time_zone) == seen


def test_a_day_is_as_long_as_the_clocks_make_it() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    lengths = {
        str(day): day_start(day + timedelta(days=1), berlin) - day_start(day, berlin)
        for day in (date(2026, 3, 28), date(2026, 3, 29), date(2026, 10, 25))
    }
    assert lengths == {
        "2026-03-28": timedelta(hours=24),
        "2026-03-29": timedelta(hours=23),
        "2026-10-25": timedelta(hours=25),
    }


def test_a_week_of_nights_loses_and_doubles_nothing(engine: Engine, redis: Redis, settings: Settings) -> None:
    """Forty days with nightly upkeep, events late by up to six days: each view is in its day at the end."""
    expected: dict[str, int] = {}
    for number in range(40):
        now = NOW + timedelta(days=number, hours=1)
        with freeze_time(now):
            retention.turn_days(engine, settings, now)
            for late in (0, 1, 5, 6):
                moment = now - timedelta(days=late)
                expected[str(moment.date())] = expected.get(str(moment.date()), 0) + 2
                store(engine, redis, settings, [make_event(settings, moment) for _ in range(2)])
            rollup.roll_up_closed_days(engine, site_day(now, settings.time_zone), now)
            retention.drop_expired(engine, redis, settings, now)
    seen = views_of(engine, "/", now, settings.time_zone)
    assert seen == {day: n for day, n in expected.items() if day > str(now.date() - timedelta(days=30))}
    assert len(partitions(engine)) == 8 + 2, "today, seven before, two ahead"
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM dead_letters")) == 0
