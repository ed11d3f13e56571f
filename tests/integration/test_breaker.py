"""Acceptance in front of a Redis that is killed, paused, loading or full: views are taken, nobody waits."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry
from sqlalchemy import Engine, text

from footfall import acceptance, breaker, counts, entities, stream, writer
from footfall.acceptance import Acceptance
from footfall.cli import embedded
from footfall.clock import utc_now
from footfall.errors import Unavailable
from footfall.event import View
from footfall.ids import uuid7
from footfall.settings import Settings
from footfall.stream import Taken
from tests.factory import EVENTS, make_event
from tests.integration.own_redis import OwnRedis
from tests.waiting import wait_until

STORY = ("story", "s1")
TIMEOUT_SECONDS = 0.5  # instead of 5, which would make each pause long
AWAY_SECONDS = 0.2  # instead of 2
AWAY, BACK = "Redis is away, views go to the database", "Redis is back"


class Noting(Redis):
    """A client that notes when its commands began and ended; those of pipelines it does not."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands: list[tuple[float, float]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        start = time.monotonic()
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            self.commands.append((start, time.monotonic()))


@pytest.fixture
def redis(own: OwnRedis) -> Iterator[Redis]:
    """A client that is as impatient as the tests."""
    client = Redis.from_url(own.server.url, socket_timeout=TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0))
    yield client
    client.close()


@pytest.fixture
def door(
    engine: Engine, redis: Redis, settings: Settings, own: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> Acceptance:
    """One process' acceptance, which has already taken a view through Redis."""
    monkeypatch.setattr(breaker, "AWAY_SECONDS", AWAY_SECONDS)
    door = Acceptance(engine, redis, replace(settings, redis_url=own.server.url))
    take(door, story_view(settings, viewer=0))
    assert door.fallback_views == 0
    return door


def test_it_warns_once_for_each_time_that_redis_is_away_and_goes_back_by_itself(
    door: Acceptance, own: OwnRedis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "footfall")
    for outage in (1, 2):
        own.kill()
        deadline = time.monotonic() + 3 * AWAY_SECONDS
        while time.monotonic() < deadline:
            assert take(door, story_view(settings)).outcome == "counted"
        assert caplog.messages == [AWAY, BACK] * (outage - 1) + [AWAY]
        own.start()
        take_until_through_redis(door, settings)
        assert caplog.messages == [AWAY, BACK] * outage


def test_at_a_redis_that_does_not_answer_one_waits_and_nobody_else(
    engine: Engine, own: OwnRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "AWAY_SECONDS", AWAY_SECONDS)
    socket = str(own.server.socket)
    client = Noting(unix_socket_path=socket, socket_timeout=TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0))
    door = Acceptance(engine, client, settings)

    def take_many() -> int:
        deadline, taken = time.monotonic() + 5 * TIMEOUT_SECONDS, 0
        while time.monotonic() < deadline:
            take(door, story_view(settings))
            taken += 1
        return taken

    take(door, story_view(settings))
    with own.paused():
        assert seconds(lambda: take(door, story_view(settings))) > TIMEOUT_SECONDS  # who finds out
        client.commands.clear()
        with ThreadPoolExecutor(4) as pool:
            taken = [future.result() for future in [pool.submit(take_many) for _ in range(4)]]
    client.close()
    looks = sorted(client.commands)
    assert len(looks) >= 2, "somebody looks again and again"
    assert all(end < start for (_, end), (start, _) in pairwise(looks)), "two looked at once"
    assert sum(taken) > 10 * len(looks), "the others went on"


def test_counts_are_refused_at_once_while_redis_is_away_and_then_the_databases(
    door: Acceptance, own: OwnRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "COUNTS_REFUSED_SECONDS", 3600.0)
    take(door, story_view(settings))
    assert door.shown(STORY) == {"intentional": 2}
    own.kill()
    away_at = time.monotonic()
    for _ in range(10):
        assert shown_or_refused(door) is None
        take(door, story_view(settings))
    refused_seconds = time.monotonic() - away_at + 0.5
    monkeypatch.setattr(acceptance, "COUNTS_REFUSED_SECONDS", refused_seconds)
    wait_until(lambda: shown_or_refused(door) is not None)
    assert time.monotonic() - away_at >= refused_seconds
    assert door.shown(STORY) == {"intentional": 10}  # two are in the queue, where nobody can look


def test_what_was_taken_without_redis_is_known_to_it_before_it_is_used(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings
) -> None:
    write(engine, redis, settings)
    own.kill()
    first = story_view(settings, viewer=7)
    answer = take(door, first)
    assert (answer.outcome, answer.views) == ("counted", 2)
    others = [story_view(settings) for _ in range(3)]
    assert [take(door, view).views for view in others] == [3, 4, 5]
    own.start()
    take_until_through_redis(door, settings, viewer=7, outcome="repeat")
    assert door.shown(STORY) == {"intentional": 5}
    assert take(door, first) == Taken("retry", "counted", 2)
    assert take(door, others[0]) == Taken("retry", "counted", 3)
    assert take(door, story_view(settings)).views == 6


def test_a_view_that_is_being_written_while_somebody_goes_back_is_known_to_redis_too(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings
) -> None:
    own.kill()
    take(door, story_view(settings))
    slow = story_view(settings, viewer=7)
    with ThreadPoolExecutor(2) as pool:
        with engine.begin() as connection:
            connection.execute(entities.HOLD_OFF_WRITERS)
            answer = pool.submit(take, door, slow)
            wait_until(lambda: waits_for_a_lock(engine))
            own.start()
            time.sleep(AWAY_SECONDS)
            looking = pool.submit(take, door, story_view(settings))  # and written past Redis meanwhile
            wait_until(lambda: shown_or_refused(door) is not None)
            take(door, story_view(settings))
            assert redis.xlen(stream.STREAM_KEY) == 2
        looking.result()
        assert answer.result() == Taken("taken", "counted", answer.result().views)
    assert take(door, story_view(settings, viewer=7)).outcome == "repeat"
    assert redis.xlen(stream.STREAM_KEY) == 3
    assert take(door, slow).status == "retry"


def test_views_by_many_threads_while_redis_goes_and_comes_are_each_written_once(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings
) -> None:
    views = [story_view(settings, viewer=n) for n in range(1, 401)]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(take, door, view) for view in views]
        wait_until(answers[100].done)
        own.kill()
        wait_until(answers[150].done)
        own.start()
    assert Counter(answer.result().outcome for answer in answers) == {"counted": 400}
    assert 0 < door.fallback_views < 300
    take_until_through_redis(door, settings, viewer=1, outcome="repeat")
    write(engine, redis, settings)
    rows = stored(engine, f"SELECT id, entry < 0 FROM {EVENTS} AS v WHERE outcome = 'counted'")
    assert {view.event.id for view in views} < {event_id for event_id, _ in rows}
    assert len(rows) == 1 + len(views)
    assert {is_past_redis for _, is_past_redis in rows} == {True, False}
    assert stored(engine, "SELECT count FROM view_counters") == [(401,)]
    assert door.shown(STORY) == {"intentional": 401}


def test_a_redis_that_is_loading_its_data_is_away(
    door: Acceptance,
    redis: Redis,
    own: OwnRedis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for n in range(200):
        redis.set(f"something-{n}", os.urandom(100_000))  # it answers every 2 MB
    redis.bgrewriteaof()
    wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
    own.kill()
    slow = {**embedded.REDIS_SETTINGS, "key-load-delay": "10000"}  # microseconds
    monkeypatch.setattr(embedded, "REDIS_SETTINGS", slow)
    own.process = own.server.spawn()
    wait_until(lambda: is_loading(redis))
    for _ in range(3):
        assert take(door, story_view(settings)).outcome == "counted"
    # the first for certain; on a busy machine the loading may be over before the last
    assert 1 <= door.fallback_views <= 3
    take_until_through_redis(door, settings)
    assert [message for message in caplog.messages if message in {AWAY, BACK}] == [AWAY, BACK]


def test_a_redis_that_is_full_is_away_until_there_is_room(
    door: Acceptance, redis: Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A page's view leaves nothing that would have to be copied first, and a ping is always answered."""
    redis.config_set("maxmemory", "1")
    queued = redis.xlen(stream.STREAM_KEY)
    deadline = time.monotonic() + 5 * AWAY_SECONDS
    while time.monotonic() < deadline:
        assert take(door, View(make_event(settings, utc_now()))).outcome == "counted"
    assert redis.xlen(stream.STREAM_KEY) == queued
    assert [message for message in caplog.messages if message in {AWAY, BACK}] == [AWAY]
    redis.config_set("maxmemory", "0")
    take_until_through_redis(door, settings)


@pytest.mark.parametrize("has_clients_id", [True, False])
def test_a_view_that_redis_takes_after_all_is_stored_and_shown_once(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings, has_clients_id: bool
) -> None:
    """Its command waits at a Redis that is paused, while the view goes to the database."""
    view = story_view(settings, viewer=7)._replace(has_clients_id=has_clients_id)
    with own.paused():
        assert take(door, view).outcome == "counted"
    wait_until(lambda: redis.xlen(stream.STREAM_KEY) == 2)
    take_until_through_redis(door, settings, viewer=7, outcome="repeat")
    assert write(engine, redis, settings).fates["duplicate"] == 1
    assert stored(engine, "SELECT count FROM view_counters") == [(2,)]
    assert door.shown(STORY) == {"intentional": 2}


def test_a_view_that_redis_takes_after_its_count_was_raised_is_stored_once_and_shown_twice(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings
) -> None:
    """The one case of a count that is too high: the command was on its way for so long that a tick came
    between, and before the process went back to Redis.
    """
    late = story_view(settings, viewer=7)
    own.kill()
    take(door, late)
    own.start()
    write(engine, redis, settings)
    assert counts.shown(redis, STORY) == {"intentional": 2}
    assert stream.take(redis, [late], [None], utc_now())[0].status == "taken"
    assert write(engine, redis, settings).fates == {"duplicate": 1}
    assert stored(engine, "SELECT count FROM view_counters") == [(2,)]
    assert counts.shown(redis, STORY) == {"intentional": 3}


def test_a_view_that_redis_takes_after_the_process_went_back_changes_nothing(
    door: Acceptance, engine: Engine, redis: Redis, own: OwnRedis, settings: Settings
) -> None:
    late = story_view(settings, viewer=7)
    write(engine, redis, settings)
    own.kill()
    take(door, late)
    own.start()
    take_until_through_redis(door, settings, viewer=0, outcome="repeat")
    queued = redis.xlen(stream.STREAM_KEY)
    assert stream.take(redis, [late], [None], utc_now())[0].status == "retry"
    assert redis.xlen(stream.STREAM_KEY) == queued
    write(engine, redis, settings)
    assert counts.shown(redis, STORY) == {"intentional": 2}


def story_view(settings: Settings, viewer: int | None = None) -> View:
    """A new view of the story, by a viewer of its own unless one is given."""
    now = utc_now()
    event_id = uuid7(now)
    name = event_id.bytes if viewer is None else viewer.to_bytes(16, "big")
    event = make_event(
        settings,
        now,
        id=event_id,
        entity_type=STORY[0],
        external_id=STORY[1],
        slot=name,
        slot_ends_at=now + timedelta(hours=24),
    )
    return View(event, has_clients_id=True, slot_of_yesterday=b"yesterday" + name)


def take(door: Acceptance, view: View) -> Taken:
    (taken,) = door.take([view], utc_now())
    return taken


def take_until_through_redis(
    door: Acceptance, settings: Settings, viewer: int | None = None, outcome: str = "counted"
) -> None:
    """Send views until one of them does not go to the database."""

    def went_through() -> bool:
        before = door.fallback_views
        assert take(door, story_view(settings, viewer)).outcome == outcome
        return door.fallback_views == before

    wait_until(went_through)


def write(engine: Engine, redis: Redis, settings: Settings) -> writer.Written:
    """What the next tick does."""
    return writer.drain(engine, redis, settings, "test")


def stored(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def shown_or_refused(door: Acceptance) -> stream.Counts | None:
    try:
        return door.shown(STORY)
    except Unavailable:
        return None


def waits_for_a_lock(engine: Engine) -> bool:
    return bool(stored(engine, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


def is_loading(redis: Redis) -> bool:
    try:
        redis.ping()
    except BusyLoadingError:
        return True
    except RedisError:  # not there yet
        return False
    return False


def seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
