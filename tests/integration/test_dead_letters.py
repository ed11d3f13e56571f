"""A dead letter is stored once when its cause is gone, or let go, and the ledger balances at every moment."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import (
    counts,
    dead_letters,
    event,
    host,
    keys,
    ledger,
    retention,
    rollup,
    stream,
    verify,
    writer,
)
from footfall.acceptance import Acceptance
from footfall.database import read_snapshot
from footfall.dead_letters import Replayed
from footfall.event import View, ViewEvent
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.factory import EVENTS, make_event, store
from tests.integration.plain_count import PlainCount

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY, YESTERDAY = date(2026, 3, 10), date(2026, 3, 9)
AT = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
BOOK = {"entity_type": "book", "external_id": "b1", "view_type": "card_view"}
REFUSED = {"referrer_domain": "refused.example"}  # while the database refuses it


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # Redis stamps its entries by the real clock
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    monkeypatch.setattr(verify, "WRITTEN_SECONDS", 0)


class Cause:
    """What makes the database refuse some events, until it is gone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _run(self, statement: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE view_events {statement}"))

    def begin(self) -> None:
        self._run("ADD CONSTRAINT no_such_referrer CHECK (referrer_domain <> 'refused.example') NOT VALID")

    def end(self) -> None:
        self._run("DROP CONSTRAINT IF EXISTS no_such_referrer")


@pytest.fixture
def cause(engine: Engine) -> Iterator[Cause]:
    """There from the beginning."""
    made = Cause(engine)
    made.begin()
    yield made
    made.end()


@pytest.fixture
def take(engine: Engine, redis: Redis, settings: Settings) -> Callable[..., None]:
    """Sends events through Redis' door, or past Redis, and writes them."""
    doors = {used: Acceptance(engine, redis, replace(settings, redis_enabled=used)) for used in (True, False)}

    def send(*events: ViewEvent, through_redis: bool = True) -> None:
        doors[through_redis].take([View(one, has_clients_id=True) for one in events], NOW)
        writer.drain(engine, redis, settings, "test")

    return send


def replay(engine: Engine, settings: Settings, *chosen: int) -> list[Replayed]:
    with engine.connect() as connection:
        ids = chosen or dead_letters.ids(connection)
    return list(dead_letters.replay(engine, settings, ids, NOW))


def discard(engine: Engine, redis: Redis) -> int:
    with engine.connect() as connection:
        ids = dead_letters.ids(connection)
    done = list(dead_letters.discard(engine, ids))
    for one in done:
        dead_letters.hide(engine, redis, one)
    return sum(one.letters for one in done)


def letters(engine: Engine) -> list[tuple[int, str]]:
    """(id, reason) of each."""
    with engine.connect() as connection:
        return [(letter.id, letter.reason) for letter in dead_letters.listed(connection)]


def stored(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM view_events ORDER BY id")))


def tallies(engine: Engine, redis: Redis, settings: Settings, day: date = YESTERDAY) -> dict[str, Any]:
    """The day's line in the ledger, without what is 0."""
    with read_snapshot(engine) as connection:
        (line,) = ledger.ledger(connection, redis, [day], NOW, settings.time_zone)
    line["rows"] = sum(line["rows"].values())
    return {name: value for name, value in line.items() if value and name != "date"}


def nothing_differs(engine: Engine, redis: Redis, settings: Settings) -> bool:
    counts.raise_noted(engine, redis)
    rollup.catch_up(engine, TODAY, NOW)
    verdict = verify.audit(engine, redis, settings, NOW)
    return (verdict.differences, verdict.not_looked_at) == ([], [])


@pytest.mark.parametrize("through_redis", [True, False], ids=["redis", "database"])
def test_when_the_cause_is_gone_a_letter_is_stored_as_if_it_came_now(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    cause: Cause,
    take: Callable[..., None],
    through_redis: bool,
) -> None:
    good, bad = make_event(settings, AT, **BOOK), make_event(settings, AT, **BOOK, **REFUSED, visitor=2)
    page = make_event(settings, AT, external_id="/one", **REFUSED)
    take(good, bad, page, through_redis=through_redis)
    assert [reason for _, reason in letters(engine)] == ["refused", "refused"]
    assert tallies(engine, redis, settings) == {
        "accepted": 3, "settled": 3, "rows": 1, "dead_letters": 2, "balanced": True
    }  # fmt: skip
    assert nothing_differs(engine, redis, settings)
    cause.end()
    done = replay(engine, settings)
    assert [(dict(one.fates), one.problem) for one in done] == [({"row": 1}, None)] * 2
    assert stored(engine) == sorted([good.id, bad.id, page.id])
    assert letters(engine) == []
    assert tallies(engine, redis, settings) == {"accepted": 3, "settled": 3, "rows": 3, "balanced": True}
    assert nothing_differs(engine, redis, settings)
    with engine.connect() as connection:
        name = ("book", "b1")
        assert counts.stored(connection, [name]) == {name: {"card_view": 2}}
    if through_redis:
        assert counts.shown(redis, name) == {"card_view": 2}


def test_a_count_that_was_seeded_without_the_letter_is_raised(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause, take: Callable[..., None]
) -> None:
    take(make_event(settings, AT, **BOOK, **REFUSED))
    redis.flushall()  # its disk was lost
    take(make_event(settings, AT, **BOOK))
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 1}
    cause.end()
    replay(engine, settings)
    writer.drain(engine, redis, settings, "test")
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 2}


def test_a_letter_is_replayed_once_however_often_and_by_however_many(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    bad = [make_event(settings, AT, external_id=f"/{n}", **REFUSED) for n in range(60)]
    store(engine, redis, settings, [*bad, make_event(settings, AT)])
    cause.end()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: replay(engine, settings, *range(1, 61)), range(4)))
    assert sorted(one.id for part in done for one in part) == list(range(1, 61)), "each was somebody's"
    assert len(stored(engine)) == 61
    assert replay(engine, settings, *range(1, 61)) == []
    assert tallies(engine, redis, settings) == {"accepted": 61, "settled": 61, "rows": 61, "balanced": True}
    assert nothing_differs(engine, redis, settings)


def test_a_letter_whose_id_was_stored_meanwhile_is_a_duplicate(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    bad = make_event(settings, AT, **REFUSED)
    # the same id again in the same entry, in another entry, and as a letter of its own
    store(engine, redis, settings, [bad, bad._replace(referrer_domain="a.example"), bad])
    store(engine, redis, settings, [bad._replace(referrer_domain="b.example")])
    cause.end()
    assert [dict(one.fates) for one in replay(engine, settings)] == [{"duplicate": 1}] * 2
    assert stored(engine) == [bad.id]
    assert tallies(engine, redis, settings) == {
        "accepted": 4, "settled": 4, "rows": 1, "duplicates": 3, "balanced": True
    }  # fmt: skip
    assert nothing_differs(engine, redis, settings)


def test_two_letters_of_one_id_are_one_row(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    bad = make_event(settings, AT, **REFUSED)
    store(engine, redis, settings, [bad, bad])
    store(engine, redis, settings, [bad])
    cause.end()
    assert [dict(one.fates) for one in replay(engine, settings)] == [
        {"row": 1},
        {"duplicate": 1},
        {"duplicate": 1},
    ]
    assert tallies(engine, redis, settings)["balanced"]


def test_what_still_cannot_be_stored_keeps_its_number_and_gets_the_new_reason(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    bad = make_event(settings, AT, **REFUSED)
    store(
        engine, redis, settings, [make_event(settings, AT), bad, make_event(settings, AT, device="toaster")]
    )
    assert letters(engine) == [(1, "refused"), (2, "refused")]
    first, second = replay(engine, settings)
    assert dict(first.fates) == {"dead_letter": 1}
    assert "no_such_referrer" in (first.problem or "")
    assert "event_kinds_device_check" in (second.problem or "")
    assert letters(engine) == [(1, "refused"), (2, "refused")]
    cause.end()
    store(engine, redis, settings, [make_event(settings, NOW)])
    rollup.roll_up(engine, YESTERDAY, NOW)
    in_a_week = NOW + timedelta(days=8)
    assert retention.drop_expired(engine, redis, settings, in_a_week) == [YESTERDAY]
    late = list(dead_letters.replay(engine, settings, [1], in_a_week))
    assert late[0].problem == "too_late: 2026-03-09 takes no events"
    assert letters(engine) == [(1, "too_late"), (2, "refused")]
    assert tallies(engine, redis, settings) == {
        "accepted": 3, "settled": 3, "rows": 1, "dead_letters": 2, "balanced": True
    }  # fmt: skip
    assert replay(engine, settings, 1)[0].problem == "too_late: 2026-03-09 takes no events"


def test_a_letter_of_what_was_deleted_is_dropped(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    store(engine, redis, settings, [make_event(settings, AT), make_event(settings, AT, **REFUSED)])
    with engine.begin() as connection:
        host.erase(connection, ("page", "/"), NOW)
    cause.end()
    assert dict(replay(engine, settings)[0].fates) == {"erased": 1}
    assert letters(engine) == []
    assert tallies(engine, redis, settings) == {"accepted": 2, "settled": 2, "erased": 2, "balanced": True}


@pytest.fixture
def newer_envelope(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on entries have a version that this code does not read; called, it reads them again."""
    right = event.ENVELOPE_VERSION
    monkeypatch.setattr(event, "ENVELOPE_VERSION", right + 1)
    return lambda: monkeypatch.setattr(event, "ENVELOPE_VERSION", right)


def test_an_entry_that_could_not_be_read_gives_all_its_events_and_settles_them(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause, newer_envelope: Callable[[], None]
) -> None:
    today = make_event(settings, NOW, external_id="/today")
    sent = [make_event(settings, AT), make_event(settings, AT, **REFUSED), today, today]
    newer_envelope()
    stream.put(redis, sent)
    event.ENVELOPE_VERSION += 1
    writer.drain(engine, redis, settings, "test")
    assert letters(engine) == [(1, "unreadable")]
    assert "envelope version" in (replay(engine, settings)[0].problem or "")
    assert letters(engine) == [(1, "unreadable")]
    assert tallies(engine, redis, settings) == {"accepted": 2, "queued": 2}
    event.ENVELOPE_VERSION -= 1
    (done,) = replay(engine, settings)
    assert dict(done.fates) == {"row": 2, "dead_letter": 1, "duplicate": 1}
    assert done.problem == "refused"
    assert [reason for _, reason in letters(engine)] == ["refused"]
    with engine.connect() as connection:
        (letter,) = dead_letters.listed(connection)
    assert (letter.entry > 0, letter.position) == (True, 1), "its place in the stream"
    assert tallies(engine, redis, settings, TODAY) == {
        "accepted": 2, "settled": 2, "rows": 1, "duplicates": 1, "balanced": True
    }  # fmt: skip
    cause.end()
    assert [dict(one.fates) for one in replay(engine, settings)] == [{"row": 1}]
    assert tallies(engine, redis, settings) == {"accepted": 2, "settled": 2, "rows": 2, "balanced": True}
    assert nothing_differs(engine, redis, settings)


def test_what_was_decided_about_an_unreadable_view_still_holds(
    engine: Engine, redis: Redis, settings: Settings, newer_envelope: Callable[[], None]
) -> None:
    """The second view of a viewer is a repeat, which the envelope does not say."""
    newer_envelope()
    door = Acceptance(engine, redis, settings)
    slot = {"slot": b"s" * 16, "slot_ends_at": NOW + timedelta(hours=24)}
    views = [make_event(settings, NOW, entity_type="story", external_id="s", **slot) for _ in range(2)]
    assert [door.take([View(one)], NOW)[0].outcome for one in views] == ["counted", "repeat"]
    event.ENVELOPE_VERSION += 1
    writer.drain(engine, redis, settings, "test")
    assert letters(engine) == [(1, "unreadable"), (2, "unreadable")]
    event.ENVELOPE_VERSION -= 1
    replay(engine, settings)
    with engine.connect() as connection:
        outcomes = connection.scalars(text(f"SELECT outcome FROM {EVENTS} AS v ORDER BY 1")).all()
    assert outcomes == ["counted", "repeat"]
    assert counts.shown(redis, ("story", "s")) == {"intentional": 1}
    assert nothing_differs(engine, redis, settings)


def _but_not_the_second(names: event._Names, name: tuple[str, str]) -> tuple[str, str]:
    """Of what is viewed: all of it can be read but one."""
    if name[1] == "/1":
        raise ValueError("not known yet")
    return name


def test_one_event_of_an_entry_that_could_not_be_read_is_replayed_alone(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [make_event(settings, AT, external_id=f"/{n}") for n in range(3)]
    stream.put(redis, sent)

    with monkeypatch.context() as patch:
        patch.setattr(event._Names, "__missing__", _but_not_the_second)
        writer.drain(engine, redis, settings, "test")
        assert letters(engine) == [(1, "unreadable")]
        assert "not known yet" in (replay(engine, settings)[0].problem or "")
    assert [dict(one.fates) for one in replay(engine, settings)] == [{"row": 1}]
    assert stored(engine) == sorted(one.id for one in sent)
    assert tallies(engine, redis, settings) == {"accepted": 3, "settled": 3, "rows": 3, "balanced": True}


@pytest.mark.parametrize(
    "step", ["footfall.days.raise_versions", "footfall.ledger.add", "footfall.counts.note_behind"]
)
def test_a_replay_that_dies_between_two_steps_has_done_nothing(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    cause: Cause,
    take: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    take(make_event(settings, AT, **BOOK), make_event(settings, AT, **BOOK, **REFUSED))
    cause.end()
    before = tallies(engine, redis, settings)
    with monkeypatch.context() as patch:
        patch.setattr(step, _killed)
        with pytest.raises(KeyboardInterrupt):
            replay(engine, settings)
    assert (len(stored(engine)), len(letters(engine))) == (1, 1)
    assert tallies(engine, redis, settings) == before
    assert nothing_differs(engine, redis, settings)
    replay(engine, settings)
    assert (len(stored(engine)), len(letters(engine))) == (2, 0)
    assert nothing_differs(engine, redis, settings)


def test_an_entry_that_comes_again_after_its_letter_was_replayed_is_no_second_view(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer died before it acknowledged what it had parked."""
    stream.put(redis, [make_event(settings, AT, **REFUSED)])
    with monkeypatch.context() as patch:
        patch.setattr(stream, "settle", _killed)
        with pytest.raises(KeyboardInterrupt):
            writer.drain(engine, redis, settings, "test")
    cause.end()
    replay(engine, settings)
    writer.drain(engine, redis, settings, "test")
    assert len(stored(engine)) == 1
    assert tallies(engine, redis, settings)["balanced"]


def test_discarded_letters_are_erased_in_the_ledger_and_no_longer_shown(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause, take: Callable[..., None]
) -> None:
    bad = [make_event(settings, AT, **BOOK, **REFUSED) for _ in range(2)]
    take(make_event(settings, AT, **BOOK), *bad, make_event(settings, AT, **REFUSED))
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 3}
    assert discard(engine, redis) == 3
    assert discard(engine, redis) == 0
    assert letters(engine) == []
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 1}
    assert tallies(engine, redis, settings) == {
        "accepted": 4, "settled": 4, "rows": 1, "erased": 3, "balanced": True
    }  # fmt: skip
    assert nothing_differs(engine, redis, settings)


def test_what_was_discarded_unread_leaves_no_day_out_of_balance(
    engine: Engine, redis: Redis, settings: Settings, newer_envelope: Callable[[], None]
) -> None:
    newer_envelope()
    stream.put(redis, [make_event(settings, AT), make_event(settings, NOW), make_event(settings, AT)])
    event.ENVELOPE_VERSION += 1
    writer.drain(engine, redis, settings, "test")
    redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"not one of ours"})
    redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"[1, [[], 7, [1, 2, 3]]]"})
    writer.drain(engine, redis, settings, "test")
    assert len(letters(engine)) == 3
    assert tallies(engine, redis, settings) == {"accepted": 2, "queued": 2}
    assert discard(engine, redis) == 3
    for day, n in ((YESTERDAY, 2), (TODAY, 1)):
        line = {"accepted": n, "settled": n, "erased": n, "balanced": True}
        assert tallies(engine, redis, settings, day) == line
    assert nothing_differs(engine, redis, settings)


def test_of_an_entry_one_unread_event_is_discarded_alone(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [make_event(settings, at, external_id=f"/{n}") for n, at in enumerate((NOW, AT, NOW))]
    stream.put(redis, sent)

    with monkeypatch.context() as patch:
        patch.setattr(event._Names, "__missing__", _but_not_the_second)
        writer.drain(engine, redis, settings, "test")
        assert discard(engine, redis) == 1
    assert tallies(engine, redis, settings) == {"accepted": 1, "settled": 1, "erased": 1, "balanced": True}
    assert tallies(engine, redis, settings, TODAY) == {
        "accepted": 2, "settled": 2, "rows": 2, "balanced": True
    }  # fmt: skip


def test_discarding_what_was_never_shown_lowers_no_count_below_what_is_stored(
    engine: Engine, redis: Redis, settings: Settings, cause: Cause, take: Callable[..., None]
) -> None:
    take(make_event(settings, AT, **BOOK))
    take(make_event(settings, AT, **BOOK, **REFUSED), through_redis=False)
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 1}
    discard(engine, redis)
    assert counts.shown(redis, ("book", "b1")) == {"card_view": 1}
    discarded = dead_letters.Discarded(1, {("book", "b2"): {"card_view": 1}})
    dead_letters.hide(engine, redis, discarded)
    assert not redis.exists(keys.count("book", "b2"))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_whatever_order_nothing_is_lost_doubled_or_out_of_balance(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    cause: Cause,
    take: Callable[..., None],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(dead_letters, "AT_ONCE", 3)
    kept: dict[UUID, ViewEvent] = {}
    parked: list[ViewEvent] = []
    is_refusing = True
    for _ in range(60):
        what = chance.choice(["events", "events", "again", "cause", "replay", "replay", "discard", "roll"])
        if what == "events":
            made = [_any_event(settings, chance) for _ in range(chance.randrange(1, 6))]
            take(*made, through_redis=chance.random() < 0.7)
            for one in made:
                if is_refusing and one.referrer_domain == "refused.example":
                    parked.append(one)
                else:
                    kept[one.id] = one
        elif what == "again" and parked:  # by a client whose id is no longer remembered
            one = chance.choice(parked)
            other = one._replace(referrer_domain="a.example")
            stream.put(redis, [other] if one.entity_type == "page" else [])
            writer.drain(engine, redis, settings, "test")
            if one.entity_type == "page":
                kept.setdefault(one.id, other)
        elif what == "cause":
            cause.end() if is_refusing else cause.begin()
            is_refusing = not is_refusing
        elif what == "replay":
            replay(engine, settings)
            if not is_refusing:
                for one in parked:
                    kept.setdefault(one.id, one)
                parked = []
        elif what == "discard" and chance.random() < 0.3:
            assert discard(engine, redis) == len(parked)
            parked = []
        elif what == "roll":
            rollup.roll_up_closed_days(engine, TODAY, NOW, recheck=True)
        assert stored(engine) == sorted(kept)
        assert len(letters(engine)) == len(parked)
        assert nothing_differs(engine, redis, settings), what
    with read_snapshot(engine) as connection:
        names = [("book", "b1"), ("page", "/")]
        plain = PlainCount(list(kept.values()), NOW, settings.time_zone).counters()
        assert counts.stored(connection, names) == {name: plain.get(name, {}) for name in names}


def _any_event(settings: Settings, chance: random.Random) -> ViewEvent:
    at = NOW - timedelta(hours=chance.uniform(0, 30))
    return make_event(
        settings,
        at,
        id=uuid7(at),
        referrer_domain=chance.choice(["refused.example", "a.example", None]),
        visitor=chance.choice([None, 1, 2, 3]),
        outcome=chance.choice(["counted", "counted", "bot"]),
        **chance.choice([BOOK, {}]),
    )


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def run(footfall: Callable[..., Result]) -> Callable[..., Result]:
    """Calls the command for the tests' servers."""
    return partial(footfall, "dead-letters")


def test_the_commands_list_show_replay_and_discard(
    run: Callable[..., Result], engine: Engine, redis: Redis, settings: Settings, cause: Cause
) -> None:
    assert run("list").output == "no dead letters\n"
    assert run("replay", "--all").output == "nothing to replay\n"
    bad = [make_event(settings, AT, external_id=f"/{n}", visitor=987_654, **REFUSED) for n in range(5)]
    long_ago = make_event(settings, NOW - timedelta(days=60), external_id="/old")
    store(engine, redis, settings, bad)
    store(engine, redis, settings, [long_ago])
    redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"nonsense"})
    writer.drain(engine, redis, settings, "test")
    listed = run("list").output
    assert "1  2026-03-10 12:00  2026-03-09  page /0  refused: 23514" in listed
    assert "7  2026-03-10 12:00  day unknown  unreadable  unreadable: not an envelope" in listed
    assert "and 6 more" in run("list", "--limit", "1").output
    assert [json.loads(line)["id"] for line in run("list", "--json").output.splitlines()] == list(range(1, 8))
    shown = run("show", "1")
    assert json.loads(shown.output)["events"][0]["external_id"] == "/0"
    assert "987654" not in shown.output, "who viewed is nobody's business"
    assert json.loads(run("show", "7").output)["payload"] == "nonsense"
    for words in (("show", "99"), ("replay", "1", "99"), ("discard", "99", "--yes")):
        assert run(*words).exit_code == 1
        assert "there is no dead letter 99" in run(*words).output
    assert run("replay").exit_code == run("replay", "1", "--all").exit_code == 2

    result = run("replay", "1", "6", REDIS_URL="redis://127.0.0.1:1")
    assert result.exit_code == 1
    assert "1: cannot be stored, refused: 23514" in result.output
    assert "6: cannot be stored, too_late: 2026-01-09 takes no events" in result.output
    cause.end()
    result = run("replay", "1")
    assert (result.exit_code, result.output) == (0, "1: stored\n")
    result = run("replay", "--all")
    assert result.exit_code == 1
    assert "4 stored, 1 still dead letters" in result.output
    assert "1 came too late" in result.output
    assert len(stored(engine)) == 5

    result = run("discard", "6")
    assert result.exit_code == 2
    assert "--yes" in result.output
    assert len(letters(engine)) == 2
    result = run("discard", "6", "--yes", REDIS_URL="redis://127.0.0.1:1")
    assert result.exit_code == 0, "no count shows it"
    assert run("discard", "--all", "--yes").output == "1 discarded\n"
    assert letters(engine) == []


def test_the_command_to_discard_asks(
    run: Callable[..., Result],
    engine: Engine,
    redis: Redis,
    settings: Settings,
    cause: Cause,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store(engine, redis, settings, [make_event(settings, AT, **BOOK, **REFUSED)])
    monkeypatch.setattr("footfall.cli.is_a_person_there", lambda: True)
    monkeypatch.setattr("click.confirm", _declined)
    assert run("discard", "1").exit_code == 1
    assert len(letters(engine)) == 1
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    result = run("discard", "1", REDIS_URL="redis://127.0.0.1:1")
    assert result.exit_code == 1
    assert "verify --lower-shown" in result.output
    assert letters(engine) == []


def _declined(*_: Any, **__: Any) -> None:
    import click

    raise click.Abort
