"""`footfall demo-data`: what it writes went the real way, adds up, and is mixed with nothing unasked."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result
from redis import Redis
from sqlalchemy import Engine, delete, func, select, text

from footfall import clock, days, entities, ledger, rollup, stats
from footfall.cli import main
from footfall.cli.demo_traffic import GAP_DAYS_AGO, LIVE_VIEWS, SPIKE_DAYS_AGO, SPIKE_REFERRER, THINGS, Month
from footfall.database import read_snapshot
from footfall.event import ViewEvent
from footfall.schema import EventDay, Gap, ViewEventRow
from footfall.settings import Settings
from tests.factory import PEPPER, SECRET, make_event, store
from tests.integration.plain_count import PlainCount

DAYS = 18  # with the afternoon on which nobody counted
ZONE = ZoneInfo("Asia/Kathmandu")
NOW = datetime(2026, 3, 10, 18, 27, tzinfo=UTC)  # a quarter of an hour after midnight there
TODAY = date(2026, 3, 11)

Run = Callable[..., Result]


@pytest.fixture
def run(
    settings: Settings, engine: Engine, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Calls the command for the tests' servers, at a time that stands still."""
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "FOOTFALL_PEPPER": PEPPER,
        "FOOTFALL_JWT_SECRET": SECRET,
        "FOOTFALL_TIME_ZONE": ZONE.key,
    }

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, ["demo-data", "--data-dir", str(tmp_path), *words], env=environment)

    yield call
    with engine.begin() as connection:
        connection.execute(delete(Gap))


def span(n: int) -> stats.Span:
    return stats.Span.ending_today(n, NOW, ZONE)


def month() -> list[ViewEvent]:
    """What the command writes, made once more."""
    return [event for _, events in Month(NOW, ZONE, DAYS, 2026) for event in events]


def without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    """The answer but for these parts, which the plain count does not know."""
    return {name: value for name, value in answer.items() if name not in names}


def gaps_cleared(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as if somebody had always counted; the plain count knows no gaps."""
    for name in ("daily_views", "daily_views_authenticated"):
        answer[name] = [{**day, "gap": False} for day in answer[name]]
    return answer


@pytest.mark.timeout(240)
def test_a_month_of_demo_data_is_counted_as_real_views_are(run: Run, engine: Engine, redis: Redis) -> None:
    done = run("--days", str(DAYS))
    assert done.exit_code == 0, done.output
    events = month()
    assert f"{len(events):,} events of {DAYS} days" in done.output
    plain = PlainCount(events, NOW, ZONE)
    with read_snapshot(engine) as connection:
        sitewide = stats.sitewide_stats(connection, span(DAYS))
        realtime = stats.realtime(connection, NOW, ZONE)
        rows = ledger.ledger(connection, redis, span(DAYS).days, NOW, ZONE)
        assert rollup.days_to_roll(connection, TODAY) == []
        assert days.last_sealed_day(connection) == TODAY - timedelta(days=8)
        gaps = span(DAYS).gaps(connection)
        kept = connection.scalar(select(func.count()).select_from(ViewEventRow)) or 0
    assert gaps == {TODAY - timedelta(days=GAP_DAYS_AGO)}
    assert without(gaps_cleared(sitewide), "computed_at") == plain.sitewide(DAYS)
    assert without(realtime, "computed_at") == plain.realtime()
    assert all(row["balanced"] for row in rows)
    assert sum(sum(row["rows"].values()) for row in rows) == len(events)
    assert kept == sum(event.day >= TODAY - timedelta(days=7) for event in events)
    _check_a_book(engine, plain)


def _check_a_book(engine: Engine, plain: PlainCount) -> None:
    with read_snapshot(engine) as connection:
        book = entities.find(connection, "book", "rock-pools")
        assert book is not None
        answer = stats.entity_stats(connection, book, span(DAYS))
    told = {"title": "The Rock Pool Handbook", "total_reactions": 73, "total_comments": 14}
    assert book.owner_id == "ann"
    assert {name: answer[name] for name in told} == told
    expected = plain.entity(("book", "rock-pools"), DAYS)
    answer = gaps_cleared(answer)
    assert {name: answer[name] for name in expected} == expected
    assert answer["total_views"] > 100


def test_the_month_has_everything_that_a_dashboard_shows() -> None:
    events = [event for _, events in Month(NOW, ZONE, 30, 1) for event in events]
    plain = PlainCount(events, NOW, ZONE)
    sitewide = plain.sitewide(30)
    views = [day["views"] for day in sitewide["daily_views"]]
    spike = 29 - SPIKE_DAYS_AGO
    assert max(views) == views[spike] > 3 * views[spike - 7]
    assert min(views[:-1]) > 0
    assert list(sitewide["top_referrers"]).index(SPIKE_REFERRER) < 3
    assert len({event.external_id for event in events if event.entity_type == "page"}) == 150
    share = sitewide["total_page_views_authenticated"] / sitewide["total_page_views"]
    assert 0.1 < share < 0.3
    for name in ("new_signups", "new_posts", "total_api_calls", "total_errors"):
        assert sitewide[name] > 0
    assert len(sitewide["views_by_device"]) == 5
    assert {outcome for outcome, n in sitewide["not_counted"].items() if n} == {"bot"}
    assert {event.outcome for event in events} == {"counted", "bot", "own", "repeat"}
    assert {event.name for event in events} >= {thing.name for thing in THINGS}
    assert sum(minute["views"] for minute in plain.realtime()["views_by_minute"]) >= LIVE_VIEWS - 10
    assert max(event.occurred_at for event in events) <= NOW


def test_the_same_seed_makes_the_same_month_whatever_its_length() -> None:
    first, again, other = (list(Month(NOW, ZONE, n, seed)) for n, seed in ((5, 1), (3, 1), (3, 2)))
    assert first[2:] == again
    assert again != other
    assert len({event.id for _, events in first for event in events}) == sum(len(day[1]) for day in first)


def test_a_database_with_views_is_left_alone(
    run: Run, engine: Engine, redis: Redis, settings: Settings
) -> None:
    site = replace(settings, time_zone=ZONE)
    store(engine, redis, site, [make_event(site, datetime.now(UTC))])
    refused = run("--days", "1")
    assert refused.exit_code == 1
    assert "counted views already" in refused.output
    assert "--force" in refused.output
    assert _events(engine) == 1
    forced = run("--days", "1", "--force")
    assert forced.exit_code == 0, forced.output
    assert _events(engine) > 1


def test_days_that_are_sealed_stay_as_they_are(run: Run, engine: Engine) -> None:
    yesterday = TODAY - timedelta(days=1)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO event_days VALUES (:day, 1, :now, 0)"),
            {"day": yesterday, "now": NOW},
        )
    done = run("--days", "3", "--force")
    assert done.exit_code == 0, done.output
    with engine.connect() as connection:
        stored = connection.scalars(select(EventDay.day)).all()
        dead = connection.scalar(text("SELECT count(*) FROM dead_letters"))
    assert set(stored) == {yesterday, TODAY}
    assert dead in (0, None) or dead <= LIVE_VIEWS


@pytest.mark.parametrize("days", ["0", "31", "x"])
def test_more_days_than_are_kept_are_refused(run: Run, engine: Engine, days: str) -> None:
    refused = run("--days", days)
    assert refused.exit_code in (1, 2)
    assert "--days" in refused.output
    assert _events(engine) == 0


def _events(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(ViewEventRow)) or 0
