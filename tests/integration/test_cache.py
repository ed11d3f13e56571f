"""Answers are computed once in five minutes, by one caller at a time, and only for those who may read."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine

from footfall import cache, keys, stream
from footfall.answers import AHEAD_DAYS, Answers
from footfall.cache import Answer, cached
from footfall.settings import Settings
from tests.factory import make_event, make_settings, store
from tests.integration.api import bearer
from tests.integration.content import Site, site_on

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
THREADS = 20
PATIENCE_SECONDS = 20


class Computing:
    """A computation that says how often it ran, how many ran at once, and that can be held up."""

    def __init__(self, *, held: bool = False, failures: int = 0, seconds: float = 0) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()
        if not held:
            self.go_on.set()
        self._failures = failures
        self._seconds = seconds
        self._lock = threading.Lock()
        self._runs = count(1)
        self._at_once = 0
        self.runs = 0
        self.most_at_once = 0

    def __call__(self) -> Answer:
        with self._lock:
            self.runs = run = next(self._runs)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.started.set()
        try:
            assert self.go_on.wait(PATIENCE_SECONDS)
            time.sleep(self._seconds)  # it takes so long
            if run <= self._failures:
                raise RuntimeError(f"run {run} fails")
            return {"run": run}
        finally:
            with self._lock:
                self._at_once -= 1


def test_an_answer_is_computed_once_in_five_minutes(redis: Redis) -> None:
    computing = Computing()
    ages = [timedelta(0), timedelta(seconds=299), timedelta(seconds=300), timedelta(seconds=599)]
    answers = [cached(redis, "a", computing, NOW + age) for age in ages]
    assert answers == [{"run": 1}, {"run": 1}, {"run": 2}, {"run": 2}]


def test_answers_of_other_names_are_others(redis: Redis) -> None:
    computing = Computing()
    assert cached(redis, "a", computing, NOW) == {"run": 1}
    assert cached(redis, "b", computing, NOW) == {"run": 2}
    assert cached(redis, "a", computing, NOW) == {"run": 1}


def test_who_comes_while_one_computes_anew_gets_the_stale_answer_at_once(redis: Redis) -> None:
    cached(redis, "a", lambda: {"run": "stale"}, NOW)
    later = NOW + timedelta(minutes=6)
    computing = Computing(held=True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cached, redis, "a", computing, later)
        assert computing.started.wait(PATIENCE_SECONDS)
        assert cached(redis, "a", computing, later) == {"run": "stale"}
        computing.go_on.set()
        assert first.result(PATIENCE_SECONDS) == {"run": 1}
    assert cached(redis, "a", computing, later) == {"run": 1}
    assert computing.runs == 1


def test_of_many_who_come_at_once_one_computes_and_the_others_wait(redis: Redis) -> None:
    computing = Computing(held=True)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(cached, redis, "a", computing, NOW) for _ in range(THREADS)]
        assert computing.started.wait(PATIENCE_SECONDS)
        computing.go_on.set()
        assert [one.result(PATIENCE_SECONDS) for one in answers] == [{"run": 1}] * THREADS
    assert computing.runs == 1


def test_when_a_computation_fails_one_of_the_waiting_tries_next(redis: Redis) -> None:
    """All of them at once would be what the lock is there to prevent."""
    computing = Computing(held=True, failures=2, seconds=0.1)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(cached, redis, "a", computing, NOW) for _ in range(THREADS)]
        assert computing.started.wait(PATIENCE_SECONDS)
        computing.go_on.set()
        failed = [one for one in answers if one.exception(PATIENCE_SECONDS) is not None]
        told = [one.result() for one in answers if one not in failed]
    assert len(failed) == 2
    assert told == [{"run": 3}] * (THREADS - 2)
    assert (computing.runs, computing.most_at_once) == (3, 1)


def test_a_failed_computation_is_told_and_leaves_nothing_behind(redis: Redis) -> None:
    computing = Computing(failures=1)
    with pytest.raises(RuntimeError):
        cached(redis, "a", computing, NOW)
    assert redis.keys("*cache*") == []
    assert cached(redis, "a", computing, NOW) == {"run": 2}


def test_a_failed_refresh_keeps_the_old_answer(redis: Redis) -> None:
    cached(redis, "a", lambda: {"run": "old"}, NOW)
    with pytest.raises(RuntimeError):
        cached(redis, "a", Computing(failures=1), NOW, refresh=True)
    assert cached(redis, "a", Computing(), NOW) == {"run": "old"}


def test_refresh_computes_in_any_case_and_is_kept(redis: Redis) -> None:
    computing = Computing()
    cached(redis, "a", computing, NOW)
    assert cached(redis, "a", computing, NOW, refresh=True) == {"run": 2}
    assert cached(redis, "a", computing, NOW) == {"run": 2}


def test_nobody_waits_for_ever_for_one_who_has_died(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.2)
    computing = Computing(held=True)
    with ThreadPoolExecutor(1) as pool:
        dead = pool.submit(cached, redis, "a", computing, NOW)
        assert computing.started.wait(PATIENCE_SECONDS)
        assert cached(redis, "a", lambda: {"run": "mine"}, NOW) == {"run": "mine"}
        computing.go_on.set()
        dead.result(PATIENCE_SECONDS)


def test_without_redis_an_answer_is_computed() -> None:
    away = stream.connect(make_settings())
    computing = Computing()
    assert [cached(away, "a", computing, NOW) for _ in range(2)] == [{"run": 1}, {"run": 2}]


def test_when_redis_goes_away_during_a_computation_it_is_not_done_twice(redis: Redis) -> None:
    computing = Computing()

    def compute() -> Answer:
        redis.connection_pool = stream.connect(make_settings()).connection_pool
        return computing()

    assert cached(redis, "a", compute, NOW) == {"run": 1}
    assert computing.runs == 1


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    """A client of an empty Redis, whose pool a test may exchange."""
    cleaner, client = stream.connect(settings), stream.connect(settings)
    cleaner.flushall()
    yield client
    cleaner.flushall()
    for each in (cleaner, client):
        each.close()


def test_the_hit_rate_is_the_share_that_was_not_computed(redis: Redis) -> None:
    assert cache.hit_rate(redis) is None
    for name in ("a", "a", "a", "b"):
        cached(redis, name, Computing(), NOW)
    assert cache.hit_rate(redis) == 0.5


@pytest.fixture
def site(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Site]:
    """A site with books of Ann's and pages, viewed today and yesterday, at a time that stands still."""
    with freeze_time(NOW), site_on(settings, engine, redis) as site:
        for day in (NOW, NOW - timedelta(days=1)):
            books = [
                make_event(settings, day, entity_type="book", external_id=book, view_type=view_type)
                for book in ("b1", "b2", "b2")
                for view_type in ("intentional", "listing")
            ]
            store(engine, redis, settings, [*books, make_event(settings, day)])
        for book in ("b1", "b2"):
            site.tell(f"book/{book}", owner_id="ann")
        yield site


def read(site: Site, url: str, role: str = "moderator", subject: str = "mo") -> Any:
    """The answer's JSON."""
    response = site.client.get(url, headers=bearer(site.settings, role, subject))
    assert response.status_code == 200, response.data
    return response.json


def computed(site: Site) -> int:
    """How many answers were computed so far."""
    return int(cast(bytes, site.redis.hget(keys.CACHE_TALLY, "misses") or b"0"))


DIFFERENT = [
    "/api/stats/book/b1",
    "/api/stats/book/b2",
    "/api/stats/book/b1?days=1",
    "/api/stats/page?path=/",
    "/api/admin/sitewide-stats",
    "/api/admin/sitewide-stats?days=1",
    "/api/stats/top?type=book",
    "/api/stats/top",
    "/api/stats/top?type=book&period=day",
    "/api/stats/top?type=book&period=month",
    "/api/stats/top?type=book&period=all",
    "/api/stats/top?type=book&view_type=listing",
    "/api/stats/top?type=book&period=all&view_type=listing",
    "/api/stats/top?type=book&limit=1",
]


def test_answers_are_kept_by_every_parameter(site: Site) -> None:
    first = {url: read(site, url) for url in DIFFERENT}
    assert computed(site) == len(DIFFERENT), "no two of them share an answer"
    assert {url: read(site, url) for url in DIFFERENT} == first
    assert computed(site) == len(DIFFERENT), "and each is kept"


def test_answers_are_kept_by_the_day(site: Site) -> None:
    before = read(site, "/api/admin/sitewide-stats?days=1")
    with freeze_time(datetime(2026, 3, 10, 23, 59, tzinfo=UTC)) as clock:
        read(site, "/api/admin/sitewide-stats?days=1")
        clock.tick(timedelta(minutes=2))
        after = read(site, "/api/admin/sitewide-stats?days=1")
    assert (before["daily_views"][0]["date"], after["daily_views"][0]["date"]) == ("2026-03-10", "2026-03-11")


def test_what_the_host_site_tells_is_shown_at_once(site: Site) -> None:
    def told() -> tuple[str | None, int, int]:
        answer = read(site, "/api/stats/book/b1")
        return answer["title"], answer["total_reactions"], answer["total_comments"]

    assert told() == (None, 0, 0)
    site.tell("book/b1", title="Tides")
    assert told() == ("Tides", 0, 0)
    site.tell("book/b1", engagement={"reactions": {"\N{OCTOPUS}": 2}})
    assert told() == ("Tides", 2, 0)
    site.tell("book/b1", engagement={"comments": 3})
    assert told() == ("Tides", 2, 3)


def test_a_view_is_seen_after_five_minutes_or_a_moderators_refresh(site: Site) -> None:
    url = "/api/stats/book/b1?days=1"
    assert read(site, url)["total_views"] == 2
    event = make_event(site.settings, NOW, entity_type="book", external_id="b1")
    store(site.engine, site.redis, site.settings, [event])
    assert read(site, url)["total_views"] == 2
    assert read(site, url + "&refresh=true", "user", "ann")["total_views"] == 2, "an owner's is ignored"
    assert read(site, url + "&refresh=false")["total_views"] == 2
    assert read(site, url + "&refresh=true")["total_views"] == 3
    assert read(site, url)["total_views"] == 3


@pytest.mark.parametrize("url", [url for url in DIFFERENT if "limit" not in url])
def test_who_may_not_read_never_gets_a_kept_answer(site: Site, url: str) -> None:
    read(site, url)
    hits = site.redis.hget(keys.CACHE_TALLY, "hits")
    expected: list[tuple[Callable[[], dict[str, str]], int]] = [
        (dict, 401),
        (lambda: {"Authorization": "Bearer made.up.token"}, 401),
        (lambda: bearer(site.settings, "user", "bob"), 403),
        (lambda: bearer(site.settings, "service", "bob"), 403),
    ]
    for headers, status in expected:
        for suffix in ("", ("&" if "?" in url else "?") + "refresh=true"):
            response = site.client.get(url + suffix, headers=headers())
            assert response.status_code == status
            assert set(response.json or {}) == {"error", "code"}
    assert site.redis.hget(keys.CACHE_TALLY, "hits") == hits, "the cache was not even asked"


def test_an_owner_who_is_none_any_more_does_not_get_the_kept_answer(site: Site) -> None:
    read(site, "/api/stats/book/b1", "user", "ann")
    site.tell("book/b1", owner_id="bob")
    assert _status(site.client, "/api/stats/book/b1", bearer(site.settings, "user", "ann")) == 403
    site.erase("book/b1")
    assert _status(site.client, "/api/stats/book/b1", bearer(site.settings, "moderator")) == 404


def test_beat_keeps_the_dashboards_ranges_fresh(site: Site) -> None:
    Answers(site.engine, site.redis, site.settings).refresh_ahead(NOW)
    before = computed(site)
    for days in AHEAD_DAYS:
        read(site, f"/api/admin/sitewide-stats?days={days}")
    assert computed(site) == before


def test_beat_keeps_fresh_what_was_asked_for_in_the_last_hour(site: Site) -> None:
    asked = [
        "/api/stats/top?type=book&period=month&limit=7",
        "/api/stats/top?type=page&period=all&view_type=listing",
        "/api/admin/sitewide-stats?days=3",
    ]
    for url in asked:
        read(site, url)
    answers = Answers(site.engine, site.redis, site.settings)
    for minutes in range(4, 60, 4):
        answers.refresh_ahead(NOW + timedelta(minutes=minutes))
    before = computed(site)
    with freeze_time(NOW + timedelta(minutes=59)):
        for url in asked:
            read(site, url)
    assert computed(site) == before, "56 minutes after the question they are 3 minutes old"
    answers.refresh_ahead(NOW + timedelta(minutes=121))
    assert computed(site) == before + len(AHEAD_DAYS), "nobody has asked for two hours"


def test_without_redis_nothing_is_noted_and_everything_answered(settings: Settings, engine: Engine) -> None:
    gone = stream.connect(make_settings(REDIS_URL="redis://127.0.0.1:1"))
    assert Answers(engine, gone, settings).top("book", "week", None, 20, NOW) == {"items": []}


def _status(client: FlaskClient, url: str, headers: dict[str, str]) -> int:
    return client.get(url, headers=headers).status_code
