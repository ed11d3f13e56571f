"""The writer: each event once, whatever happens between the queue and the commit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from freezegun import freeze_time
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from footfall import copying, stream, writer
from footfall.errors import Unavailable
from footfall.event import Unreadable, ViewEvent, encode, envelope, fields_of, plain_event
from footfall.settings import Settings
from tests.factory import EVENTS, make_event, store
from tests.waiting import transactions_waiting, wait_until

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("frozen")


@pytest.fixture
def frozen() -> Any:
    with freeze_time(NOW):
        yield


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def count(engine: Engine, table: str = "view_events") -> int:
    return int(rows(engine, f"SELECT count(*) FROM {table}")[0][0])


def tallies(redis: Redis) -> dict[str, int]:
    return {name.partition(":")[2]: amount for name, amount in stream.ledger(redis).items()}


def batch_of(settings: Settings, events: list[ViewEvent], entry: int = 1) -> list[writer.Incoming]:
    return [writer.Incoming(entry, position, event, b"") for position, event in enumerate(events)]


def test_every_field_of_an_event_is_stored(engine: Engine, redis: Redis, settings: Settings) -> None:
    sent = make_event(
        settings,
        NOW - timedelta(minutes=3),
        external_id="/a\\b\tc\nd é",
        country="DE",
        referrer_domain="example.org",
        visitor=-(2**63),
        authenticated=True,
        device="tablet",
        view_type="listing",
        view_source="widget",
    )
    store(engine, redis, settings, [sent])
    stored = rows(
        engine,
        "SELECT v.id, occurred_at, day, entity_type, external_id, view_type, view_source, outcome, device,"
        " country, referrer_domain, visitor, authenticated"
        f" FROM {EVENTS} AS v JOIN entities e ON e.id = v.entity_id",
    )
    assert [ViewEvent(*row) for row in stored] == [sent]


def test_an_entry_leaves_the_stream_when_it_is_written(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW) for _ in range(120)])
    assert stream.backlog(redis, NOW).entries == 0
    assert redis.xpending(stream.STREAM_KEY, stream.GROUP)["pending"] == 0
    assert tallies(redis) == {"accepted": 120, "settled": 120}


def test_the_same_id_twice_is_one_row_and_one_duplicate(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    one = make_event(settings, NOW)
    store(engine, redis, settings, [one, one])
    store(engine, redis, settings, [one])
    assert count(engine) == 1
    assert tallies(redis) == {"accepted": 3, "settled": 3, "duplicates": 2}


def test_an_entry_that_was_written_but_not_acknowledged_is_written_once_and_is_no_duplicate(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_event(settings, NOW)
    stream.put(redis, [one, make_event(settings, NOW), one])
    with monkeypatch.context() as patch:
        patch.setattr(stream, "settle", _killed)
        with pytest.raises(KeyboardInterrupt):
            writer.drain(engine, redis, settings, "test")
    assert count(engine) == 2
    written = writer.drain(engine, redis, settings, "test")
    assert dict(written.fates) == {"row": 2, "duplicate": 1}
    assert count(engine) == 2
    assert tallies(redis) == {"accepted": 3, "settled": 3, "duplicates": 1}


def test_a_writer_that_dies_before_its_commit_leaves_the_entry_to_itself(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.put(redis, [make_event(settings, NOW)])
    with monkeypatch.context() as patch:
        patch.setattr("footfall.days.raise_versions", _killed)
        with pytest.raises(KeyboardInterrupt):
            writer.drain(engine, redis, settings, "test")
    assert count(engine) == 0
    writer.drain(engine, redis, settings, "test")
    assert count(engine) == 1


def test_another_writer_takes_over_what_a_dead_one_left(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.put(redis, [make_event(settings, NOW) for _ in range(3)])
    assert len(stream.read(redis, "dead", 10)) == 1
    writer.drain(engine, redis, settings, "alive")
    assert count(engine) == 0, "taken from a writer that may still be at it"
    monkeypatch.setattr(stream, "TAKE_OVER_IDLE_MS", 0)
    writer.drain(engine, redis, settings, "alive")
    assert count(engine) == 3


def test_two_writers_that_finish_the_same_entry_settle_it_once(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.put(redis, [make_event(settings, NOW) for _ in range(7)])
    (entry,) = stream.read(redis, "first", 10)
    monkeypatch.setattr(stream, "TAKE_OVER_IDLE_MS", 0)
    writer.drain(engine, redis, settings, "second")
    assert stream.settle(redis, {entry.id: {"2026-03-10:settled": 7}}) == 0
    assert tallies(redis)["settled"] == 7
    assert count(engine) == 7


def test_of_entries_with_the_same_tallies_those_are_counted_that_nobody_has_settled(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    for _ in range(4):
        stream.put(redis, [make_event(settings, NOW), make_event(settings, NOW)])
    entries = stream.read(redis, "first", 10)
    told = {entry.id: {"2026-03-10:settled": 2} for entry in entries[:3]}
    assert stream.settle(redis, {entries[1].id: told[entries[1].id]}) == 1
    told[entries[3].id] = {"2026-03-10:settled": 2, "2026-03-10:duplicates": 1}
    assert stream.settle(redis, told) == 3
    assert tallies(redis) == {"accepted": 8, "settled": 8, "duplicates": 1}
    assert redis.xlen(stream.STREAM_KEY) == redis.xpending(stream.STREAM_KEY, stream.GROUP)["pending"] == 0


def test_each_entry_is_settled_with_what_became_of_its_own_events(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    real = stream.settle

    def settle(redis: Redis, of_batch: Any) -> int:
        told.append(of_batch)
        return real(redis, of_batch)

    monkeypatch.setattr(stream, "settle", settle)
    one, other, yesterdays = mixed(settings, 3)
    yesterdays = yesterdays._replace(day=NOW.date() - timedelta(days=1))
    toaster = make_event(settings, NOW, device="toaster")
    unreadable, last = [fields_of(event) for event in mixed(settings, 2)]
    unreadable[0] = "none"
    payloads = [
        encode([one]),
        envelope([unreadable, last]),
        b"nonsense",
        encode([toaster, yesterdays, one, other]),
    ]
    for payload in payloads:
        redis.xadd(stream.STREAM_KEY, {stream.FIELD: payload})
    writer.drain(engine, redis, settings, "test")
    assert [list(of_batch.values()) for of_batch in told] == [
        [
            {"2026-03-10:settled": 1},
            {"2026-03-10:settled": 1},
            {},
            {
                "2026-03-10:settled": 3,
                "2026-03-10:dead_letters": 1,
                "2026-03-10:duplicates": 1,
                "2026-03-09:settled": 1,
            },
        ]
    ]
    found = rows(engine, "SELECT entry, position, reason FROM dead_letters ORDER BY entry")
    assert [place[1:] for place in found] == [(0, "unreadable"), (-1, "unreadable"), (0, "refused")]
    numbers = [stream.Entry(entry_id, b"").number for entry_id in told[0]]
    assert [place[0] for place in found] == numbers[1:]
    stored = dict(rows(engine, "SELECT id, entry FROM view_events"))
    places = [(one, 0), (yesterdays, 3), (other, 3), (plain_event(last), 1)]
    assert stored == {event.id: numbers[place] for event, place in places}


def test_the_fates_stand_where_their_events_do(engine: Engine, redis: Redis, settings: Settings) -> None:
    gone = make_event(settings, NOW, external_id="/gone")
    store(engine, redis, settings, [gone])
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE entities SET deleted_at = :now WHERE external_id = '/gone'"), {"now": NOW}
        )
    late = make_event(settings, NOW - timedelta(days=4_000))
    fine = [make_event(settings, NOW) for _ in range(3)]
    too_large, unknown = make_event(settings, NOW, visitor=2**63), make_event(settings, NOW, device="toaster")
    batch = [
        *batch_of(settings, [late, gone, fine[0], too_large, fine[1]]),
        writer.Incoming(2, 0, Unreadable("not known yet"), b"[]"),
        *batch_of(settings, [fine[0], unknown, gone, fine[2]], entry=3),
    ]
    expected = ["dead_letter", "erased", "row", "dead_letter", "row", "dead_letter"]
    expected += ["duplicate", "dead_letter", "erased", "row"]
    with engine.begin() as connection:
        assert writer.write_batch(connection, batch, NOW, settings) == expected
    reasons = rows(engine, "SELECT entry, position, reason FROM dead_letters ORDER BY entry, position")
    assert reasons == [(1, 0, "too_late"), (1, 3, "refused"), (2, 0, "unreadable"), (3, 1, "refused")]
    assert {entry for (entry,) in rows(engine, "SELECT entry FROM view_events")} >= {1, 3}


def test_one_event_with_refused_data_costs_itself_only(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    good = [make_event(settings, NOW) for _ in range(999)]
    bad = make_event(settings, NOW, device="toaster")
    written = store(engine, redis, settings, [*good[:500], bad, *good[500:]])
    assert dict(written.fates) == {"row": 999, "dead_letter": 1}
    assert count(engine) == 999
    ((reason, detail),) = rows(engine, "SELECT reason, detail FROM dead_letters")
    assert reason == "refused"
    assert "23514" in detail
    assert looked_up == []
    assert tallies(redis) == {"accepted": 1000, "settled": 1000, "dead_letters": 1}


@pytest.mark.parametrize(
    "change",
    [{"entity_type": "x" * 41}, {"visitor": 2**63}, {"external_id": "/\x00"}, {"country": "\ud800"}],
    ids=["too long", "too large", "NUL", "surrogate"],
)
def test_data_that_postgresql_cannot_take_is_parked(
    engine: Engine, redis: Redis, settings: Settings, change: dict[str, Any]
) -> None:
    bad = make_event(settings, NOW, **change)
    if "country" in change:  # what json.dumps would not have let through to the queue
        payload = encode([make_event(settings, NOW, country="XX")]).replace(b'"XX"', b'"\\ud800"')
        redis.xadd(stream.STREAM_KEY, {stream.FIELD: payload})
    else:
        stream.put(redis, [bad])
    store(engine, redis, settings, [make_event(settings, NOW)])
    assert count(engine) == 1
    assert count(engine, "dead_letters") == 1
    assert stream.backlog(redis, NOW).entries == 0


@pytest.mark.parametrize(
    "payload", [b"", b"nonsense", b"[2,[]]", b"[1,[[1,2]]]", b"[1,[7]]", b"[1,9]", b"[1,[]]", b"{}"]
)
def test_an_unreadable_entry_is_parked_with_its_payload(
    engine: Engine, redis: Redis, settings: Settings, payload: bytes
) -> None:
    redis.xadd(stream.STREAM_KEY, {stream.FIELD: payload})
    store(engine, redis, settings, [make_event(settings, NOW)])
    assert count(engine) == 1
    ((reason, kept),) = rows(engine, "SELECT reason, payload FROM dead_letters")
    assert (reason, bytes(kept)) == ("unreadable", payload)
    assert stream.backlog(redis, NOW).entries == 0


def test_a_dead_letter_that_comes_again_is_kept_once(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.put(redis, [make_event(settings, NOW, device="toaster")])
    with monkeypatch.context() as patch:
        patch.setattr(stream, "settle", _killed)
        with pytest.raises(KeyboardInterrupt):
            writer.drain(engine, redis, settings, "test")
    writer.drain(engine, redis, settings, "test")
    assert count(engine, "dead_letters") == 1


def test_a_drifted_schema_is_loud_and_loses_nothing(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, [make_event(settings, NOW)])
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"))
    try:
        stream.put(redis, [make_event(settings, NOW)])
        with pytest.raises(ProgrammingError, match="ON CONFLICT"):
            writer.drain(engine, redis, settings, "test")
        assert stream.backlog(redis, NOW).entries == 1
        assert count(engine, "dead_letters") == 0
    finally:
        with engine.begin() as connection:
            connection.execute(
                text("ALTER TABLE view_events ADD CONSTRAINT view_events_day_id_unique UNIQUE (day, id)")
            )
    writer.drain(engine, redis, settings, "test")
    assert count(engine) == 2


def test_a_partition_that_somebody_dropped_is_loud_and_loses_nothing(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW)])
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE view_events_2026_03_10"))
    stream.put(redis, [make_event(settings, NOW)])
    with pytest.raises(DBAPIError, match="no partition"):
        writer.drain(engine, redis, settings, "test")
    assert count(engine, "dead_letters") == 0
    assert stream.backlog(redis, NOW).entries == 1


def test_a_deadlock_is_tried_again(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["40P01", "40001"]
    real = writer.write_batch

    def failing_twice(connection: Connection, *arguments: Any) -> Any:
        result = real(connection, *arguments)
        if failures:
            code = failures.pop()
            connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '{code}'; END $$"))
        return result

    monkeypatch.setattr(writer, "write_batch", failing_twice)
    store(engine, redis, settings, [make_event(settings, NOW)])
    assert not failures
    assert count(engine) == 1


def test_days_are_opened_on_demand_within_bounds(engine: Engine, redis: Redis, settings: Settings) -> None:
    ages = [timedelta(days=n) for n in (-3, -2, 0, 6, 30, 31)]
    store(engine, redis, settings, [make_event(settings, NOW - age) for age in ages])
    assert [str(day) for (day,) in rows(engine, "SELECT day FROM view_events ORDER BY day")] == [
        "2026-02-08",
        "2026-03-04",
        "2026-03-10",
        "2026-03-12",
    ]
    assert rows(engine, "SELECT reason FROM dead_letters") == [("too_late",), ("too_late",)]


def test_only_days_that_got_rows_change_their_version(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    one = make_event(settings, NOW)
    store(engine, redis, settings, [one])
    store(engine, redis, settings, [one, make_event(settings, NOW - timedelta(days=1))])
    assert rows(engine, "SELECT day::text, version FROM event_days ORDER BY 1") == [
        ("2026-03-09", 1),
        ("2026-03-10", 1),
    ]


def test_pages_over_the_days_cap_are_counted_together(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    capped = replace(settings, new_entities_per_day=3)
    paths = ["/a", "/b", "/c", "/d", "/e"]
    for _ in range(2):
        store(engine, redis, capped, [make_event(capped, NOW, external_id=path) for path in paths])
    assert rows(
        engine,
        "SELECT external_id, count(*) FROM view_events v JOIN entities e ON e.id = v.entity_id"
        " GROUP BY 1 ORDER BY 1",
    ) == [("(other)", 4), ("/a", 2), ("/b", 2), ("/c", 2)]
    with freeze_time(NOW + timedelta(days=1)):
        store(engine, redis, capped, [make_event(capped, NOW, external_id="/d")])
    assert ("/d",) in rows(engine, "SELECT external_id FROM entities")


def test_known_entities_use_up_no_keys(engine: Engine, redis: Redis, settings: Settings) -> None:
    for _ in range(5):
        store(engine, redis, settings, [make_event(settings, NOW, external_id="/same")])
    store(engine, redis, settings, [make_event(settings, NOW, external_id="/next")])
    ((first,), (second,)) = rows(
        engine, "SELECT id FROM entities WHERE entity_type = 'page' ORDER BY external_id DESC"
    )
    assert second == first + 1


def test_events_of_a_transaction_of_another_writer_are_waited_for_not_doubled(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """Two writers with the same ids in opposite order neither deadlock nor insert twice."""
    events = [make_event(settings, NOW, external_id=f"/{n % 17}") for n in range(300)]
    store(engine, redis, settings, [make_event(settings, NOW)])

    def write(order: int) -> list[writer.Fate]:
        with engine.begin() as connection:
            return writer.write_batch(connection, batch_of(settings, events[::order], order), NOW, settings)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, [1, -1, 2, -2] * 5))
    assert count(engine) == 301
    assert sum(fates.count("row") for fates in results) >= 300


def test_the_queue_refuses_when_it_is_full(redis: Redis, settings: Settings) -> None:
    stream.put(redis, [make_event(settings, NOW)])
    stream.Pressure(limit_entries=2).refuse_when_full(redis)
    with pytest.raises(Unavailable, match="queue is full"):
        stream.Pressure(limit_entries=1).refuse_when_full(redis)


def test_the_queue_refuses_before_redis_memory_is_full(redis: Redis) -> None:
    before = str(redis.config_get("maxmemory")["maxmemory"])
    try:
        redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 1.2))
        with pytest.raises(Unavailable, match="memory"):
            stream.Pressure(limit_entries=1000).refuse_when_full(redis)
    finally:
        redis.config_set("maxmemory", before)


def test_a_consumer_with_pending_entries_is_never_forgotten(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW)])
    stream.put(redis, [make_event(settings, NOW)])
    assert stream.read(redis, "busy", 10)
    assert stream.forget_idle_consumers(redis, idle_ms=-1) == 1
    names = {consumer["name"] for consumer in redis.xinfo_consumers(stream.STREAM_KEY, stream.GROUP)}
    assert names == {b"busy"}


def test_statements_of_a_batch_do_not_grow_with_it(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, [make_event(settings, NOW)])
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_c: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    store(engine, redis, settings, [make_event(settings, NOW) for _ in range(10)])
    few = len(seen)
    store(engine, redis, settings, [make_event(settings, NOW) for _ in range(2_000)])
    assert len(seen) - few == few


def test_what_comes_while_a_drain_writes_is_for_the_next_one(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writer.write_batch

    def write(*arguments: Any) -> Any:
        stream.put(redis, [make_event(settings, NOW)])
        return real(*arguments)

    monkeypatch.setattr(writer, "write_batch", write)
    monkeypatch.setattr(writer, "READ_ENTRIES", 3)
    for _ in range(7):
        stream.put(redis, [make_event(settings, NOW)])
    assert writer.drain(engine, redis, settings, "test").entries in (7, 8, 9), "all that was there"
    assert 1 <= stream.backlog(redis, NOW).entries <= 3


def test_what_was_left_unfinished_does_not_end_a_drain(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    for _ in range(4):
        stream.put(redis, [make_event(settings, NOW)])
    assert len(stream.read(redis, "test", 2)) == 2
    assert writer.drain(engine, redis, settings, "test").entries == 4


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_ids_of_different_days_are_different_events(engine: Engine, redis: Redis, settings: Settings) -> None:
    same = UUID(int=7)
    store(
        engine,
        redis,
        settings,
        [make_event(settings, NOW, id=same), make_event(settings, NOW - timedelta(days=1), id=same)],
    )
    assert count(engine) == 2


def counters(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT entity_id, view_type, count, first_viewed_at, last_viewed_at FROM view_counters"
        " ORDER BY 1, 2",
    )


def counted(engine: Engine) -> list[tuple[Any, ...]]:
    """What the counters should be."""
    return rows(
        engine,
        "SELECT entity_id, view_type, count(*), min(occurred_at), max(occurred_at)"
        f" FROM {EVENTS} AS v"
        " WHERE outcome = 'counted' GROUP BY 1, 2 ORDER BY 1, 2",
    )


def mixed(settings: Settings, amount: int) -> list[ViewEvent]:
    """Events of several days, pages, view types and outcomes."""
    return [
        make_event(
            settings,
            NOW - timedelta(hours=n % 50, microseconds=n),
            external_id=f'/{n % 7} "{{\\,}}" é',
            view_type=("intentional", "list,ing", 'a "b"')[n % 3],
            outcome=("counted", "bot", "counted", "own")[n % 4],
            visitor=None if n % 5 else n,
        )
        for n in range(amount)
    ]


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches whose events were looked up, because one was stored already."""
    sizes: list[int] = []
    real = writer._told_apart

    def told_apart(connection: Connection, good: Any) -> Any:
        sizes.append(len(good))
        return real(connection, good)

    monkeypatch.setattr(writer, "_told_apart", told_apart)
    return sizes


def test_new_events_are_looked_up_by_nobody_and_counted_to_the_microsecond(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    for _ in range(2):
        store(engine, redis, settings, mixed(settings, 300))
    assert counters(engine) == counted(engine)
    assert len(counters(engine)) > 7
    assert looked_up == []


def test_every_row_says_which_entry_and_which_version_of_its_day_brought_it(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW)])
    store(engine, redis, settings, (events := mixed(settings, 90))[:60])
    batch = [batch_of(settings, [one], entry)[0] for entry, one in enumerate(events[60:], 1)]
    with engine.begin() as connection:
        writer.write_batch(connection, batch, NOW, settings)
    versions = dict(rows(engine, "SELECT day, version FROM event_days"))
    assert set(versions.values()) == {2, 3}
    by_id = "SELECT id, entry, version FROM view_events WHERE entry < 100"
    assert set(rows(engine, by_id)) == {
        (one.id, entry, versions[one.day]) for entry, one in enumerate(events[60:], 1)
    }


def test_stored_events_among_new_ones_change_nothing_and_cost_the_others_nothing(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    events = mixed(settings, 400)
    store(engine, redis, settings, events[100:200])
    before = rows(engine, "SELECT id, entry, version FROM view_events ORDER BY id")
    written = store(engine, redis, settings, events)
    assert dict(written.fates) == {"row": 300, "duplicate": 100}
    assert looked_up == [400]
    assert count(engine) == 400
    assert set(before) <= set(rows(engine, "SELECT id, entry, version FROM view_events"))
    assert counters(engine) == counted(engine)


def test_an_id_that_stands_twice_among_new_events_is_one_row_the_first(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    one, other = mixed(settings, 2)
    again = one._replace(view_type="again")
    written = store(engine, redis, settings, [one, other, again, again])
    assert dict(written.fates) == {"row": 2, "duplicate": 2}
    assert rows(engine, f"SELECT view_type FROM {EVENTS} AS v WHERE id = '{one.id}'") == [(one.view_type,)]
    assert counters(engine) == counted(engine)
    assert looked_up == [4]


def test_after_a_stored_event_the_next_batches_are_looked_up_at_once_and_then_no_more(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    one = make_event(settings, NOW)
    for _ in range(2):
        store(engine, redis, settings, [one])
    assert len(looked_up) == 1
    for _ in range(writer.WARY_BATCHES + 5):
        store(engine, redis, settings, [make_event(settings, NOW)])
    assert len(looked_up) == 1 + writer.WARY_BATCHES
    assert count(engine) == 1 + writer.WARY_BATCHES + 5
    assert counters(engine) == counted(engine)


@pytest.mark.parametrize("is_wary", [False, True])
def test_what_comes_again_among_new_entries_is_told_from_duplicates(
    engine: Engine, redis: Redis, settings: Settings, is_wary: bool
) -> None:
    first, second, third = mixed(settings, 3)
    store(engine, redis, settings, [third] * (1 + is_wary))

    def write(incoming: list[writer.Incoming]) -> list[writer.Fate]:
        with engine.begin() as connection:
            return writer.write_batch(connection, incoming, NOW, settings)

    entry = batch_of(settings, [first, second, first], entry=1)
    assert write(entry) == ["row", "row", "duplicate"]
    new = batch_of(settings, [second, *mixed(settings, 5)], entry=2)
    fates = write([*entry, *new, *batch_of(settings, [first], entry=3)])
    assert fates == ["row", "row", "duplicate", "duplicate", *["row"] * 5, "duplicate"]
    assert write(new[::-1]) == [*["row"] * 5, "duplicate"]
    assert count(engine) == 8
    assert counters(engine) == counted(engine)


def test_a_writer_waits_for_another_with_the_same_events_and_stores_none_of_them(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    events = mixed(settings, 200)
    store(engine, redis, settings, mixed(settings, 200))

    def write(entry: int) -> list[writer.Fate]:
        with engine.begin() as connection:
            return writer.write_batch(connection, batch_of(settings, events, entry), NOW, settings)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            first = writer.write_batch(connection, batch_of(settings, events, 1), NOW, settings)
            second = pool.submit(write, 2)
            wait_until(lambda: transactions_waiting(engine), "the second writer to wait")
        assert set(first) == {"row"}
        assert set(second.result()) == {"duplicate"}
    assert looked_up == [200]
    assert count(engine) == 400
    assert counters(engine) == counted(engine)


def test_two_writers_of_different_days_make_a_new_page_once(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    ages = [timedelta(), timedelta(days=1)]
    store(engine, redis, settings, [make_event(settings, NOW - age) for age in ages])
    today, yesterday = [make_event(settings, NOW - age, external_id="/new") for age in ages]

    def write(one: ViewEvent, entry: int) -> list[writer.Fate]:
        with engine.begin() as connection:
            return writer.write_batch(connection, batch_of(settings, [one], entry), NOW, settings)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            writer.write_batch(connection, batch_of(settings, [today], 1), NOW, settings)
            second = pool.submit(write, yesterday, 2)
            wait_until(lambda: transactions_waiting(engine), "the second writer to wait")
        assert second.result() == ["row"]
    assert counters(engine) == counted(engine)
    assert [views for _, _, views, _, _ in counters(engine)] == [2, 2]


def test_an_event_that_somebody_stores_without_holding_its_day_is_found_by_the_key(
    engine: Engine, redis: Redis, settings: Settings, looked_up: list[int]
) -> None:
    kept, *events = mixed(settings, 50)
    store(engine, redis, settings, [kept])
    one = events[5]
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO view_events (day, id, occurred_at, entry, entity_id, version, authenticated,"
                    " kind_id)"
                    " SELECT day, CAST(:id AS uuid), occurred_at, 0, entity_id, version, authenticated,"
                    " kind_id FROM view_events"
                ),
                {"id": one.id},
            )
            written = pool.submit(store, engine, redis, settings, events)
            wait_until(lambda: transactions_waiting(engine), "the writer to wait")
        assert dict(written.result().fates) == {"row": 48, "duplicate": 1}
    assert looked_up == [49]
    assert count(engine) == 50


def test_bad_data_among_stored_events_is_parked_all_the_same(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    events = mixed(settings, 60)
    store(engine, redis, settings, events[:20])
    bad = make_event(settings, NOW, device="toaster")
    written = store(engine, redis, settings, [*events[:40], bad, *events[40:]])
    assert dict(written.fates) == {"row": 40, "duplicate": 20, "dead_letter": 1}
    assert count(engine) == 60
    assert counters(engine) == counted(engine)


def test_slots_are_held_by_stored_views_only_and_for_the_longest(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    def viewed(digit: int, hours: int, **values: Any) -> ViewEvent:
        slot = {"slot": bytes([digit]) * 16, "slot_ends_at": NOW + timedelta(hours=hours, microseconds=1)}
        return make_event(settings, NOW, entity_type="story", external_id="x", **slot, **values)

    first, repeat = viewed(1, 1), viewed(2, 1, outcome="repeat")
    events = [first, repeat, viewed(3, 1), viewed(3, 3), viewed(3, 2)]
    store(engine, redis, settings, events)
    store(engine, redis, settings, [first._replace(slot=b"4" * 16), viewed(1, 0)])
    held = "SELECT name, event_id, ends_at, by_fallback FROM view_slots ORDER BY name"
    assert [(bytes(name), *others) for name, *others in rows(engine, held)] == [
        (b"\1" * 16, first.id, first.slot_ends_at, False),
        (b"\3" * 16, events[3].id, events[3].slot_ends_at, False),
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts_reach_the_database_as_an_array(connection: Connection, texts: list[str]) -> None:
    query = text("SELECT CAST(:texts AS text[])")
    assert connection.scalar(query, {"texts": copying.array(texts)}) == texts
