"""Whoever has stores, salts and pepper finds nothing of a forgotten user, and the numbers still hold."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from threading import Event
from typing import Any, cast
from uuid import uuid4

import pytest
from click.testing import Result
from freezegun.api import FrozenDateTimeFactory
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy import event as sql_event

from footfall import (
    clock,
    counts,
    dead_letters,
    forget,
    ledger,
    retention,
    rollup,
    salts,
    stats,
    stream,
    verify,
    visitors,
)
from footfall.database import read_snapshot
from footfall.event import encode
from tests.factory import make_event, store
from tests.integration.api import SERVICE
from tests.integration.content import Site

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY, YESTERDAY = date(2026, 3, 10), date(2026, 3, 9)
BOOK, PAGE = ("book", "b1", "card_view"), ("page", "/one", "intentional")

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "WRITTEN_SECONDS", 0)


def views(site: Site, user: str | None, *, written: bool = True) -> None:
    """Pages, a book and stories, a repeat among them; some by two devices."""
    for agent in ("Mozilla/5.0 (a laptop)", "Mozilla/5.0 (a phone)"):
        assert site.send("/api/track/page-view", {"path": "/one"}, user=user, agent=agent).status_code == 204
    for story in ("s1", "s2", "s1"):
        site.story(story, user=user)
    if user:
        body = {"entity_type": "book", "entity_id": "b1", "view_type": "card_view"}
        site.track("/api/track/view", body, user=user)
    if written:
        site.write()


def told(site: Site, user: str, at: datetime) -> None:
    """A view that a server tells of, late."""
    page = {"entity_type": "page", "entity_id": "/told", "occurred_at": at.isoformat(), "user_id": user}
    assert site.batch(page)["accepted"] == 1
    site.write()


def traces_of(site: Site, user: str) -> set[str]:
    """What whoever has database and pepper would look for, as it stands in a dump."""
    with site.engine.connect() as connection:
        days = salts.kept(connection)
    names = [("story", f"s{n}") for n in range(5)]
    found: set[bytes] = set()
    for salt in days.values():
        key = visitors.day_key(site.settings.pepper, salt)
        visitor = visitors.visitor_of_user(key, user)
        slots = [visitors.slot(key, visitor, name) for name in names]
        found |= {str(visitor).encode(), *slots, *(slot.hex().encode() for slot in slots)}
    return {text for trace in found for text in (trace.hex(), trace.decode(errors="ignore")) if len(text) > 9}


def everything(site: Site) -> str:
    """All that is in both stores, but for the salts."""
    tables = site.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    parts = [
        str(row)
        for (table,) in tables
        if table != "salts"
        for row in site.rows(f"SELECT t::text FROM {table} t")
    ]
    readers: dict[bytes, Callable[[bytes], object]] = {
        b"string": site.redis.get,
        b"hash": site.redis.hgetall,
        b"stream": site.redis.xrange,
        b"zset": lambda key: site.redis.zrange(key, 0, -1),
        b"none": lambda key: None,  # it has expired since
    }
    for key in cast(list[bytes], site.redis.keys("*")):
        parts.append(f"{key!r} {readers[cast(bytes, site.redis.type(key))](key)!r}")
    return "\n".join(parts)


def found_of(site: Site, user: str) -> set[str]:
    """What is left of a user."""
    haystack = everything(site)
    return {trace for trace in traces_of(site, user) if trace in haystack}


def forget_user(site: Site, user: str, **options: Any) -> forget.Forgotten:
    return forget.forget_user(site.engine, site.redis, site.settings, user, **options)


def numbers(site: Site) -> dict[str, int]:
    """The site's figures of the last two days."""
    with read_snapshot(site.engine) as connection:
        answer = stats.sitewide_stats(connection, stats.Span.ending_today(2, clock.utc_now(), UTC))
    return {
        name: answer[name]
        for name in ("total_page_views", "total_page_views_authenticated", "visitor_days")
        if name in answer
    }


def tallies(site: Site) -> list[dict[str, Any]]:
    with read_snapshot(site.engine) as connection:
        return ledger.ledger(connection, site.redis, [YESTERDAY, TODAY], clock.utc_now(), UTC)


def nothing_differs(site: Site) -> bool:
    counts.raise_noted(site.engine, site.redis)
    rollup.catch_up(site.engine, TODAY, clock.utc_now())
    verdict = verify.audit(site.engine, site.redis, site.settings, clock.utc_now())
    return (verdict.differences, verdict.not_looked_at) == ([], [])


@pytest.mark.parametrize("is_rolled", [True, False], ids=["rolled", "raw"])
def test_nothing_of_a_forgotten_user_is_left_and_everything_still_adds_up(
    either: Site, clock: FrozenDateTimeFactory, is_rolled: bool
) -> None:
    clock.move_to(NOW - timedelta(hours=14))  # 22:00 of yesterday
    for user in ("ann", "bob", None):
        views(either, user)
    clock.move_to(NOW)
    for user in ("ann", "bob", None):
        views(either, user)
    told(either, "ann", NOW - timedelta(days=3))
    if is_rolled:
        rollup.catch_up(either.engine, TODAY, NOW)
    views(either, "ann", written=False)
    assert len(found_of(either, "ann")) >= 5, "the search would find what is there"
    of_bob = found_of(either, "bob")
    counters, before = either.counters(), numbers(either)

    forgotten = forget_user(either, "ann")
    assert found_of(either, "ann") == set()
    assert found_of(either, "bob") == of_bob
    assert forgotten.events == 3 * 6 + 1
    assert forgotten.slots >= 2
    assert {date(2026, 3, 7), YESTERDAY, TODAY} <= set(forgotten.days)

    # what was queued is written first; without Redis it was stored before
    late = 2 if either.settings.redis_enabled else 0
    counters[BOOK] += late // 2
    counters[PAGE] += late
    assert either.counters() == counters
    assert numbers(either)["total_page_views"] == before["total_page_views"] + late
    assert numbers(either)["visitor_days"] == before["visitor_days"] - 2, "ann, on each day"
    assert all(line["balanced"] for line in tallies(either))
    signed_in = either.rows("SELECT count(*) FROM view_events WHERE authenticated AND visitor IS NULL")
    assert signed_in == [(forgotten.events,)], "it stays true that somebody was signed in"
    assert nothing_differs(either)
    assert found_of(either, "ann") == set(), "the next rollup brings nobody back"

    again = forget_user(either, "ann")
    assert (again.events, again.slots, again.dead_letters) == (0, 0, 0)


def test_a_forgotten_user_who_comes_back_is_new_and_the_others_are_not(site: Site) -> None:
    for user in ("ann", "bob"):
        assert site.story("s1", user=user)[0]
        assert not site.story("s1", user=user)[0]
    site.write()
    rollup.catch_up(site.engine, TODAY, NOW)
    forget_user(site, "ann")
    assert site.story("s1", user="ann") == (True, 3, "counted")
    assert site.story("s1", user="bob") == (False, 3, "repeat")
    site.write()
    assert nothing_differs(site)
    rows = site.rows("SELECT unique_viewers, views FROM daily_stats JOIN entities ON id = entity_id"
                     " WHERE external_id = 's1'")  # fmt: skip
    assert rows == [(2, 3)], "bob, and ann as somebody new"


def test_a_user_who_asked_not_to_be_kept_has_slots_only_and_these_go(site: Site) -> None:
    site.story("s1", user="ann", headers={"Sec-GPC": "1"})
    site.write()
    assert found_of(site, "ann")
    assert forget_user(site, "ann").events == 0
    assert found_of(site, "ann") == set()


def test_the_days_whose_salt_is_gone_are_left_as_they_are(site: Site, clock: FrozenDateTimeFactory) -> None:
    views(site, "ann")
    before = site.rows("SELECT visitor FROM view_events ORDER BY id")
    clock.move_to(NOW + timedelta(days=3))
    retention.turn_days(site.engine, site.settings, NOW + timedelta(days=3))
    forgotten = forget_user(site, "ann")
    assert TODAY not in forgotten.days
    assert (forgotten.events, forgotten.slots) == (0, 0)
    assert site.rows("SELECT visitor FROM view_events ORDER BY id") == before


def refused(site: Site) -> None:
    with site.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE view_events ADD CONSTRAINT nobody CHECK (visitor IS NULL) NOT VALID")
        )


def allowed(site: Site) -> None:
    with site.engine.begin() as connection:
        connection.execute(text("ALTER TABLE view_events DROP CONSTRAINT IF EXISTS nobody"))


def test_dead_letters_forget_too(site: Site) -> None:
    site.send("/api/track/page-view", {"path": "/"})
    site.write()
    refused(site)
    try:
        views(site, "ann")
        views(site, "bob")
        assert found_of(site, "ann")
        forgotten = forget_user(site, "ann")
        assert (forgotten.dead_letters, forgotten.unreadable) == (6, [])
        assert found_of(site, "ann") == set()
        assert found_of(site, "bob")
    finally:
        allowed(site)
    with site.engine.connect() as connection:
        ids = dead_letters.ids(connection)
    assert len(ids) == 12
    assert sum(one.fates["row"] for one in dead_letters.replay(site.engine, site.settings, ids, NOW)) == 12
    assert found_of(site, "ann") == set()
    assert nothing_differs(site)


def test_a_dead_letter_that_nobody_can_read_is_named(site: Site) -> None:
    site.story("s1", user="ann")  # so that there is a salt
    with site.engine.connect() as connection:
        key = visitors.day_key(site.settings.pepper, salts.kept(connection)[TODAY])
    ann, bob = (visitors.visitor_of_user(key, user) for user in ("ann", "bob"))
    slot = visitors.slot(key, ann, ("story", "s1"))
    events = [
        make_event(site.settings, NOW, visitor=bob),
        make_event(site.settings, NOW, visitor=ann),
        make_event(site.settings, NOW, visitor=None, slot=slot, slot_ends_at=NOW),
    ]
    for one in events:
        site.redis.xadd(stream.STREAM_KEY, {stream.FIELD: encode([one]).replace(b"[1,", b"[7,", 1)})
    site.write()
    assert forget_user(site, "ann").unreadable == [2, 3]
    assert [letter.reason for letter in _letters(site)] == ["unreadable"] * 3


def _letters(site: Site) -> list[Any]:
    with site.engine.connect() as connection:
        return list(dead_letters.listed(connection))


def test_who_was_counted_with_a_forgotten_user_is_still_known_as_before(site: Site) -> None:
    """Visitors are kept by the hundred, and those who were signed in once more by themselves."""
    site.story("s1", user="ann")
    with site.engine.connect() as connection:
        key = visitors.day_key(site.settings.pepper, salts.kept(connection)[TODAY])
    ann = visitors.visitor_of_user(key, "ann")
    near = {ann - 2: False, ann - 1: True, ann: True, ann + 1: False, ann + 2: True}
    events = [
        make_event(site.settings, NOW, visitor=visitor, authenticated=flag) for visitor, flag in near.items()
    ]
    store(site.engine, site.redis, site.settings, events)
    rollup.roll_up(site.engine, TODAY, NOW, keep_visitors=True)
    of_pages = "FROM seen_runs JOIN entities ON id = entity_id AND entity_type <> 'story'"
    runs = f"SELECT authenticated, first, visitors {of_pages} ORDER BY authenticated, entity_id"

    def expected() -> list[tuple[bool, int, list[int]]]:
        signed_in = [visitor for visitor, flag in near.items() if flag]
        both = ((False, list(near)), (True, signed_in))
        return [(flag, run[0], run) for flag, run in both for _ in ("the page", "the site")]

    assert site.rows(runs) == expected()
    forget_user(site, "ann")
    del near[ann]
    assert site.rows(runs) == expected()


def test_ownership_is_forgotten_only_when_asked(site: Site) -> None:
    site.tell("story/s1", owner_id="ann", title="Hers")
    site.tell("story/s2", owner_id="bob")
    assert forget_user(site, "ann").entities == 0
    assert site.tell("story/s1")["owner_id"] == "ann"
    assert forget_user(site, "ann", also_ownership=True).entities == 1
    assert (site.tell("story/s1")["owner_id"], site.tell("story/s1")["title"]) == (None, "Hers")
    assert site.tell("story/s2")["owner_id"] == "bob"


def test_a_rollup_that_is_running_is_waited_for_and_brings_nobody_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    views(site, "ann")
    inside, go_on, waiting = Event(), Event(), Event()
    real_sleep = time.sleep

    def hold(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO seen_runs" in statement and not inside.is_set():
            inside.set()
            assert go_on.wait(20)

    def sleep(seconds: float) -> None:
        waiting.set()
        real_sleep(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    sql_event.listen(site.engine, "before_cursor_execute", hold)
    with ThreadPoolExecutor(2) as pool:
        rolling = pool.submit(rollup.catch_up, site.engine, TODAY, NOW)
        assert inside.wait(20)
        forgetting = pool.submit(forget_user, site, "ann")
        has_waited = waiting.wait(5)
        go_on.set()
        rolling.result()
        assert forgetting.result().events == 6
    sql_event.remove(site.engine, "before_cursor_execute", hold)
    assert has_waited
    assert found_of(site, "ann") == set()
    assert nothing_differs(site)


def test_a_rollup_that_does_not_end_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    views(site, "ann")
    monkeypatch.setattr(rollup, "HOLD_OFF_TRIES", 2)
    monkeypatch.setattr(rollup, "HOLD_OFF_POLL_SECONDS", 0)
    with rollup.held_off(site.engine, [TODAY]), pytest.raises(Exception, match="being rolled up; try again"):
        forget_user(site, "ann")
    assert forget_user(site, "ann").events == 6


def test_views_that_come_while_a_user_is_forgotten_are_all_counted(site: Site) -> None:
    """By many users, ann among them: what was answered is stored, whoever is forgotten meanwhile."""
    done = Event()

    def send(user: str) -> int:
        sent = 0
        while not done.is_set():
            body = {"entity_type": "story", "entity_id": f"s{sent % 3}", "id": str(uuid4())}
            assert site.track("/api/track/view", body, user=user).status == 200
            site.write()
            rollup.catch_up(site.engine, TODAY, NOW)
            sent += 1
        return sent

    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send, user) for user in ("ann", "bob")]
        try:
            for _ in range(8):
                forget_user(site, "ann")
        finally:
            done.set()
        sent = sum(sender.result() for sender in senders)
    site.write()
    forget_user(site, "ann")
    assert site.rows("SELECT count(*) FROM view_events") == [(sent,)]
    assert found_of(site, "ann") == set()
    assert nothing_differs(site)


@pytest.fixture
def run(footfall: Callable[..., Result]) -> Callable[..., Result]:
    """Calls the command for the tests' servers."""
    return partial(footfall, "forget")


def test_the_command_forgets_a_user(
    run: Callable[..., Result], site: Site, engine: Engine, redis: Redis
) -> None:
    views(site, "ann", written=False)
    site.tell("story/s9", owner_id="ann")
    result = run("--user", "ann", "--also-ownership")
    assert result.exit_code == 0, result.output
    assert "2026-03-09, 2026-03-10" in result.output
    assert "6 events are nobody's now" in result.output
    assert "1 entities have no owner now" in result.output
    assert found_of(site, "ann") == set()
    assert "0 events" in run("--user", "nobody").output
    assert run().exit_code == run("--user", "a", "--entity", "story/1").exit_code == 2
    assert run("--user", "").exit_code == 2
    assert run("--user", "ann", REDIS_URL="redis://127.0.0.1:1").exit_code == 1


def test_the_command_forgets_an_entity_as_a_deletion_does(run: Callable[..., Result], site: Site) -> None:
    for _ in range(2):
        views(site, "ann")
    rollup.catch_up(site.engine, TODAY, NOW)
    result = run("--entity", "story/s1")
    assert result.exit_code == 2
    assert "--yes" in result.output
    assert run("--entity", "story/s1", "--yes").exit_code == 0
    assert run("--entity", "page//one", "--yes").exit_code == 0
    assert site.left_of("story", "s1") == site.left_of("page", "/one") == {}
    assert site.left_of("story", "s2") != {}
    assert counts.shown(site.redis, ("story", "s1")) is None
    assert site.client.delete("/api/entities/story/s2", headers=SERVICE).status_code == 204
    assert all(line["balanced"] for line in tallies(site))
    assert nothing_differs(site)
    for wrong, code in (("story/none", 1), ("story/", 2), ("none/1", 2), ("page/no-slash", 2), ("story", 2)):
        assert run("--entity", wrong, "--yes").exit_code == code, wrong
