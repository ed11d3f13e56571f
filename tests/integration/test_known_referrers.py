"""Made-up referrers: a day names only so many new ones, and who was known before is counted by name."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import entities, fallback, known_referrers, retention, rollup, stats, verify, writer
from footfall.database import read_snapshot
from footfall.definitions import THE_SITE
from footfall.event import View, ViewEvent
from footfall.known_referrers import MAX_CHARACTERS, OTHER
from footfall.settings import Settings
from tests.factory import make_event, store
from tests.waiting import transactions_waiting, wait_until

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
ONE_DAY = timedelta(days=1)
FLOOD = 20_000
CAP = 200
HONEST = ("search.example", "friend.example")


@pytest.fixture(autouse=True)
def cap(monkeypatch: pytest.MonkeyPatch) -> int:
    """A lowered one."""
    monkeypatch.setattr(known_referrers, "NEW_PER_DAY", CAP)
    return CAP


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """A cap that is counted by hand."""
    monkeypatch.setattr(known_referrers, "NEW_PER_DAY", 2)
    return 2


class Place:
    """A site to which views come by the queue, at a time that is given."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings) -> None:
        self.engine, self.redis, self.settings = engine, redis, settings

    def views(self, domains: Iterable[str | None], at: datetime, page: str = "/") -> list[ViewEvent]:
        return [
            make_event(self.settings, at, external_id=page, referrer_domain=domain, visitor=number)
            for number, domain in enumerate(domains)
        ]

    def see(self, domains: Iterable[str | None], at: datetime = NOW) -> dict[str, int]:
        """Views that these refer, as one batch of that time; what is stored of the day then."""
        with freeze_time(at):
            store(self.engine, self.redis, self.settings, self.views(domains, at))
        return self.stored(at)

    def stored(self, at: datetime = NOW) -> dict[str, int]:
        found = self.rows(
            "SELECT referrer_domain, count(*) FROM view_events"
            " WHERE day = :day AND referrer_domain IS NOT NULL GROUP BY 1",
            day=at.date(),
        )
        return dict(found)

    def known(self) -> set[str]:
        return {domain for (domain,) in self.rows("SELECT domain FROM referrer_domains")}

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]


@pytest.fixture
def place(engine: Engine, redis: Redis, settings: Settings) -> Place:
    return Place(engine, redis, settings)


def test_a_flood_of_made_up_domains_is_one_name_and_who_was_known_keeps_theirs(
    place: Place, cap: int
) -> None:
    """Rolled forward in the middle of it, as a whole, and read raw: the same bounded numbers."""
    place.see([*HONEST, None], NOW - ONE_DAY)
    half = FLOOD // 2
    for first in (0, half):
        place.see([f"spam{number}.example" for number in range(first, first + half)])
        place.see([*HONEST, None])
        assert read(place) == place.stored()  # raw, or what came after the rows
        rollup.roll_forward(place.engine, NOW.date(), NOW)
        assert read(place) == place.stored()
    stored = place.stored()
    assert stored[OTHER] == FLOOD - cap
    assert {name: stored[name] for name in HONEST} == dict.fromkeys(HONEST, 2)
    assert sum(stored.values()) == FLOOD + 2 * len(HONEST)
    assert len(stored) == cap + len(HONEST) + 1
    assert len(place.known()) == cap + len(HONEST)
    forward = daily_rows(place)
    assert len(forward) == 2  # the page's and the site's
    assert all(row[:2] == (FLOOD + 6, stored) for row in forward)
    assert all(row[2] < 16 * 1024 for row in forward)  # bytes; without the cap it is 146 KB
    rollup.roll_up(place.engine, NOW.date(), NOW, keep_visitors=True)
    assert daily_rows(place) == forward
    began = time.monotonic()
    answer = sitewide(place)
    assert time.monotonic() - began < 2  # measured: some hundredths
    assert next(iter(answer["top_referrers"].items())) == (OTHER, FLOOD - cap)
    assert answer["top_referrers"]["search.example"] == 3
    assert verify.audit(place.engine, place.redis, place.settings, NOW).ok


def test_the_day_after_has_room_again_and_the_known_need_none(place: Place, few: int) -> None:
    assert place.see(["a", "b", "c", "d", "c"]) == {"c": 2, "a": 1, OTHER: 2}  # those with most views first
    assert place.see(["a", "d"]) == {"c": 2, "a": 2, OTHER: 3}
    tomorrow = NOW + ONE_DAY
    assert place.see(["x", "y", "z", "a", "c"], tomorrow) == {"x": 1, "y": 1, OTHER: 1, "a": 1, "c": 1}
    assert place.see(["d"], tomorrow)[OTHER] == 2


def test_a_late_view_takes_the_room_of_the_day_on_which_it_came(place: Place, few: int) -> None:
    with freeze_time(NOW):
        late = place.views(["a", "b", "c"], NOW - ONE_DAY)
        store(place.engine, place.redis, place.settings, late)
    assert place.stored(NOW - ONE_DAY) == {"a": 1, "b": 1, OTHER: 1}
    assert place.see(["d"]) == {OTHER: 1}


def test_views_that_go_past_redis_are_under_the_same_cap(place: Place, few: int) -> None:
    for domain in ("a", "b", "c", "a"):
        fallback.take(place.engine, place.settings, [View(place.views([domain], NOW)[0])], NOW)
    assert place.stored() == {"a": 2, "b": 1, OTHER: 1}


def test_a_batch_that_comes_again_changes_nothing_of_what_is_stored(place: Place, few: int) -> None:
    events = place.views("abcd", NOW)
    batch = batch_of(events, 1)
    writer.open_days(place.engine, place.settings, events, NOW)
    for _ in range(2):
        with place.engine.begin() as connection:
            assert writer.write_batch(connection, batch, NOW, place.settings) == ["row"] * 4
        assert place.stored() == {"a": 1, "b": 1, OTHER: 2}


def test_writers_with_the_same_new_domains_in_any_order_do_not_deadlock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 5_000  # so that they are at it together
    monkeypatch.setattr(known_referrers, "NEW_PER_DAY", many)
    for n in range(4):
        place.see([None], NOW - n * ONE_DAY)  # of days of their own: those of one day wait for each other
    domains = [f"d{number}" for number in range(many)]
    of_writers = [place.views(domains[:: (-1) ** n], NOW - n * ONE_DAY) for n in range(4)]

    def write(number: int) -> list[writer.Fate]:
        batch = batch_of(of_writers[number], number)
        with place.engine.begin() as connection:
            return writer.write_batch(connection, batch, NOW, place.settings)

    with ThreadPoolExecutor(4) as pool:
        with place.engine.begin() as connection:
            connection.execute(text("LOCK TABLE referrer_domains IN SHARE MODE"))
            writing = [pool.submit(write, number) for number in range(4)]
            wait_until(lambda: transactions_waiting(place.engine) == 4, "all to be at it")
        assert all(each.result() == ["row"] * many for each in writing)
    for n in range(4):
        assert place.stored(NOW - n * ONE_DAY) == dict.fromkeys(domains, 1)


def test_a_domain_that_fits_no_index_is_none_that_is_named(place: Place) -> None:
    """The edge lets none in; an envelope of another hand must not stop the queue."""
    longest, longer = "a" * MAX_CHARACTERS, "b" * 100_000
    assert place.see([longest, longer, "c"]) == {longest: 1, OTHER: 1, "c": 1}


def test_what_no_kept_day_has_seen_is_forgotten(place: Place) -> None:
    place.see(["old", "often"])
    place.see(["often"], NOW + 20 * ONE_DAY)
    retention.drop_expired(place.engine, place.redis, place.settings, NOW + 30 * ONE_DAY)
    assert place.known() == {"old", "often"}
    retention.drop_expired(place.engine, place.redis, place.settings, NOW + 31 * ONE_DAY)
    assert place.known() == {"often"}


def test_a_flood_that_goes_on_for_days_drives_out_itself(
    place: Place, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up domains that come again every day are younger than those that were there before."""
    monkeypatch.setattr(known_referrers, "KEPT", 4)
    place.see(HONEST)
    for number in range(1, 9):
        later = NOW + number * ONE_DAY
        place.see([*HONEST, *(f"spam{n}" for n in range(20))], later)
        retention.drop_expired(place.engine, place.redis, place.settings, later)
        assert {*HONEST} < place.known()
        assert len(place.known()) <= 4
        assert len(place.stored(later)) <= 4 + few + 1


def batch_of(events: Iterable[ViewEvent], entry: int) -> list[writer.Incoming]:
    return [writer.Incoming(entry, position, one, b"") for position, one in enumerate(events)]


def read(place: Place) -> dict[str, int]:
    """The referrers of the day, as whoever reads it adds them up."""
    with read_snapshot(place.engine) as connection:
        site = entities.site(connection)
        by_day = stats._figures_by_day(connection, THE_SITE, site.id, [NOW.date()])
    return dict(by_day[NOW.date()]["views_by_referrer"])


def sitewide(place: Place) -> dict[str, Any]:
    with read_snapshot(place.engine) as connection:
        return stats.sitewide_stats(connection, stats.Span.ending_today(30, NOW, place.settings.time_zone))


def daily_rows(place: Place) -> list[tuple[Any, ...]]:
    """Views, referrers and the row's size in bytes, of each entity."""
    return place.rows(
        "SELECT views, views_by_referrer, pg_column_size(d.*) FROM daily_stats AS d"
        " WHERE day = :day ORDER BY entity_id",
        day=NOW.date(),
    )
