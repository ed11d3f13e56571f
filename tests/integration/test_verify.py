"""The audit finds every number that was changed behind its back, and nothing where only much goes on."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from click.testing import Result
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, text

from footfall import counts, host, keys, readiness, retention, rollup, stream, verify, writer
from footfall.acceptance import Acceptance
from footfall.definitions import FIGURE_COLUMNS
from footfall.event import View, ViewEvent
from footfall.settings import Settings
from footfall.verify import Difference, Verdict
from tests.factory import make_event, store

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY, YESTERDAY, SEALED = date(2026, 3, 10), date(2026, 3, 9), date(2026, 3, 2)
BOOK = ("book", "b1")

Look = Callable[[], Verdict]


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


@pytest.fixture(autouse=True)
def young_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    # Redis stamps its entries by the real clock
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    monkeypatch.setattr(verify, "WRITTEN_SECONDS", 0.3)


def at(day: date, hour: int = 9) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def traffic(settings: Settings, when: datetime) -> list[ViewEvent]:
    """Two pages, one of them twice by one viewer, and a book."""
    one = {"external_id": "/one", "country": "DE"}
    return [
        make_event(settings, when, **one),
        make_event(settings, when, **one),
        make_event(settings, when, **one, visitor=2, authenticated=True),
        make_event(settings, when, external_id="/two", outcome="bot", visitor=None),
        make_event(settings, when, entity_type="book", external_id="b1", view_type="card_view"),
    ]


@pytest.fixture
def take(engine: Engine, redis: Redis, settings: Settings) -> Callable[..., None]:
    """Sends events in by the real door, past Redis or not, and leaves them in the queue."""
    doors = {used: Acceptance(engine, redis, replace(settings, redis_enabled=used)) for used in (True, False)}

    def send(events: list[ViewEvent], *, through_redis: bool = True) -> None:
        doors[through_redis].take([View(event, has_clients_id=True) for event in events], NOW)

    return send


@pytest.fixture
def history(engine: Engine, redis: Redis, settings: Settings, take: Callable[..., None]) -> None:
    """A sealed day, a clean one, and today, half of which is in its daily rows."""
    for day in (SEALED, YESTERDAY, TODAY):
        take(traffic(settings, at(day)))
    writer.drain(engine, redis, settings, "test")
    rollup.roll_up(engine, SEALED, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == [SEALED]
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    rollup.catch_up(engine, TODAY, NOW)
    take(traffic(settings, at(TODAY, 11)))
    writer.drain(engine, redis, settings, "test")


@pytest.fixture
def look(engine: Engine, redis: Redis, settings: Settings) -> Look:
    return lambda: verify.audit(engine, redis, settings, NOW)


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount == 1


def shown(redis: Redis) -> int:
    found = counts.shown(redis, BOOK)
    assert found is not None
    return found["card_view"]


def test_nothing_differs_on_sealed_clean_and_partly_rolled_days(history: None, look: Look) -> None:
    verdict = look()
    assert (verdict.ok, verdict.found, verdict.differences, verdict.not_looked_at) == (True, 0, [], [])
    assert verdict.days == [YESTERDAY, TODAY]
    assert verdict.looked_at == {"daily row": 8, "counter": 2, "shown count": 1, "ledger": 29}


ID = "(SELECT id FROM entities WHERE external_id = '{}')"
OF = "WHERE entity_id = (SELECT id FROM entities WHERE external_id = '{}') AND day = '{}'"
NO_FIGURES = (
    f"INSERT INTO daily_stats (entity_id, entity_type, day, {FIGURE_COLUMNS}) SELECT {ID.format('b2')},"
    " 'book', day, 0, 0, 0, 0, 0, 0, 0" + ", '{}'" * 12 + " FROM event_days WHERE day = '2026-03-09'"
)  # fmt: skip


FIGURES_CHANGED: list[tuple[str, str, str, Any, Any]] = [
    ("/one", "views", "4", 4, 3),
    ("/one", "unique_viewers", "1", 1, 2),
    ("/one", "unique_viewers_authenticated", "0", 0, 1),
    ("/two", "bots", "0", 0, 1),
    ("/one", "views_by_country", """'{"DE": 2, "FR": 1}'""", {"DE": 2, "FR": 1}, {"DE": 3}),
    ("b1", "views_by_type", "'{}'", {}, {"card_view": 1}),
    ("site", "unique_viewers", "3", 3, 2),
    ("site", "views_by_device_authenticated", """'{"mobile": 1}'""", {"mobile": 1}, {"desktop": 1}),
]
KINDS = {"/one": "page", "/two": "page", "b1": "book", "site": "site"}


def test_a_changed_figure_of_a_clean_or_partly_rolled_day_is_found(
    history: None, look: Look, engine: Engine
) -> None:
    for name, figure, changed, stored, recomputed in FIGURES_CHANGED:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE before AS TABLE daily_stats"))
        for day in (YESTERDAY, TODAY):
            change(engine, f"UPDATE daily_stats SET {figure} = {changed} {OF.format(name, day)}")
        found = look().differences
        assert found[:2] == [
            Difference("daily row", figure, stored, recomputed, day, KINDS[name], name)
            for day in (YESTERDAY, TODAY)
        ]
        # the ledger reads the same rows: the number of a closed day's events does not fit either
        is_an_events = figure in ("views", "bots")
        assert [(each.where, each.day) for each in found[2:]] == [("ledger", YESTERDAY)] * is_an_events
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE daily_stats; INSERT INTO daily_stats TABLE before"))
            connection.execute(text("DROP TABLE before"))
    assert look().ok


def test_missing_rows_of_a_clean_or_partly_rolled_day_are_found(
    history: None, look: Look, engine: Engine
) -> None:
    missing = {"b1": 1, "/one": 3, "/two": 0, "site": 3}
    for name in missing:
        for day in (YESTERDAY, TODAY):
            change(engine, f"DELETE FROM daily_stats {OF.format(name, day)}")
    assert look().differences[:8] == [
        Difference("daily row", "row", None, views, day, KINDS[name], name)
        for day in (YESTERDAY, TODAY)
        for name, views in missing.items()
    ]


def test_a_surplus_row_is_found(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings
) -> None:
    with engine.begin() as connection:
        host.put(connection, ("book", "b2"), host.Told({}), NOW)
    change(engine, NO_FIGURES)
    assert look().differences == [Difference("daily row", "row", 0, None, YESTERDAY, "book", "b2")]


def test_a_changed_counter_is_found(history: None, look: Look, engine: Engine) -> None:
    for statement, stored, recomputed in (
        ("UPDATE view_counters SET count = count + 1 WHERE entity_id = " + ID, 5, 4),
        ("UPDATE view_counters SET count = 4, sealed = 0 WHERE entity_id = " + ID, 4, 3),
        ("DELETE FROM view_counters WHERE entity_id = " + ID, None, 3),
    ):
        change(engine, statement.format("b1"))
        assert look().differences[0] == Difference("counter", "card_view", stored, recomputed, None, *BOOK)


def test_a_counter_of_nothing_is_found(history: None, look: Look, engine: Engine) -> None:
    change(
        engine,
        f"INSERT INTO view_counters SELECT {ID.format('/two')}, 'intentional', 2, 1,"
        " created_at, created_at, created_at, created_at FROM entities WHERE external_id = '/two'",
    )
    assert look().differences == [Difference("counter", "intentional", 2, 1, None, "page", "/two")]


def test_a_raw_row_that_somebody_deleted_is_found_everywhere(
    history: None, look: Look, engine: Engine
) -> None:
    change(engine, f"DELETE FROM view_events {OF.format('b1', YESTERDAY)}")
    assert [(each.where, each.figure, each.entity_id) for each in look().differences] == [
        ("daily row", "row", "b1"),
        ("counter", "card_view", "b1"),
    ]
    change(engine, f"DELETE FROM daily_stats {OF.format('b1', YESTERDAY)}")
    assert [(each.where, each.stored, each.recomputed) for each in look().differences] == [
        ("counter", 4, 3),
        ("ledger", 5, 4),
    ]


def test_a_changed_row_of_a_sealed_day_does_not_fit_the_ledger(
    history: None, look: Look, engine: Engine
) -> None:
    change(engine, f"UPDATE daily_stats SET views = views + 1 {OF.format('/one', SEALED)}")
    assert look().differences == [Difference("ledger", "settled", 5, 6, SEALED)]
    change(engine, f"UPDATE daily_stats SET views = views - 1, bots = 3 {OF.format('/one', SEALED)}")
    assert look().differences == [Difference("ledger", "settled", 5, 8, SEALED)]
    change(engine, f"DELETE FROM daily_stats {OF.format('/one', SEALED)}")
    assert look().differences == [Difference("ledger", "settled", 5, 2, SEALED)]


def test_a_ledger_that_does_not_balance_is_found(history: None, look: Look, redis: Redis) -> None:
    for tally in ("accepted", "settled", "duplicates"):
        for by in (1, -1):
            redis.hincrby(keys.LEDGER, f"{YESTERDAY}:{tally}", by)
            found = look().differences
            assert {(each.where, each.day) for each in found} == {("ledger", YESTERDAY)}, (tally, by)
            redis.hincrby(keys.LEDGER, f"{YESTERDAY}:{tally}", -by)
    assert look().ok


def test_a_new_redis_knows_nothing_of_the_days_before_which_is_said_and_no_difference(
    history: None, look: Look, redis: Redis
) -> None:
    redis.flushall()
    found = look()
    assert found.ok
    assert [about for about in found.not_looked_at if "Redis is newer" in about] == [
        f"ledger of {SEALED}, {YESTERDAY}: Redis is newer than these days"
    ]


def test_a_shown_count_that_is_behind_is_found_and_raised(history: None, look: Look, redis: Redis) -> None:
    redis.hset(keys.count(*BOOK), "card_view", 2)
    assert look().differences == [Difference("shown count", "card_view", 2, 4, None, *BOOK)]
    assert shown(redis) == 4
    assert look().ok


def test_a_shown_count_that_is_above_is_found_and_only_lowered_on_request(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings
) -> None:
    redis.hset(keys.count(*BOOK), mapping={"card_view": 7, "made_up": 1})
    above = [
        Difference("shown count", "card_view", 7, 4, None, *BOOK),
        Difference("shown count", "made_up", 1, 0, None, *BOOK),
    ]
    assert look().differences == above
    assert shown(redis) == 7
    assert verify.audit(engine, redis, settings, NOW, lower_shown=True).differences == above
    assert shown(redis) == 4
    assert look().ok


def test_what_is_shown_and_waits_among_the_dead_letters_is_no_difference(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings, take: Callable[..., None]
) -> None:
    bad = make_event(
        settings, NOW, entity_type="book", external_id="b1", view_type="card_view", device="toaster"
    )
    take([bad, bad._replace(id=make_event(settings, NOW).id, outcome="bot")])
    writer.drain(engine, redis, settings, "test")
    assert shown(redis) == 5
    assert look().ok
    redis.hincrby(keys.count(*BOOK), "card_view", 1)
    assert look().differences == [Difference("shown count", "card_view", 6, 5, None, *BOOK)]


def test_of_many_differences_the_first_are_named_and_all_are_counted(
    look: Look, engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, NOW, external_id=f"/{n:02}") for n in range(30)])
    rollup.roll_forward(engine, TODAY, NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE daily_stats SET views = 9, repeats = 9"))
        connection.execute(text("UPDATE view_counters SET count = 9"))
    verdict = look()
    assert verdict.found == 31 * 2 + 30
    assert len(verdict.differences) == verify.MOST
    assert [each.entity_id for each in verdict.differences[:2]] == ["/00", "/00"]


def test_events_that_came_after_the_rollup_are_no_difference_and_hide_none(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings
) -> None:
    late = [make_event(settings, at(YESTERDAY, 10), external_id="/one") for _ in range(3)]
    store(engine, redis, settings, late)
    assert look().ok, "compared up to what the rows hold"
    change(engine, f"UPDATE daily_stats SET views = views + 3 {OF.format('/one', YESTERDAY)}")
    assert ("views", 6, 3) in [(each.figure, each.stored, each.recomputed) for each in look().differences], (
        "the row holds three"
    )


def test_a_day_that_lost_events_is_not_looked_at_until_it_is_rolled_up_again(
    history: None, look: Look, engine: Engine
) -> None:
    with engine.begin() as connection:
        host.erase(connection, ("page", "/one"), NOW)
    verdict = look()
    assert verdict.ok
    assert verdict.days == []
    assert len(verdict.not_looked_at) == 2
    rollup.catch_up(engine, TODAY, NOW)
    verdict = look()
    assert (verdict.ok, verdict.days, verdict.not_looked_at) == (True, [YESTERDAY, TODAY], [])


def test_a_deleted_entity_that_is_still_viewed_is_no_difference(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings, take: Callable[..., None]
) -> None:
    with engine.begin() as connection:
        host.erase(connection, BOOK, NOW)
    counts.forget(redis, BOOK)
    rollup.catch_up(engine, TODAY, NOW)
    take([make_event(settings, NOW, entity_type="book", external_id="b1")])
    assert counts.shown(redis, BOOK) == {"intentional": 1}
    redis.delete(stream.STREAM_KEY)
    assert look().ok


def test_a_queue_that_nobody_writes_leaves_its_counts_and_days_unlooked_at(
    history: None, look: Look, settings: Settings, take: Callable[..., None], redis: Redis, engine: Engine
) -> None:
    take(traffic(settings, at(YESTERDAY)))
    verdict = look()
    assert verdict.ok
    assert [reason.partition(":")[0] for reason in verdict.not_looked_at] == [
        "shown counts of 1 entities",
        "ledger of 2026-03-09",
    ]
    writer.drain(engine, redis, settings, "test")
    assert look().not_looked_at == []


def test_without_redis_the_database_is_compared_all_the_same(
    history: None, engine: Engine, settings: Settings
) -> None:
    away = stream.connect(replace(settings, redis_url="redis://127.0.0.1:1"))
    change(engine, f"UPDATE view_counters SET count = 9 WHERE entity_id = {ID.format('b1')}")
    verdict = verify.audit(engine, away, settings, NOW)
    assert [each.where for each in verdict.differences] == ["counter"]
    assert "REDIS_URL" in verdict.not_looked_at[0]


def test_no_day_is_dropped_while_it_is_looked_at(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [make_event(settings, at(day), external_id="/old") for day in (SEALED, YESTERDAY)]
    store(engine, redis, settings, old)
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    dropped: list[list[date]] = []

    def drop(step: str) -> None:
        if step == str(SEALED):
            dropped.append(retention.drop_expired(engine, redis, settings, NOW))

    verdict = verify.audit(engine, redis, settings, NOW, tell=drop)
    assert (dropped, verdict.differences, verdict.days) == ([[]], [], [SEALED, YESTERDAY])
    assert retention.drop_expired(engine, redis, settings, NOW) == [SEALED]
    assert verify.audit(engine, redis, settings, NOW).ok


def test_nothing_differs_while_views_are_taken_written_rolled_and_dropped(
    history: None, engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views of today and late ones of yesterday, by both ways in, two writers, rollups beside them."""
    monkeypatch.setattr(verify, "WRITTEN_SECONDS", 20)
    done = threading.Event()

    def views(through_redis: bool) -> int:
        door = Acceptance(engine, redis, replace(settings, redis_enabled=through_redis))
        sent = 0
        while not done.is_set():
            events = [*traffic(settings, NOW), *traffic(settings, at(YESTERDAY, sent % 24))]
            door.take([View(event, has_clients_id=True) for event in events], NOW)
            sent += 1
        return sent

    def write(name: str) -> None:
        while not done.is_set():
            writer.drain(engine, redis, settings, name)

    def upkeep() -> None:
        while not done.is_set():
            rollup.catch_up(engine, TODAY, NOW)
            rollup.roll_up_closed_days(engine, TODAY, NOW, recheck=True)
            retention.drop_expired(engine, redis, settings, NOW)

    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(views, True), pool.submit(views, False)]
        others = [pool.submit(write, "one"), pool.submit(write, "two"), pool.submit(upkeep)]
        try:
            verdicts = [verify.audit(engine, redis, settings, NOW) for _ in range(12)]
        finally:
            done.set()
        sent = [each.result() for each in work]
        for other in others:
            other.result()
    assert [verdict.differences for verdict in verdicts] == [[]] * 12
    assert min(sent) > 10, "too little happened to prove anything"
    writer.drain(engine, redis, settings, "one")
    verdict = verify.audit(engine, redis, settings, NOW)
    assert (verdict.differences, verdict.not_looked_at) == ([], [])


def test_the_verdict_is_kept_for_a_while_and_shown_by_readiness(
    history: None, look: Look, engine: Engine, redis: Redis, settings: Settings
) -> None:
    assert readiness.check(engine, redis, settings, NOW).checks["audit"] == {"ok": True, "last": None}
    look()
    moment = NOW.isoformat()
    assert readiness.check(engine, redis, settings, NOW).checks["audit"] == {
        "ok": True,
        "last": moment,
        "differences": 0,
    }
    change(engine, f"UPDATE daily_stats SET repeats = 1 {OF.format('/one', TODAY)}")
    later = NOW + timedelta(minutes=1)
    verify.audit(engine, redis, settings, later)
    found = readiness.check(engine, redis, settings, NOW)
    assert found.ready, "it keeps nobody away"
    assert not found.checks["audit"]["ok"]
    assert found.checks["audit"]["differences"] == 1
    assert "/one" not in str(found.checks["audit"]), "readiness is for everybody"
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT days, ok, differences FROM audits ORDER BY id")).all()
    assert [(row.days, row.ok) for row in rows] == [([YESTERDAY, TODAY], True), ([YESTERDAY, TODAY], False)]
    (difference,) = rows[1].differences
    assert (difference["entity_id"], difference["day"], difference["figure"]) == (
        "/one",
        str(TODAY),
        "repeats",
    )
    verify.audit(engine, redis, settings, NOW + verify.KEPT + timedelta(seconds=30))
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT audited_at FROM audits ORDER BY id")).all()[0] == later


@pytest.fixture
def run(footfall: Callable[..., Result]) -> Callable[..., Result]:
    """Calls the command for the tests' servers."""
    return partial(footfall, "verify")


def test_the_command_says_what_it_looked_at_and_what_differs(
    history: None, run: Callable[..., Result], engine: Engine
) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert "8 daily rows of 2026-03-09, 2026-03-10" in result.output
    assert "no differences" in result.output
    with engine.begin() as connection:
        connection.execute(text("UPDATE daily_stats SET bots = 7, views_authenticated = 7, own_views = 7"))
        connection.execute(text("UPDATE view_counters SET count = 9"))
        connection.execute(text(f"DELETE FROM daily_stats {OF.format('b1', TODAY)}"))
    result = run()
    assert result.exit_code == 1
    assert "daily row of page /one on 2026-03-09, bots: stored 7, recomputed 0" in result.output
    assert "daily row of book b1 on 2026-03-10, row: stored no row, recomputed 1" in result.output
    assert "and 7 more" in result.output
    result = run("--json")
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert (answer["ok"], answer["found"], len(answer["differences"])) == (
        False,
        26,
        20,
    )  # the shown count is raised by now
    assert answer["differences"][0]["day"] == "2026-03-09"


def test_the_command_lowers_only_when_told(history: None, run: Callable[..., Result], redis: Redis) -> None:
    redis.hset(keys.count(*BOOK), "card_view", 9)
    assert run().exit_code == 1
    assert run("--lower-shown").exit_code == 1
    assert run().exit_code == 0
    assert shown(redis) == 4


def test_the_command_without_a_store_says_which(run: Callable[..., Result]) -> None:
    result = run(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert result.exit_code == 1
    assert "check DATABASE_URL" in result.output
    assert "Traceback" not in result.output
    result = run(REDIS_URL="redis://127.0.0.1:1")
    assert "check REDIS_URL" in result.output
