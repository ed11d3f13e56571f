"""Group commit: many requests, one step; each is answered once, and only for what is safe."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, text

from footfall import breaker, group_commit, stream, writer
from footfall.acceptance import Acceptance
from footfall.clock import utc_now
from footfall.database import make_engine
from footfall.errors import Limited, Unavailable
from footfall.event import View, decode
from footfall.group_commit import GroupCommit
from footfall.ids import uuid7
from footfall.settings import Settings
from footfall.stream import Taken
from tests.factory import make_event
from tests.integration.own_redis import OwnRedis
from tests.waiting import wait_for_growth, wait_until

TIMEOUT_SECONDS = 0.5  # instead of 5, which would make each pause long
Take = Callable[[Sequence[View], datetime], list[Taken]]


class Gate:
    """In front of a `take`: it can be shut, and notes the groups that come."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self.opened = threading.Event()
        self.groups: list[int] = []

    def take(self, views: Sequence[View], now: datetime) -> list[Taken]:
        """As the real one, once the gate is open."""
        self.groups.append(len(views))
        assert self.opened.wait(10)
        return self._take(views, now)


@pytest.fixture
def door(engine: Engine, redis: Redis, settings: Settings) -> Acceptance:
    """One process' acceptance."""
    return Acceptance(engine, redis, settings)


@pytest.fixture
def impatient(own: OwnRedis) -> Iterator[Redis]:
    """A client of a Redis that may be harmed."""
    client = Redis.from_url(own.server.url, socket_timeout=TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0))
    yield client
    client.close()


def page(settings: Settings, path: str = "/") -> View:
    now = utc_now()
    return View(make_event(settings, now, id=uuid7(now), external_id=path), has_clients_id=True)


def story(settings: Settings) -> View:
    now = utc_now()
    return View(make_event(settings, now, id=uuid7(now), entity_type="story", external_id="s1"), True)


def test_those_who_come_while_a_group_is_on_its_way_are_one_group_in_one_entry(
    door: Acceptance, redis: Redis, settings: Settings
) -> None:
    gate = Gate(door.take)
    group = GroupCommit(gate.take)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(group.take, page(settings), utc_now())
        wait_until(lambda: gate.groups)
        others = [pool.submit(group.take, page(settings), utc_now()) for _ in range(20)]
        wait_until(lambda: group.waiting == 20)
        gate.opened.set()
        assert [one.result().status for one in [first, *others]] == ["taken"] * 21
    assert gate.groups == [1, 20]
    entries = stream.entries_until(redis, stream.last_id(redis))
    assert [len(decode(entry.payload)) for entry in entries] == [1, 20]


def test_each_is_told_what_became_of_its_own_view(door: Acceptance, settings: Settings) -> None:
    gate = Gate(door.take)
    group = GroupCommit(gate.take)
    again = story(settings)
    views = [story(settings), page(settings), again, again, page(settings), story(settings)]
    with ThreadPoolExecutor(len(views)) as pool:
        answers = []
        for number, view in enumerate(views):  # one after the other, so that the order is known
            answers.append(pool.submit(group.take, view, utc_now()))
            wait_until(lambda number=number: gate.groups == [1] and group.waiting == number)  # type: ignore[misc]
        gate.opened.set()
        told = [answer.result() for answer in answers]
    assert [one.status for one in told] == ["taken", "taken", "taken", "retry", "taken", "taken"]
    assert [one.views for one in told] == [1, 0, 2, 2, 0, 3]


def test_a_count_that_cannot_be_read_is_nothing_to_those_who_came_with_it(
    door: Acceptance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = utc_now()
    assert door.take([story(settings)], now)[0].status == "taken"  # from here on Redis knows its count
    gone = make_engine(replace(settings, database_url="postgresql+psycopg2://nobody@/nothing?host=/nowhere"))
    monkeypatch.setattr(door, "_engine", gone)
    unknown = make_event(settings, now, id=uuid7(now), entity_type="story", external_id="s2")
    taken = door.take([story(settings), View(unknown), page(settings)], now)
    assert [one.status for one in taken] == ["taken", "unavailable", "taken"]
    with pytest.raises(Unavailable, match="counts"):
        GroupCommit(door.take).take(View(unknown), now)


def test_a_group_is_bounded(door: Acceptance, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MOST_VIEWS", 5)
    gate = Gate(door.take)
    group = GroupCommit(gate.take)
    with ThreadPoolExecutor(13) as pool:
        answers = [pool.submit(group.take, page(settings), utc_now())]
        wait_until(lambda: gate.groups)
        answers += [pool.submit(group.take, page(settings), utc_now()) for _ in range(12)]
        wait_until(lambda: group.waiting == 12)
        gate.opened.set()
        assert {answer.result().status for answer in answers} == {"taken"}
    assert gate.groups == [1, 5, 5, 2]


def test_when_no_store_takes_a_group_each_of_it_is_told_so(settings: Settings) -> None:
    def take(_: Sequence[View], __: datetime) -> list[Taken]:
        raise Unavailable("no store takes views now")

    gate = Gate(take)
    group = GroupCommit(gate.take)
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(group.take, page(settings), utc_now()) for _ in range(5)]
        wait_until(lambda: sum(gate.groups) + group.waiting == 5)
        gate.opened.set()
        assert [type(answer.exception()) for answer in answers] == [Unavailable] * 5
    gate.opened.set()
    with pytest.raises(Unavailable):
        group.take(page(settings), utc_now())  # and its thread lives on


def test_a_bug_that_one_view_finds_costs_the_others_nothing(
    door: Acceptance,
    engine: Engine,
    redis: Redis,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def take(views: Sequence[View], now: datetime) -> list[Taken]:
        taken = door.take(views, now)  # what was done before the bug is done
        if any(view.event.external_id == "/bug" for view in views):
            raise ZeroDivisionError
        return taken

    gate = Gate(take)
    group = GroupCommit(gate.take)
    views = [page(settings, path) for path in ("/a", "/b", "/bug", "/c")]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(group.take, view, utc_now()) for view in views]
        wait_until(lambda: sum(gate.groups) + group.waiting == 4)
        gate.opened.set()
        assert [type(answer.exception()) for answer in answers] == [
            type(None),
            type(None),
            ZeroDivisionError,
            type(None),
        ]
    assert "one by one" in caplog.text
    writer.drain(engine, redis, settings, "test")
    assert sorted(stored_ids(engine)) == sorted(view.event.id for view in views)


def test_who_is_refused_is_told_and_nobody_waits_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = GroupCommit(lambda views, _: [Taken("limited", "counted", 0) for _ in views])
    with pytest.raises(Limited):
        limited.take(page(settings), utc_now())
    monkeypatch.setattr(group_commit, "LONGEST_WAIT_SECONDS", 0.05)
    shut = Gate(lambda views, _: [Taken("taken", "counted", 0) for _ in views])
    with pytest.raises(Unavailable, match="too long"):
        GroupCommit(shut.take).take(page(settings), utc_now())
    shut.opened.set()


def test_under_load_everybody_is_answered_and_every_view_is_written_once(
    door: Acceptance, engine: Engine, redis: Redis, settings: Settings
) -> None:
    group = GroupCommit(door.take)
    views = [page(settings, f"/{number % 7}") for number in range(4_000)]
    with ThreadPoolExecutor(32) as pool:
        taken = list(pool.map(lambda view: group.take(view, utc_now()), views))
    assert {one.status for one in taken} == {"taken"}
    assert redis.xlen(stream.STREAM_KEY) < len(views) / 2, "they were taken together"
    writer.drain(engine, redis, settings, "test")
    assert sorted(stored_ids(engine)) == sorted(view.event.id for view in views)


@pytest.mark.parametrize("harm", ["paused", "killed"])
def test_with_redis_harmed_under_load_every_view_answered_is_written_once(
    harm: str,
    own: OwnRedis,
    impatient: Redis,
    engine: Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Redis that is paused answers late: what it says then must not pass for the next group's answer."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.1)
    door = Acceptance(engine, impatient, replace(settings, redis_url=own.server.url))
    group = GroupCommit(door.take)
    stop = threading.Event()
    sent: list[list[View]] = [[] for _ in range(8)]

    def send(mine: list[View]) -> None:
        while not stop.is_set():
            view = page(settings) if len(mine) % 3 else story(settings)
            assert group.take(view, utc_now()).status == "taken"
            mine.append(view)

    def answered() -> int:
        return sum(map(len, sent))

    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send, mine) for mine in sent]
        for _ in range(3):
            wait_for_growth(answered)
            if harm == "paused":
                with own.paused():
                    wait_for_growth(lambda: door.fallback_views)
            else:
                own.kill()
                wait_for_growth(lambda: door.fallback_views)
                own.start()
            wait_for_growth(lambda: impatient.xlen(stream.STREAM_KEY), by=5)
        stop.set()
        for sender in senders:
            sender.result()
    writer.drain(engine, impatient, settings, "test")
    views = [view for mine in sent for view in mine]
    assert len(views) > 300
    assert sorted(stored_ids(engine)) == sorted(view.event.id for view in views)
    assert impatient.xlen(stream.STREAM_KEY) == 0


def stored_ids(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM view_events")))
