"""Content views: windows, retries, owners, counts and caps, the same through Redis and without it."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from threading import Event
from typing import Any, cast
from uuid import uuid4

import pytest
from freezegun.api import FrozenDateTimeFactory
from redis import Redis
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError

from api.parts import KEY
from footfall import acceptance, breaker, counts, keys, retention, rollup, stream
from footfall.cli import embedded
from footfall.clock import site_day
from footfall.errors import SettingsError
from footfall.event import encode
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.factory import EVENTS, make_settings
from tests.integration.api import queued
from tests.integration.content import Answer, Open, Site, site_on
from tests.waiting import wait_until

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
LAST_SECOND = datetime(2026, 3, 10, 23, 59, 59, tzinfo=UTC)
VIEW = "/api/track/view"
STORY = "/api/stories/s1/view"
OTHER = "198.51.100.9"


@pytest.fixture(params=[True, False], ids=["redis", "database"])
def through_redis(request: pytest.FixtureRequest) -> bool:
    """Whether views go through Redis, or straight to the database."""
    return bool(request.param)


@pytest.fixture
def site(clock: FrozenDateTimeFactory, open_site: Open, through_redis: bool) -> Site:
    """A process on either store."""
    return open_site(redis_enabled=through_redis)


def book_view(site: Site, book: str = "b1", view_type: str = "card_view", **body: object) -> Answer:
    """A view of a book by a user of its own each time."""
    described = {"entity_type": "book", "entity_id": book, "view_type": view_type, **body}
    return site.track(VIEW, described, user=f"user-{uuid4()}")


# The window


def test_a_second_view_within_the_window_is_a_repeat_and_the_window_rolls_from_the_first(
    site: Site, clock: FrozenDateTimeFactory
) -> None:
    assert site.story() == (True, 1, "counted")
    assert site.story() == (False, 1, "repeat")
    clock.move_to(NOW + timedelta(hours=24, milliseconds=-1))
    assert site.story() == (False, 1, "repeat")
    clock.move_to(NOW + timedelta(hours=24))
    assert site.story() == (True, 2, "counted")
    site.write()
    assert site.outcomes() == ["counted", "counted", "repeat", "repeat"]
    assert site.counters() == {("story", "s1", "intentional"): 2}


def test_the_window_goes_on_across_midnight(site: Site, clock: FrozenDateTimeFactory) -> None:
    clock.move_to(LAST_SECOND)
    assert site.story() == (True, 1, "counted")
    clock.move_to(LAST_SECOND + timedelta(seconds=2))
    assert site.story() == (False, 1, "repeat")
    site.write()
    clock.move_to(LAST_SECOND + timedelta(hours=23, minutes=59))
    assert site.story() == (False, 1, "repeat")
    clock.move_to(LAST_SECOND + timedelta(hours=24))
    assert site.story() == (True, 2, "counted")
    site.write()
    assert site.counters() == {("story", "s1", "intentional"): 2}


@pytest.mark.parametrize(
    ("hours", "seconds"), [("24", 86_400), ("1", 3_600), ("0.25", 900), ("0.0005", 1.8), ("0.000001", 1)]
)
def test_row_11_the_window_is_as_many_hours_as_are_set_also_a_fraction(
    clock: FrozenDateTimeFactory, open_site: Open, through_redis: bool, hours: str, seconds: float
) -> None:
    window = make_settings(VIEW_DEDUP_TTL_HOURS=hours).dedup_window
    assert window == timedelta(seconds=seconds)
    site = open_site(redis_enabled=through_redis, dedup_window=window)
    assert site.story()[0]
    clock.tick(seconds - 0.001)
    assert not site.story()[0]
    clock.tick(0.001)
    assert site.story() == (True, 2, "counted")


@pytest.mark.parametrize("hours", ["0", "0.0", "-1", "25", "24.1", "x", "nan", "1e-3", "1 "])
def test_row_11_a_window_of_no_length_or_of_more_than_a_day_is_refused_by_name(hours: str) -> None:
    with pytest.raises(SettingsError, match="VIEW_DEDUP_TTL_HOURS"):
        make_settings(VIEW_DEDUP_TTL_HOURS=hours)


def test_types_without_a_window_count_every_view(site: Site) -> None:
    bodies = [{"entity_type": kind, "entity_id": "x"} for kind in ("post", "blog_post", "resource", "course")]
    for body in bodies:
        answers = [site.track(VIEW, body).body for _ in range(2)]
        assert [(one["first_view"], one["view_count"]) for one in answers] == [(True, 1), (True, 2)]


# Viewers


def test_viewers_are_told_apart_by_user_else_by_address_and_browser(site: Site) -> None:
    assert site.story() == (True, 1, "counted")
    assert site.story(address=OTHER) == (True, 2, "counted")
    assert site.story(agent="Mozilla/5.0 (another browser)") == (True, 3, "counted")
    assert site.story(user="ann") == (True, 4, "counted")
    assert site.story(user="bob") == (True, 5, "counted")
    assert site.story(user="ann", address=OTHER, agent="Mozilla/5.0 (her phone)") == (False, 5, "repeat")
    assert site.story("s2") == (True, 1, "counted")


def test_viewers_who_ask_not_to_be_kept_have_a_window_and_no_visitor(site: Site) -> None:
    for header in ({"Sec-GPC": "1"}, {"DNT": "1"}):
        name = f"s-{next(iter(header))}"
        assert site.story(name, headers=header) == (True, 1, "counted")
        assert site.story(name, headers=header) == (False, 1, "repeat")
        assert site.story(name, user="ann", headers=header) == (True, 2, "counted")
    site.write()
    assert site.rows("SELECT DISTINCT visitor FROM view_events") == [(None,)]


def test_a_viewer_without_an_address_has_no_window(site: Site) -> None:
    assert site.story(address="") == (True, 1, "counted")
    assert site.story(address="") == (True, 2, "counted")


def test_bots_are_kept_and_neither_counted_nor_in_anybodys_window(site: Site) -> None:
    assert site.story(agent="Googlebot/2.1") == (False, 0, "bot")
    assert site.story() == (True, 1, "counted")
    assert site.story(agent="Googlebot/2.1") == (False, 1, "bot")
    site.write()
    assert site.outcomes() == ["bot", "bot", "counted"]
    assert site.counters() == {("story", "s1", "intentional"): 1}


OWN_VIEWS_COUNT = {
    **dict.fromkeys(("page", "book", "resource", "course"), "counted"),
    **dict.fromkeys(("post", "blog_post", "story", "chapter"), "own"),
}


@pytest.mark.parametrize(("kind", "outcome"), OWN_VIEWS_COUNT.items(), ids=OWN_VIEWS_COUNT)
def test_row_19_the_owners_views_are_own_where_the_type_says_so(site: Site, kind: str, outcome: str) -> None:
    name = "/p" if kind == "page" else "x"
    site.tell(f"{kind}?path=/p" if kind == "page" else f"{kind}/x", owner_id="ann")
    body = {"entity_type": kind, "entity_id": name}
    first, second = site.track(VIEW, body, user="ann"), site.track(VIEW, body, user="ann")
    assert first.outcome == second.outcome == first.body["outcome"] == outcome
    assert first.body["counted"] == first.body["first_view"] == (outcome == "counted")
    assert site.track(VIEW, body, user="bob").outcome == "counted"
    site.write()
    assert sum(site.counters().values()) == (3 if outcome == "counted" else 1)


def test_an_owner_who_is_no_longer_one_is_a_viewer_like_others(site: Site) -> None:
    site.tell("story/s1", owner_id="ann")
    assert site.story(user="ann") == (False, 0, "own")
    site.tell("story/s1", owner_id="bob")
    assert site.story(user="ann") == (True, 1, "counted")
    assert site.story(user="bob") == (False, 1, "own")
    site.tell("story/s1", owner_id=None)
    assert site.story(user="bob") == (True, 2, "counted")


# Retries


def retried(site: Site, url: str, first: Mapping[str, object], **who: Any) -> Answer:
    """The answer to a request sent twice in a row, twice after it was written, others between."""
    answer = site.track(url, first, **who)
    assert site.track(url, first, **who) == answer
    site.track(url, {**first, "id": str(uuid4())}, **{**who, "address": OTHER})
    assert site.track(url, first, **who) == answer
    site.write()
    assert site.track(url, first, **who) == answer
    site.write()
    assert site.track(url, first, **who) == answer
    return answer


@pytest.mark.parametrize("make_id", [uuid4, lambda: uuid7(NOW)], ids=["v4", "v7"])
def test_a_request_sent_again_gets_the_first_answer_and_changes_nothing(
    site: Site, make_id: Callable[[], object]
) -> None:
    answer = retried(site, STORY, {"id": str(make_id())})
    assert answer == Answer(200, "counted", {"isFirstView": True, "viewCount": 1})
    body = {"entity_type": "post", "entity_id": "p", "id": str(make_id())}
    assert retried(site, VIEW, body).body["view_count"] == 1
    site.write()
    assert site.counters() == {("story", "s1", "intentional"): 2, ("post", "p", "intentional"): 2}
    assert site.outcomes() == ["counted"] * 4


def test_a_repeat_an_own_view_and_a_bots_sent_again_stay_what_they_were(
    site: Site, clock: FrozenDateTimeFactory
) -> None:
    site.tell("story/s1", owner_id="ann")
    site.story()
    ids = {outcome: str(uuid4()) for outcome in ("repeat", "own", "bot")}
    who: dict[str, dict[str, Any]] = {"repeat": {}, "own": {"user": "ann"}, "bot": {"agent": "Googlebot/2.1"}}
    for outcome, view_id in ids.items():
        assert site.story(id=view_id, **who[outcome]) == (False, 1, outcome)
    site.tell("story/s1", owner_id="bob")
    clock.tick(timedelta(hours=23, minutes=59))
    for outcome, view_id in ids.items():
        assert site.story(id=view_id, **who[outcome]) == (False, 1, outcome)
    site.write()
    assert site.outcomes() == ["bot", "counted", "own", "repeat"]


def test_a_request_sent_again_after_midnight_is_counted_once_on_the_day_of_its_id(
    site: Site, clock: FrozenDateTimeFactory
) -> None:
    clock.move_to(LAST_SECOND)
    bodies: list[tuple[str, dict[str, object]]] = [
        (STORY, {"id": str(uuid7(LAST_SECOND))}),
        (VIEW, {"entity_type": "post", "entity_id": "p", "id": str(uuid7(LAST_SECOND))}),
    ]
    answers = [site.track(url, body) for url, body in bodies]
    clock.move_to(LAST_SECOND + timedelta(seconds=2))
    assert [site.track(url, body) for url, body in bodies] == answers
    site.write()
    clock.move_to(LAST_SECOND + timedelta(hours=23))
    assert [site.track(url, body) for url, body in bodies] == answers
    site.write()
    assert site.rows("SELECT day FROM view_events") == [(date(2026, 3, 10),)] * 2
    assert sorted(site.counters().values()) == [1, 1]


def test_a_view_held_back_for_hours_is_of_its_day_and_in_the_window_of_now(
    site: Site, clock: FrozenDateTimeFactory
) -> None:
    clock.move_to(NOW + timedelta(hours=20))
    late = {"id": str(uuid7(NOW))}
    assert site.track(STORY, late).outcome == "counted"
    clock.move_to(NOW + timedelta(hours=43))
    assert site.story() == (False, 1, "repeat")
    site.write()
    days = site.rows(f"SELECT outcome, day::text FROM {EVENTS} AS v ORDER BY 1")
    assert days == [("counted", "2026-03-10"), ("repeat", "2026-03-12")]


def test_one_id_is_one_view_also_of_another_entity(site: Site) -> None:
    """The database keeps one event of an id: what is shown and answered must say the same."""
    view_id = str(uuid7(NOW))
    assert site.track("/api/stories/s1/view", {"id": view_id}).outcome == "counted"
    site.track("/api/chapters/c1/view", {"id": view_id})
    site.write()
    assert site.counters() == {("story", "s1", "intentional"): 1}
    assert site.story("s1", id=str(uuid4()))[1] == 1
    chapter = site.track("/api/chapters/c1/view", user="ann")
    assert chapter.body["viewCount"] == 1


# From one store to the other


@pytest.mark.parametrize("is_written", [True, False], ids=["written", "queued"])
def test_a_request_sent_again_without_redis_and_again_with_it_is_counted_once(
    clock: FrozenDateTimeFactory, open_site: Open, is_written: bool
) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    view_id = str(uuid7(NOW))
    first = with_redis.story(id=view_id)
    assert first == (True, 1, "counted")
    if is_written:
        with_redis.write()
    assert without.story(id=view_id) == first
    assert with_redis.story(id=view_id) == first
    with_redis.write()
    assert without.story(id=view_id) == first
    assert with_redis.counters() == {("story", "s1", "intentional"): 1}
    assert with_redis.story(address=OTHER) == (True, 2, "counted")


def test_what_was_no_view_through_redis_is_none_when_it_is_sent_again_without(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    with_redis.tell("story/s1", owner_id="ann")
    own, repeat = str(uuid4()), str(uuid4())
    assert with_redis.story(user="ann", id=own) == (False, 0, "own")
    with_redis.story()
    assert with_redis.story(id=repeat) == (False, 1, "repeat")
    with_redis.write()
    with_redis.tell("story/s1", owner_id="bob")
    assert without.story(user="ann", id=own)[::2] == (False, "own")
    assert without.story(id=repeat) == (False, 1, "repeat")
    assert with_redis.outcomes() == ["counted", "own", "repeat"]


def test_a_request_sent_again_with_redis_after_it_was_taken_without_is_counted_once(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    without = open_site(redis_enabled=False)
    view_id, post = str(uuid7(NOW)), {"entity_type": "post", "entity_id": "p", "id": str(uuid7(NOW))}
    first, first_of_post = without.story(id=view_id), without.track(VIEW, post)
    repeat_id = str(uuid4())
    assert without.story(id=repeat_id) == (False, 1, "repeat")
    with_redis = open_site()
    assert with_redis.story(id=view_id) == first == (True, 1, "counted")
    assert with_redis.track(VIEW, post) == first_of_post
    assert with_redis.story(id=repeat_id) == (False, 1, "repeat")
    assert with_redis.story() == (False, 1, "repeat")
    assert with_redis.story(address=OTHER) == (True, 2, "counted")
    with_redis.write()
    assert with_redis.counters() == {("story", "s1", "intentional"): 2, ("post", "p", "intentional"): 1}
    assert without.story(address=OTHER) == (False, 2, "repeat")


def test_a_request_that_crosses_midnight_and_the_stores_is_counted_once(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    clock.move_to(LAST_SECOND)
    with_redis, without = open_site(), open_site(redis_enabled=False)
    view_id = str(uuid7(LAST_SECOND))
    assert with_redis.story(id=view_id) == (True, 1, "counted")
    clock.move_to(LAST_SECOND + timedelta(seconds=2))
    with_redis.write()
    assert without.story(id=view_id) == (True, 1, "counted")
    assert without.story() == (False, 1, "repeat")
    assert with_redis.story(id=view_id) == (True, 1, "counted")
    with_redis.write()
    assert with_redis.counters() == {("story", "s1", "intentional"): 1}


def test_the_window_is_the_same_in_both_stores_once_a_view_is_written(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    with_redis.story(user="ann")
    with_redis.write()
    assert without.story(user="ann") == (False, 1, "repeat")
    clock.move_to(NOW + timedelta(hours=24))
    assert without.story(user="ann") == (True, 2, "counted")


class OwnRedis:
    """A Redis that a test may stop."""

    def __init__(self, folder: Path) -> None:
        self.server = embedded.Redis(folder / "redis", embedded.socket_folder(folder), folder / "redis.log")
        self.process = self.server.start()

    def stop(self) -> None:
        self.server.stop(self.process)

    def start(self) -> None:
        self.process = self.server.start()


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-redis-", dir="/tmp"))
    server = OwnRedis(folder)
    yield server
    server.stop()
    rmtree(folder)


@contextmanager
def site_of(own_redis: OwnRedis, settings: Settings, engine: Engine) -> Iterator[Site]:
    """A process in front of a Redis of its own."""
    there = replace(settings, redis_url=own_redis.server.url)
    client = stream.connect(there)
    with site_on(there, engine, client) as site:
        yield site
    client.close()


def parts(site: Site) -> Any:
    """The process' own clients."""
    return site.client.application.extensions[KEY]


def test_while_redis_is_away_views_go_to_the_database_and_come_back_by_themselves(
    settings: Settings,
    engine: Engine,
    own_redis: OwnRedis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(acceptance, "COUNTS_REFUSED_SECONDS", 3600.0)  # however long the views take
    ids = {name: str(uuid7(datetime.now(UTC))) for name in ("before", "between", "after")}
    with site_of(own_redis, settings, engine) as site:
        assert site.story(id=ids["before"], user="ann") == (True, 1, "counted")
        assert book_view(site).body["view_count"] == 1
        own_redis.stop()

        # taken without Redis: once under its id, in the window of the viewer
        assert site.story(id=ids["before"], user="ann") == (True, 1, "counted")
        assert site.story(id=ids["between"], user="bob") == (True, 2, "counted")
        assert site.story(user="bob") == (False, 2, "repeat")
        assert [book_view(site).body["view_count"] for _ in range(3)][-1] == 3
        assert site.client.get("/api/books/b1/stats").status_code == 503
        monkeypatch.setattr(acceptance, "COUNTS_REFUSED_SECONDS", 0.0)
        assert site.client.get("/api/books/b1/stats").status_code == 200
        assert site.shown("b1") == {"card_view": 3}
        warnings = [one.message for one in caplog.records if "Redis is away" in one.message]
        assert len(warnings) == 1
        assert parts(site).acceptance.fallback_views == 6

        own_redis.start()
        wait_until(lambda: is_taken_by_redis(site))

        # what was answered, seen and shown meanwhile still holds, before the next tick
        assert site.story(id=ids["before"], user="ann") == (True, 1, "counted")
        assert site.story(id=ids["between"], user="bob") == (True, 2, "counted")
        assert site.story(user="bob")[::2] == (False, "repeat")
        assert site.shown("b1") == {"card_view": 3}, "what was shown fell when Redis came back"
        assert site.story(id=ids["after"], user="cat")[::2] == (True, "counted")

        site.write()
        assert site.counters() == {("story", "s1", "intentional"): 3, ("book", "b1", "card_view"): 4}
        assert site.shown("b1") == {"card_view": 4}
        assert site.story(user="bob") == (False, 3, "repeat")


def is_taken_by_redis(site: Site) -> bool:
    """Whether another event, a bot's, goes through the queue."""
    before = site.redis.xlen(stream.STREAM_KEY)
    site.story(agent="Googlebot/2.1")
    return site.redis.xlen(stream.STREAM_KEY) > before


def test_a_redis_that_is_killed_while_views_come_in_loses_and_doubles_nothing(
    settings: Settings, engine: Engine, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(acceptance, "COUNTS_REFUSED_SECONDS", 0.0)
    half = Event()
    with site_of(own_redis, settings, engine) as site:

        def view(number: int) -> int:
            if number == 60:
                half.set()
            return book_view(site, id=str(uuid7(datetime.now(UTC)))).status

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(view, number) for number in range(200)]
            half.wait()
            own_redis.process.kill()
            own_redis.process.wait()
            own_redis.start()
            statuses = [one.result() for one in running]
        answered = statuses.count(200)
        assert answered > 100
        wait_until(lambda: is_taken_by_redis(site))
        site.write()
        ((count,),) = [tuple(site.counters().values())]
        assert answered <= count <= 200
        assert site.rows(f"SELECT count(*) FROM {EVENTS} AS v WHERE outcome = 'counted'") == [(count,)]
        assert site.shown("b1") == {"card_view": count}


# Counts


def test_counts_never_fall_and_are_the_databases_when_nothing_is_queued(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    shown = 0
    for step in range(30):
        book_view(without if step % 3 == 2 else with_redis, view_type=f"type_{step % 4}")
        if step % 5 == 4:
            with_redis.write()
            stored = {view_type: n for (_, _, view_type), n in with_redis.counters().items()}
            assert with_redis.shown("b1") == stored
            assert sum(stored.values()) == step + 1
        now_shown = sum(with_redis.shown("b1").values())
        assert now_shown >= shown, "a count fell"
        assert now_shown <= step + 1, "more than there were views"
        shown = now_shown
    assert shown == 30


def test_what_was_counted_without_redis_is_shown_after_the_next_tick(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    book_view(with_redis)
    with_redis.write()
    for _ in range(4):
        book_view(without)
    assert with_redis.shown("b1") == {"card_view": 1}
    assert with_redis.rows("SELECT count(*) FROM shown_behind") == [(1,)]
    with_redis.write()
    assert with_redis.shown("b1") == {"card_view": 5}
    assert with_redis.rows("SELECT count(*) FROM shown_behind") == [(0,)]


def test_a_count_that_is_raised_while_a_tick_looks_is_not_forgotten(
    clock: FrozenDateTimeFactory, open_site: Open, engine: Engine, redis: Redis
) -> None:
    """The tick takes a note that stands already while another view of the same counter is being written."""
    with_redis, without = open_site(), open_site(redis_enabled=False)
    book_view(with_redis)
    with_redis.write()
    book_view(without)
    noted, go_on = Event(), Event()

    @event.listens_for(parts(without).engine, "after_cursor_execute")
    def pause(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO shown_behind" in statement:
            noted.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(2) as pool:
        view = pool.submit(book_view, without)
        assert noted.wait(20)
        tick = pool.submit(counts.raise_behind, engine, redis)
        wait([tick], timeout=0.5)
        go_on.set()
        assert view.result().status == 200
        tick.result()
    with_redis.write()
    assert with_redis.counters() == {("book", "b1", "card_view"): 3}
    assert with_redis.shown("b1") == {"card_view": 3}


def test_counts_are_raised_when_redis_came_back_with_older_data(
    clock: FrozenDateTimeFactory, open_site: Open, redis: Redis
) -> None:
    site = open_site()
    for _ in range(3):
        book_view(site)
    book_view(site, "b2")
    site.write()
    redis.hset(keys.count("book", "b1"), "card_view", 1)
    redis.delete(keys.count("book", "b2"))
    site.write()
    assert site.shown("b1") == {"card_view": 1}, "nothing says yet that Redis is another"
    redis.set(keys.RUN, "another run")
    site.write()
    assert site.shown("b1") == {"card_view": 3}
    assert site.shown("b2") == {"card_view": 1}
    assert book_view(site).body["view_count"] == 4


def test_a_count_that_redis_has_lost_is_the_databases(
    clock: FrozenDateTimeFactory, open_site: Open, redis: Redis
) -> None:
    site = open_site()
    for _ in range(2):
        book_view(site)
    site.write()
    redis.flushall()
    assert site.shown("b1") == {"card_view": 2}
    assert book_view(site).body["view_count"] == 3
    site.write()
    assert site.shown("b1") == {"card_view": 3}


def test_row_7_a_counter_says_when_it_was_first_and_last_viewed_and_changed(
    site: Site, clock: FrozenDateTimeFactory
) -> None:
    hours = timedelta(hours=1)
    book_view(site)
    site.write()
    clock.move_to(NOW + 2 * hours)
    book_view(site)
    book_view(site, view_type="reader_open")
    site.write()
    clock.move_to(NOW + 5 * hours)
    book_view(site, id=str(uuid7(NOW - hours)))
    site.write()
    found = site.rows(
        "SELECT view_type, count, first_viewed_at, last_viewed_at, created_at, updated_at"
        " FROM view_counters ORDER BY view_type"
    )
    late = NOW + 2 * hours
    assert found == [
        ("card_view", 3, NOW - hours, late, NOW, NOW + 5 * hours),
        ("reader_open", 1, late, late, late, late),
    ]


def test_a_counter_is_what_was_sealed_and_the_raw_rows(
    site: Site, clock: FrozenDateTimeFactory, engine: Engine, redis: Redis
) -> None:
    for _ in range(3):
        book_view(site)
    site.story()
    site.story()
    site.write()
    later = NOW + timedelta(days=8)
    rollup.roll_up_closed_days(engine, site_day(later, UTC), later)
    clock.move_to(later)
    assert site.story() == (True, 2, "counted")
    book_view(site)
    site.write()
    assert retention.drop_expired(engine, redis, site.settings, later) == [NOW.date()]
    found = site.rows(
        f"SELECT entity_type, count, sealed, (SELECT count(*) FROM {EVENTS} AS v"
        " WHERE v.entity_id = c.entity_id AND v.outcome = 'counted')"
        " FROM view_counters c JOIN entities e ON e.id = c.entity_id ORDER BY 1"
    )
    assert found == [("book", 4, 3, 1), ("story", 2, 1, 1)]
    assert site.shown("b1") == {"card_view": 4}
    assert book_view(site).body["view_count"] == 5


# Caps


def test_an_entity_has_at_most_50_view_types(site: Site) -> None:
    for number in range(50):
        assert book_view(site, view_type=f"type_{number}").status == 200
    refused = site.send(VIEW, {"entity_type": "book", "entity_id": "b1", "view_type": "more"}, user="ann")
    assert (refused.status_code, refused.json and refused.json["code"]) == (429, "limited")
    assert int(refused.headers["Retry-After"]) > 0
    assert "X-View-Outcome" not in refused.headers
    site.write()
    assert book_view(site, view_type="more").status == 429
    assert book_view(site, view_type="type_49").body["view_count"] == 51
    assert book_view(site, "b2", view_type="more").status == 200
    site.write()
    assert len(site.counters()) == 51
    assert sum(site.counters().values()) == 52


def test_a_view_types_cap_holds_when_redis_does_not_know_the_types_yet(
    clock: FrozenDateTimeFactory, open_site: Open
) -> None:
    without = open_site(redis_enabled=False)
    for number in range(50):
        book_view(without, view_type=f"type_{number}")
    with_redis = open_site()
    assert book_view(with_redis, view_type="more").status == 429
    assert book_view(with_redis, view_type="type_0").body["view_count"] == 51


def test_a_batch_over_the_cap_of_view_types_costs_the_events_over_it(site: Site) -> None:
    events = [{"entity_type": "book", "entity_id": "b1", "view_type": f"type_{n}"} for n in range(52)]
    answer = site.batch(*events, {"entity_type": "book", "entity_id": "b1", "view_type": "type_0"})
    assert (answer["accepted"], answer["outcomes"]) == (51, {"counted": 51})
    assert [error["index"] for error in answer["errors"]] == [50, 51]
    site.write()
    assert len(site.counters()) == 50


def test_new_ids_over_the_days_cap_are_refused_and_known_ones_are_not(
    clock: FrozenDateTimeFactory, open_site: Open, through_redis: bool
) -> None:
    site = open_site(redis_enabled=through_redis, new_entities_per_day=2)
    for book in ("a", "b"):
        assert book_view(site, book).status == 200
    site.write()
    refused = book_view(site, "c")
    assert (refused.status, refused.outcome, refused.body["code"]) == (429, None, "limited")
    assert book_view(site, "a").body["view_count"] == 2
    assert site.track("/api/stories/s1/view").status == 200, "each type has a cap of its own"
    answer = site.batch(*({"entity_type": "book", "entity_id": name} for name in ("b", "c", "d")))
    assert (answer["accepted"], [error["index"] for error in answer["errors"]]) == (1, [1, 2])
    site.write()
    assert {name for kind, name, _ in site.counters() if kind == "book"} == {"a", "b"}
    clock.move_to(NOW + timedelta(days=1))
    assert book_view(site, "c").status == 200


# Batches


def test_a_batch_counts_an_id_that_stands_twice_in_it_once(site: Site) -> None:
    view_ids = [str(uuid7(NOW)) for _ in range(3)]
    story: dict[str, object] = {"entity_type": "story", "entity_id": "s1", "ip": OTHER}
    answer = site.batch(
        {"entity_type": "post", "entity_id": "p", "view_type": "listing", "id": view_ids[0]},
        {"entity_type": "page", "entity_id": "/p", "id": view_ids[1]},
        {"entity_type": "post", "entity_id": "p", "view_type": "listing", "id": view_ids[0]},
        {"entity_type": "page", "entity_id": "/p", "id": view_ids[1]},
        {**story, "id": view_ids[2]},
        {**story, "id": view_ids[2]},
        story,
        {"entity_type": "post", "entity_id": "p", "user_agent": "Googlebot/2.1"},
        {"entity_type": "post", "entity_id": "p", "view_type": "card_view"},
    )
    assert answer["outcomes"] == {"counted": 6, "repeat": 1, "bot": 1}
    assert (answer["accepted"], [error["index"] for error in answer["errors"]]) == (8, [8])
    site.write()
    assert site.outcomes() == ["bot", "counted", "counted", "counted", "repeat"]
    assert site.counters() == {
        ("post", "p", "listing"): 1,
        ("page", "/p", "intentional"): 1,
        ("story", "s1", "intentional"): 1,
    }
    assert site.story(address="192.0.2.200") == (True, 2, "counted")


def test_a_batch_sent_again_counts_nothing_twice(site: Site) -> None:
    events: list[dict[str, object]] = [
        {"entity_type": kind, "entity_id": name, "id": str(uuid7(NOW))}
        for kind, name in (("post", "p"), ("story", "s"), ("book", "b"), ("page", "/p")) * 10
    ]
    first = site.batch(*events)
    site.write()
    again = site.batch(*events)
    assert first["outcomes"] == again["outcomes"] == {"counted": 40}
    site.write()
    assert sorted(site.counters().values()) == [10, 10, 10, 10]


def test_events_of_both_stores_leave_balanced_tallies(clock: FrozenDateTimeFactory, open_site: Open) -> None:
    with_redis, without = open_site(), open_site(redis_enabled=False)
    view_id = str(uuid7(NOW))
    for site in (with_redis, without, with_redis, without):
        site.story(id=view_id)
        site.story(user="ann")
    with_redis.write()
    in_redis = with_redis.tallies()
    in_database = dict(with_redis.rows("SELECT name, amount FROM tallies"))
    settled = in_redis["settled"] + in_database["settled"]
    lost = in_redis.get("duplicates", 0) + in_database.get("duplicates", 0)
    assert settled == in_redis["accepted"] + in_database["accepted"]
    assert with_redis.rows("SELECT count(*) FROM view_events") == [(settled - lost,)]


def test_nothing_that_is_queued_names_the_viewer(clock: FrozenDateTimeFactory, open_site: Open) -> None:
    site = open_site()
    site.story(user="ann-the-viewer")
    (seen,) = queued(site.redis)
    names = b" ".join(cast("list[bytes]", site.redis.keys("*")))
    for trace in (b"ann-the-viewer", b"192.0.2.77", b"Firefox"):
        assert trace not in encode([seen]) + names


def test_row_8_one_counter_an_entity_and_view_type_by_a_named_constraint(site: Site) -> None:
    book_view(site)
    site.write()
    again = text(
        "INSERT INTO view_counters SELECT entity_id, view_type, 9, 0, first_viewed_at, last_viewed_at,"
        " created_at, updated_at FROM view_counters"
    )
    with site.engine.connect() as connection, pytest.raises(IntegrityError) as caught:
        connection.execute(again)
    assert "view_counters_entity_id_view_type_unique" in str(caught.value)
