"""Kinds of events: one number each, whoever writes first, for as long as an event names it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import event_kinds, retention, rollup
from footfall.event import Kind, ViewEvent
from footfall.settings import Settings
from tests.factory import EVENTS, make_event, store
from tests.waiting import transactions_waiting, wait_until

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY = NOW.date()
ONE_DAY = timedelta(days=1)
PLAIN = Kind("page", "counted", "desktop", "intentional", "web", "ZZ")


@pytest.fixture(autouse=True)
def young_queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Redis stamps its entries by the real clock."""
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    with freeze_time(NOW):
        yield


def known(engine: Engine) -> dict[Kind, date]:
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT {event_kinds.COLUMNS}, last_seen_on FROM event_kinds"))
        return {Kind(*row[:-1]): row[-1] for row in found}


def without_kind(engine: Engine) -> int:
    query = "SELECT count(*) FROM view_events WHERE kind_id NOT IN (SELECT id FROM event_kinds)"
    with engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def test_events_that_have_all_in_common_share_a_number(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    different = {
        "entity_type": "book",
        "outcome": "bot",
        "device": "tablet",
        "view_type": "listing",
        "view_source": "widget",
        "country": "DE",
    }
    events = [make_event(settings, NOW), make_event(settings, NOW, external_id="/other", visitor=7)]
    events += [make_event(settings, NOW, **{name: value}) for name, value in different.items()]
    store(engine, redis, settings, events)
    changed = [PLAIN._replace(**{name: value}) for name, value in different.items()]
    assert known(engine) == dict.fromkeys([PLAIN, *changed], TODAY)
    with engine.connect() as connection:
        stored = connection.execute(text(f"SELECT id, outcome, device, country FROM {EVENTS} AS v")).all()
    assert sorted(map(tuple, stored)) == sorted(
        (one.id, one.outcome, one.device, one.country) for one in events
    )


def test_two_writers_that_meet_a_kind_first_give_it_one_number(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            mine = event_kinds.ensure(connection, {PLAIN}, TODAY)
            other = pool.submit(_ensured, engine, {PLAIN, PLAIN._replace(device="mobile")}, TODAY)
            wait_until(lambda: transactions_waiting(engine, "event_kinds"), "the other to wait")
        theirs = other.result(20)
    assert theirs[PLAIN] == mine[PLAIN]
    assert len(set(theirs.values())) == 2


def test_a_kind_is_kept_as_long_as_an_event_names_it(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """Also by one that came late, or by a clock that is ahead, to another day than it was written on."""
    rare = [
        make_event(settings, NOW + shift, view_type=view_type)
        for view_type, shift in (("late", -5 * ONE_DAY), ("now", 0 * ONE_DAY), ("ahead", 2 * ONE_DAY))
    ]
    store(engine, redis, settings, rare)
    gone: dict[str, date] = {}
    for number in range(1, 14):
        later = NOW + number * ONE_DAY
        with freeze_time(later):
            store(engine, redis, settings, [make_event(settings, later)])
            rollup.roll_up_closed_days(engine, later.date(), later)
            retention.drop_expired(engine, redis, settings, later)
        assert without_kind(engine) == 0, later
        assert PLAIN in known(engine)
        kept = {kind.view_type for kind in known(engine)}
        for event in rare:
            if event.view_type not in kept:
                gone.setdefault(event.view_type, later.date())
    # raw events are kept for 7 days, and a kind for as many as a clock may be ahead beyond
    assert gone == dict.fromkeys(("late", "now", "ahead"), TODAY + 10 * ONE_DAY)


def test_a_kind_that_comes_again_while_it_is_forgotten_keeps_its_number(engine: Engine) -> None:
    _ensured(engine, {PLAIN}, TODAY - 30 * ONE_DAY)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            mine = event_kinds.ensure(connection, {PLAIN}, TODAY)
            forgetting = pool.submit(_forget, engine, TODAY)
            wait_until(lambda: transactions_waiting(engine, "event_kinds"), "the other to wait")
        forgetting.result(20)
    assert known(engine) == {PLAIN: TODAY}
    assert _ensured(engine, {PLAIN}, TODAY) == mine


def test_a_clock_that_was_ahead_forgets_nothing(engine: Engine) -> None:
    mine = _ensured(engine, {PLAIN}, TODAY + 30 * ONE_DAY)
    assert _ensured(engine, {PLAIN}, TODAY) == mine
    _forget(engine, TODAY)
    assert known(engine) == {PLAIN: TODAY + 30 * ONE_DAY}


def test_a_batch_that_was_taken_back_leaves_no_number_behind(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    events = [make_event(settings, NOW), make_event(settings, NOW, device="toaster")]
    written = store(engine, redis, settings, events)
    assert dict(written.fates) == {"row": 1, "dead_letter": 1}
    assert known(engine) == {PLAIN: TODAY}
    again: list[ViewEvent] = [make_event(settings, NOW, view_type="other"), make_event(settings, NOW)]
    assert dict(store(engine, redis, settings, again).fates) == {"row": 2}
    assert without_kind(engine) == 0


def _ensured(engine: Engine, kinds: set[Kind], today: date) -> dict[Kind, int]:
    with engine.begin() as connection:
        return dict(event_kinds.ensure(connection, kinds, today))


def _forget(engine: Engine, first_kept: date) -> None:
    with engine.begin() as connection:
        event_kinds.forget(connection, first_kept)
