"""Rollups replace: twice, late, in parallel and beside a writer give the same rows."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError

from footfall import database, days, definitions, entities, host, rollup, stats, writer
from footfall.database import read_snapshot
from footfall.definitions import FIGURE_COLUMNS, FIGURES
from footfall.event import ViewEvent
from footfall.settings import Settings
from tests.factory import make_event, store
from tests.waiting import transactions_waiting, wait_until

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY = date(2026, 3, 10)
DAY = date(2026, 3, 9)
AT = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
SEEN = """(
    SELECT entity_id, visitor FROM seen_visitors
    UNION ALL SELECT entity_id, unnest(visitors) FROM seen_runs WHERE NOT authenticated
) AS seen (entity_id, visitor)"""
SEEN_OF = text(f"SELECT count(*) FROM {SEEN} WHERE entity_id = :id")


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


def daily_rows(engine: Engine) -> dict[tuple[str, str], dict[str, Any]]:
    """{(external id, day): figures}"""
    query = text(
        "SELECT e.external_id, s.* FROM daily_stats s JOIN entities e ON e.id = s.entity_id ORDER BY 1, day"
    )
    with engine.connect() as connection:
        return {
            (row.external_id, str(row.day)): {name: getattr(row, name) for name in FIGURES}
            for row in connection.execute(query)
        }


def traffic(settings: Settings) -> list[Any]:
    """A day with every kind of event: 2 pages and a book."""
    one = {"external_id": "/one", "country": "DE", "referrer_domain": "example.org", "visitor": 11}
    return [
        make_event(settings, AT, **one),
        make_event(settings, AT, **one | {"view_type": "listing"}),
        make_event(settings, AT, **one | {"visitor": 12, "device": "mobile", "authenticated": True}),
        make_event(settings, AT, **one | {"visitor": None, "country": None, "referrer_domain": None}),
        make_event(settings, AT, external_id="/one", outcome="bot", visitor=None),
        make_event(settings, AT, external_id="/two", visitor=11, view_source="widget"),
        make_event(settings, AT, external_id="/two", visitor=13, outcome="repeat"),
        make_event(settings, AT, external_id="/two", visitor=13, outcome="repeat"),
        make_event(settings, AT, external_id="/two", visitor=14, outcome="own"),
        make_event(settings, AT, entity_type="book", external_id="b1", visitor=99, country="FR"),
    ]


def test_a_day_is_counted_by_the_definitions(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    result = rollup.roll_up(engine, DAY, NOW)
    assert result is not None
    assert result.rows == 4
    rows = daily_rows(engine)
    assert set(rows) == {(name, "2026-03-09") for name in ("/one", "/two", "b1", "site")}
    assert rows["/one", "2026-03-09"] == {
        "views": 4,
        "unique_viewers": 2,
        "views_authenticated": 1,
        "unique_viewers_authenticated": 1,
        "bots": 1,
        "own_views": 0,
        "repeats": 0,
        "views_by_country": {"DE": 3, "ZZ": 1},
        "views_by_device": {"desktop": 3, "mobile": 1},
        "views_by_type": {"intentional": 3, "listing": 1},
        "views_by_source": {"web": 4},
        "views_by_referrer": {"example.org": 3},
        "views_by_country_authenticated": {"DE": 1},
        "views_by_device_authenticated": {"mobile": 1},
        "views_by_type_authenticated": {"intentional": 1},
        "views_by_source_authenticated": {"web": 1},
        "views_by_referrer_authenticated": {"example.org": 1},
        "views_by_hour": {},
        "views_by_hour_authenticated": {},
    }
    site = rows["site", "2026-03-09"]
    assert (site["views"], site["unique_viewers"]) == (5, 2), "pages only, visitors never added up"
    assert site["views_by_country"] == {"DE": 3, "ZZ": 2}
    assert (site["bots"], site["own_views"], site["repeats"]) == (1, 1, 2)
    assert site["views_by_hour"] == {"2026-03-09T15:00:00+00:00": 5}
    assert site["views_by_hour_authenticated"] == {"2026-03-09T15:00:00+00:00": 1}
    assert rows["/two", "2026-03-09"]["views"] == 1


def test_an_entity_with_only_uncounted_events_has_a_row_that_says_so(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, [make_event(settings, AT, outcome="bot", visitor=None)])
    rollup.roll_up(engine, DAY, NOW)
    row = daily_rows(engine)["/", "2026-03-09"]
    assert (row["views"], row["bots"], row["views_by_device"]) == (0, 1, {})


def test_rolling_up_twice_changes_nothing(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up(engine, DAY, NOW)
    once = daily_rows(engine)
    rollup.roll_up(engine, DAY, NOW + timedelta(days=3))
    assert daily_rows(engine) == once


def test_rolling_up_late_changes_nothing(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    in_time = daily_rows(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE daily_stats, rollup_days"))
    late = rollup.roll_up_closed_days(engine, TODAY + timedelta(days=7), NOW + timedelta(days=7))
    assert [result.day for result in late] == [DAY]
    assert daily_rows(engine) == in_time


def test_rollups_at_the_same_time_change_nothing(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up(engine, DAY, NOW)
    alone = daily_rows(engine)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: rollup.roll_up(engine, DAY, NOW), range(24)))
    assert daily_rows(engine) == alone


def test_a_second_rollup_of_a_day_is_skipped_while_the_first_runs(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    with _rollup_held_up(engine) as held:
        assert rollup.roll_up(engine, DAY, NOW) is None
        held.release()
    assert rollup.roll_up(engine, DAY, NOW) is not None, "the lock is free again"


def test_an_event_committed_during_the_rollup_is_in_the_row_after_the_next_tick(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    late = make_event(settings, AT, external_id="/one", visitor=77)
    with _rollup_held_up(engine) as held:
        store(engine, redis, settings, [late])
        held.release()
    assert daily_rows(engine)["/one", "2026-03-09"]["views"] == 4, "computed from the snapshot before it"
    assert _seen_by_a_reader(engine, "/one") == 5, "and no reader is told so"
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    assert daily_rows(engine)["/one", "2026-03-09"]["views"] == 5
    with engine.connect() as connection:
        assert rollup.days_to_roll(connection, TODAY) == []


def test_an_event_not_yet_committed_when_the_rollup_ends_leaves_the_day_unclean(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    late = writer.Incoming(99, 0, make_event(settings, AT, external_id="/one"), b"")
    with engine.begin() as connection:
        writer.write_batch(connection, [late], NOW, settings)
        rollup.roll_up(engine, DAY, NOW)
    with engine.connect() as connection:
        assert rollup.days_to_roll(connection, TODAY) == [DAY]
    assert _seen_by_a_reader(engine, "/one") == 5


def test_readers_see_no_dip_while_days_are_written_and_rolled_up(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """The number that a reader sees only grows, through every write, rollup and seam between the two."""
    store(engine, redis, settings, [make_event(settings, AT)])
    done = threading.Event()

    def read() -> list[int]:
        seen = []
        while not done.is_set():
            seen.append(_seen_by_a_reader(engine, "/"))
        return seen

    def roll() -> None:
        while not done.is_set():
            rollup.catch_up(engine, TODAY, NOW)
            rollup.roll_up_closed_days(engine, TODAY, NOW)

    with ThreadPoolExecutor(3) as pool:
        readers, roller = [pool.submit(read), pool.submit(read)], pool.submit(roll)
        for _ in range(60):
            store(engine, redis, settings, [make_event(settings, AT), make_event(settings, NOW)])
        done.set()
        roller.result()
        seen = [reader.result() for reader in readers]
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    assert _seen_by_a_reader(engine, "/") == 121
    for numbers in seen:
        assert len(set(numbers)) > 10, "the reader saw too little to prove anything"
        assert numbers == sorted(numbers)


def test_today_is_never_rolled_up_by_the_tick(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, [make_event(settings, NOW), make_event(settings, AT)])
    assert [result.day for result in rollup.roll_up_closed_days(engine, TODAY, NOW)] == [DAY]


def test_rolling_forward_gives_the_rows_of_a_whole_rollup(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """In many small steps, with visitors who come again, sign in later, or view two pages."""
    chance = random.Random(1)
    for step in range(20):
        events = [_any_event(settings, chance) for _ in range(step + 1)]
        store(engine, redis, settings, [*events, *(traffic(settings) if step % 8 == 0 else [])])
        result = rollup.roll_forward(engine, DAY, NOW)
        assert result is not None
        assert 2 <= result.rows <= 2 * len(events) + 5, "only rows of what came are touched"
    forward = daily_rows(engine)
    assert forward["site", "2026-03-09"]["unique_viewers"] > 4
    rollup.roll_up(engine, DAY, NOW)
    assert daily_rows(engine) == forward


def test_rolling_forward_adds_only_what_came_and_the_nightly_rollup_checks_it(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_forward(engine, DAY, NOW)
    right = daily_rows(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE daily_stats SET views = views + 100"))
    assert rollup.roll_forward(engine, DAY, NOW) == rollup.RollupResult(DAY, rows=0, version=1)
    store(engine, redis, settings, [make_event(settings, AT, external_id="/one", visitor=11, country="DE")])
    rollup.catch_up(engine, TODAY, NOW)
    assert daily_rows(engine)["/one", "2026-03-09"]["views"] == 105, "the old row and one more"
    assert daily_rows(engine)["/one", "2026-03-09"]["unique_viewers"] == 2, "who was seen before"
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    assert daily_rows(engine)["/one", "2026-03-09"]["views"] == 105, "it looks clean"
    rollup.roll_up_closed_days(engine, TODAY, NOW, recheck=True)
    assert daily_rows(engine)["/one", "2026-03-09"]["views"] == 5
    assert daily_rows(engine)["/two", "2026-03-09"] == right["/two", "2026-03-09"]
    assert rollup.roll_forward(engine, DAY, NOW) == rollup.RollupResult(DAY, rows=0, version=2)


def test_a_day_that_was_rolled_up_as_a_whole_is_rolled_forward_from_there(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    with engine.begin() as connection:
        connection.execute(text("UPDATE daily_stats SET views = views + 100"))
    store(engine, redis, settings, [make_event(settings, AT, external_id="/one", visitor=77)])
    rollup.catch_up(engine, TODAY, NOW)
    row = daily_rows(engine)["/one", "2026-03-09"]
    assert (row["views"], row["unique_viewers"]) == (105, 3)


def test_a_day_that_was_rolled_up_without_its_visitors_is_never_added_to(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_forward(engine, DAY, NOW)
    rollup.roll_up(engine, DAY, NOW)
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM {SEEN}")) == 0
    rollup.roll_forward(engine, DAY, NOW)
    store(engine, redis, settings, [make_event(settings, AT, external_id="/one", visitor=11)])
    assert _seen_by_a_reader(engine, "/one") == 5
    rollup.roll_forward(engine, DAY, NOW)
    assert daily_rows(engine)["/one", "2026-03-09"]["unique_viewers"] == 2


def test_what_an_erasure_took_away_is_not_added_to(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_forward(engine, DAY, NOW)
    with engine.begin() as connection:
        page = entities.find(connection, "page", "/one")
        assert page is not None
        assert connection.scalar(SEEN_OF, {"id": page.id}) == 2
        host.erase(connection, ("page", "/one"), NOW)
        assert connection.scalar(SEEN_OF, {"id": page.id}) == 0
    for _ in range(2):
        with read_snapshot(engine) as connection:
            span = stats.Span.ending_today(7, NOW, UTC)
            assert stats.sitewide_stats(connection, span)["total_page_views"] == 1
        rollup.catch_up(engine, TODAY, NOW)
    assert daily_rows(engine)["site", "2026-03-09"]["views"] == 1
    with engine.connect() as connection:
        assert set(connection.scalars(text(f"SELECT visitor FROM {SEEN}"))) == {11, 99}


def test_whom_only_an_erased_page_had_is_new_to_the_site(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """Remembered in a run and, later, in a row."""
    later = [make_event(settings, AT, external_id="/one", visitor=21)]
    for events in (traffic(settings), later):
        store(engine, redis, settings, events)
        rollup.roll_forward(engine, DAY, NOW)
    with engine.begin() as connection:
        host.erase(connection, ("page", "/one"), NOW)
    rollup.catch_up(engine, TODAY, NOW)
    again = [make_event(settings, AT, external_id="/two", visitor=visitor) for visitor in (11, 12, 21)]
    store(engine, redis, settings, again)
    rollup.catch_up(engine, TODAY, NOW)
    assert daily_rows(engine)["site", "2026-03-09"]["unique_viewers"] == 3


def test_an_erasure_while_the_day_is_rolled_forward_wins(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    store(engine, redis, settings, traffic(settings))
    with _rollup_held_up(engine, rollup.roll_forward) as held:
        with engine.begin() as connection:
            host.erase(connection, ("page", "/one"), NOW)
        held.release()
    assert _site_views(engine) == 1
    rollup.catch_up(engine, TODAY, NOW)
    assert _site_views(engine) == daily_rows(engine)["site", "2026-03-09"]["views"] == 1


def test_a_rollup_that_finds_everything_right_writes_nothing(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    def places() -> list[Any]:
        with engine.connect() as connection:
            return [
                connection.execute(text(f"SELECT ctid, xmin FROM {table} ORDER BY 1")).all()
                for table in ("daily_stats", "seen_runs")
            ]

    store(engine, redis, settings, traffic(settings))
    assert rollup.roll_up(engine, DAY, NOW, keep_visitors=True) == rollup.RollupResult(DAY, rows=4, version=1)
    before = places()
    assert all(before)
    rollup.roll_up_closed_days(engine, TODAY, NOW, recheck=True)
    assert places() == before


def test_a_rollup_writes_the_rows_that_are_not_so(engine: Engine, redis: Redis, settings: Settings) -> None:
    """Changed, too many, or missing; of figures, and of whom they count."""
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up(engine, DAY, NOW, keep_visitors=True)
    right, seen = daily_rows(engine), _runs(engine)
    for table, wrong in (
        ("daily_stats", "UPDATE daily_stats SET views_by_hour = '{\"x\": 1}' WHERE unique_viewers = 1"),
        ("daily_stats", "DELETE FROM daily_stats WHERE views = 1"),
        ("seen_runs", "UPDATE seen_runs SET authenticated = NOT authenticated"),
        ("seen_runs", "UPDATE seen_runs SET visitors = visitors || CAST(5 AS bigint)"),
        ("seen_runs", "UPDATE seen_runs SET first = first - 1"),
        ("seen_runs", "DELETE FROM seen_runs"),
    ):
        with engine.begin() as connection:
            assert connection.execute(text(wrong)).rowcount, wrong
        result = rollup.roll_up(engine, DAY, NOW, keep_visitors=True)
        assert result is not None
        assert (result.rows > 0) == (table == "daily_stats")
        assert daily_rows(engine) == right
        assert _runs(engine) == seen
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO entities (entity_type, external_id, created_at)"
                                " VALUES ('page', '/none', '2026-03-09')"))  # fmt: skip
        connection.execute(text(
            f"INSERT INTO daily_stats (entity_id, entity_type, day, {FIGURE_COLUMNS})"
            f" SELECT e.id, 'page', day, {FIGURE_COLUMNS} FROM daily_stats s, entities e"
            " WHERE e.external_id = '/none' LIMIT 1"
        ))  # fmt: skip
    rollup.roll_up(engine, DAY, NOW, keep_visitors=True)
    assert daily_rows(engine) == right


def test_whoever_stands_in_a_run_of_a_whole_rollup_is_known_again(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First, last and in the middle of runs; who is between them, before and behind is new; some sign in."""
    monkeypatch.setattr(definitions, "RUN", 3)

    def views(visitors: Iterable[int], **more: Any) -> list[ViewEvent]:
        return [make_event(settings, AT, external_id="/one", visitor=each, **more) for each in visitors]

    store(engine, redis, settings, [*views(range(0, 100, 10)), *views([20], authenticated=True)])
    rollup.roll_up(engine, DAY, NOW, keep_visitors=True)
    assert [run for _, run, _ in _runs(engine)[:4]] == [[0, 10, 20], [30, 40, 50], [60, 70, 80], [90]]
    for came, new in (([0, 20, 30, 50, 70, 90], 0), ([-1, 5, 25, 95], 4), ([-1, 5, 25, 95], 0)):
        before = daily_rows(engine)["/one", "2026-03-09"]["unique_viewers"]
        store(engine, redis, settings, views(came))
        rollup.roll_forward(engine, DAY, NOW)
        assert daily_rows(engine)["/one", "2026-03-09"]["unique_viewers"] == before + new
    for signed_in, all_together in (([20], 1), ([40, 25], 3), ([40, 25], 3)):
        store(engine, redis, settings, views(signed_in, authenticated=True))
        rollup.roll_forward(engine, DAY, NOW)
        row = daily_rows(engine)["/one", "2026-03-09"]
        assert (row["unique_viewers"], row["unique_viewers_authenticated"]) == (14, all_together)
    forward = daily_rows(engine)
    rollup.roll_up(engine, DAY, NOW, keep_visitors=True)
    assert daily_rows(engine) == forward


def test_visitors_are_forgotten_the_day_after(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.catch_up(engine, DAY, NOW)

    def remembered() -> int:
        with engine.connect() as connection:
            count: int = connection.execute(text(f"SELECT count(*) FROM {SEEN}")).scalar_one()
            return count

    assert remembered() == 6
    rollup.catch_up(engine, TODAY, NOW)
    assert remembered() == 6
    rollup.catch_up(engine, TODAY + timedelta(days=1), NOW)
    assert remembered() == 0
    store(engine, redis, settings, [make_event(settings, AT, external_id="/one", visitor=11)])
    rollup.catch_up(engine, TODAY + timedelta(days=1), NOW)
    row = daily_rows(engine)["/one", "2026-03-09"]
    assert (row["views"], row["unique_viewers"]) == (5, 2), "a latecomer: computed as a whole"
    assert remembered() == 0


def test_whoever_sees_a_version_sees_all_rows_up_to_it(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    """Two writers of one day: the second waits, so that no row appears behind what was rolled forward."""
    store(engine, redis, settings, [make_event(settings, AT)])
    first, second = (
        [writer.Incoming(entry, 0, make_event(settings, AT, external_id=f"/{entry}"), b"")]
        for entry in (98, 99)
    )
    with ThreadPoolExecutor(1) as pool, engine.begin() as connection:
        writer.write_batch(connection, first, NOW, settings)
        later = pool.submit(
            writer.in_transaction, engine, lambda c: writer.write_batch(c, second, NOW, settings)
        )
        wait_until(lambda: transactions_waiting(engine) == 1, "the second writer to wait")
        rollup.roll_forward(engine, DAY, NOW)
        connection.commit()
        later.result()
    rollup.roll_forward(engine, DAY, NOW)
    assert {name for name, _ in daily_rows(engine)} == {"/", "/98", "/99", "site"}
    with engine.connect() as connection:
        versions = connection.execute(text("SELECT version FROM view_events ORDER BY 1")).scalars().all()
    assert versions == [1, 2, 3]


def test_a_writer_that_hangs_in_its_transaction_is_put_off(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_TIMEOUT_MS", 300)
    hanging = database.make_engine(settings)
    one, other = (
        [writer.Incoming(entry, 0, make_event(settings, AT, external_id=f"/{entry}"), b"")]
        for entry in (98, 99)
    )
    writer.open_days(engine, settings, [make_event(settings, AT)], NOW)
    connection = hanging.connect()
    writer.write_batch(connection, one, NOW, settings)
    # that one does nothing more; the other waits for it, and then goes on
    assert writer.in_transaction(engine, lambda c: writer.write_batch(c, other, NOW, settings)) == ["row"]
    with pytest.raises(OperationalError):
        connection.commit()
    connection.invalidate()
    hanging.dispose()


def test_a_day_that_was_never_opened_has_nothing_to_roll_up(engine: Engine) -> None:
    assert rollup.roll_up(engine, DAY, NOW) is None


def test_daily_rows_outlive_a_table_that_somebody_has_taken_away(
    engine: Engine, redis: Redis, settings: Settings
) -> None:
    before = DAY - timedelta(days=1)
    first = make_event(settings, AT - timedelta(days=1))
    store(engine, redis, settings, [first])
    rollup.roll_up(engine, before, NOW)
    rows = daily_rows(engine)
    store(engine, redis, settings, [first._replace(id=uuid4()), make_event(settings, AT)])
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {days.partition_name(before)}"))
    try:
        done = rollup.roll_up_closed_days(engine, TODAY, NOW)
        assert [one.day for one in done] == [DAY], "a day that cannot be rolled up held up the others"
        assert rows.items() <= daily_rows(engine).items()
    finally:
        with engine.begin() as connection:
            days.make_partition(connection, before)


def test_a_days_table_may_have_any_name(engine: Engine, redis: Redis, settings: Settings) -> None:
    store(engine, redis, settings, traffic(settings))
    name = days.partition_name(DAY)
    with engine.begin() as connection:
        connection.execute(text(f'ALTER TABLE {name} RENAME TO "Somebody\'s events"'))
    try:
        rollup.roll_up(engine, DAY, NOW)
        assert daily_rows(engine)["/one", str(DAY)]["views"] == 4
    finally:
        with engine.begin() as connection:
            connection.execute(text(f'ALTER TABLE "Somebody\'s events" RENAME TO {name}'))


def test_a_failed_rollup_leaves_the_old_rows_and_frees_the_lock(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, redis, settings, traffic(settings))
    rollup.roll_up(engine, DAY, NOW)
    before = daily_rows(engine)
    with monkeypatch.context() as patch:
        patch.setattr(rollup, "_note", _failing)
        with pytest.raises(RuntimeError):
            rollup.roll_up(engine, DAY, NOW)
    assert daily_rows(engine) == before
    assert rollup.roll_up(engine, DAY, NOW) is not None


def _runs(engine: Engine) -> list[Any]:
    query = text("SELECT entity_id, visitors, authenticated FROM seen_runs ORDER BY 1 DESC, 3, first")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def _any_event(settings: Settings, chance: random.Random) -> ViewEvent:
    return make_event(
        settings,
        AT + timedelta(minutes=chance.randrange(-600, 500)),
        external_id=chance.choice(["/one", "/two", "/three"]),
        visitor=chance.choice([None, *range(8)]),
        authenticated=chance.random() < 0.5,
        country=chance.choice([None, "DE", "FR"]),
        referrer_domain=chance.choice([None, "a.example", "b.example"]),
        outcome=chance.choice(["counted", "counted", "counted", "bot", "own", "repeat"]),
    )


def _failing(*_: Any) -> int:
    raise RuntimeError


def _seen_by_a_reader(engine: Engine, path: str) -> int:
    with read_snapshot(engine) as connection:
        page = entities.find(connection, "page", path)
        assert page is not None
        views: int = stats.entity_stats(connection, page, stats.Span.ending_today(7, NOW, UTC))["total_views"]
        return views


def _site_views(engine: Engine) -> int:
    with read_snapshot(engine) as connection:
        views: int = stats.sitewide_stats(connection, stats.Span.ending_today(7, NOW, UTC))[
            "total_page_views"
        ]
        return views


class _rollup_held_up:  # noqa: N801 - reads as a statement
    """A rollup of DAY in another thread, stopped after its snapshot was taken until `release` is called."""

    def __init__(self, engine: Engine, what: Callable[..., object] = rollup.roll_up) -> None:
        self._engine = engine
        self._what = what
        self._inside = threading.Event()
        self._go_on = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "_rollup_held_up":
        event.listen(self._engine, "before_cursor_execute", self._hold)
        self._future = self._pool.submit(self._what, self._engine, DAY, NOW)
        assert self._inside.wait(20)
        return self

    def release(self) -> None:
        self._go_on.set()
        self._future.result()

    def __exit__(self, *_: object) -> None:
        self.release()
        event.remove(self._engine, "before_cursor_execute", self._hold)
        self._pool.shutdown()

    def _hold(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "DELETE FROM daily_stats AS d" in statement:
            self._inside.set()
            assert self._go_on.wait(20)


def test_few_later_events_are_left_to_the_readers_for_some_minutes(
    engine: Engine, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def caught_up(later: timedelta) -> bool:
        return bool(rollup.catch_up(engine, TODAY, NOW + later, sparing=True))

    def one_more(visitor: int) -> None:
        store(engine, redis, settings, [make_event(settings, AT, external_id="/one", visitor=visitor)])

    store(engine, redis, settings, traffic(settings))
    assert caught_up(timedelta(0))  # never rolled: readers would have to add all of it
    one_more(991)
    assert not caught_up(rollup.LONG - timedelta(seconds=1))
    assert caught_up(rollup.LONG)
    one_more(992)
    assert not caught_up(rollup.LONG)
    monkeypatch.setattr(rollup, "MANY", 1)
    assert caught_up(rollup.LONG)


def test_a_new_day_is_not_taken_for_an_empty_one(engine: Engine, redis: Redis, settings: Settings) -> None:
    """Without statistics, a first roll-up of a million events took ten minutes and more."""
    store(engine, redis, settings, [make_event(settings, NOW, external_id=f"/{n}") for n in range(50)])
    sizes = text(
        "SELECT reltuples FROM pg_class JOIN pg_inherits ON inhrelid = oid"
        " WHERE inhparent = 'view_events'::regclass AND pg_relation_size(oid) > 0"
    )
    with engine.connect() as connection:
        assert connection.scalars(sizes).all() == [-1]
    rollup.roll_up(engine, NOW.date(), NOW)
    with engine.connect() as connection:
        assert connection.scalars(sizes).all() == [50]


@pytest.mark.parametrize("is_whole", [True, False])
def test_no_row_is_compared_with_every_other(
    is_whole: bool, engine: Engine, redis: Redis, settings: Settings
) -> None:
    """Of what has just come there are no statistics; taken for nothing, 10,000 events took four seconds."""
    events = [make_event(settings, NOW, external_id=f"/{n}", visitor=n) for n in range(500)]
    store(engine, redis, settings, events[:100])
    rollup.roll_up(engine, NOW.date(), NOW, keep_visitors=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    store(engine, redis, settings, events[100:])
    plans: list[dict[str, Any]] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("CREATE TEMP TABLE"):
            query = statement.partition(" ON COMMIT DROP AS ")[2]
            cursor.execute(f"EXPLAIN (FORMAT JSON) {query}", parameters)
            plans.append(cursor.fetchone()[0][0]["Plan"])

    event.listen(engine, "before_cursor_execute", explain)
    try:
        if is_whole:
            rollup.roll_up(engine, NOW.date(), NOW, keep_visitors=True)
        else:
            rollup.roll_forward(engine, NOW.date(), NOW)
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    assert len(plans) == (2 if is_whole else 3)
    # but for the look for each viewer in an index, which is a left join, cutting arrays into runs, and
    # the labels of each kind
    few = {"Function Scan", "Values Scan", "Memoize"}
    loops = [node for plan in plans for node in _nodes(plan) if node["Node Type"] == "Nested Loop"]
    assert loops
    for loop in loops:
        inner = {node["Node Type"] for node in _nodes(loop["Plans"][1])}
        assert loop["Join Type"] == "Left" or inner <= few, loop


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of a plan, but for what is looked up for each row of a left join."""
    yield plan
    looks_up = plan["Node Type"] == "Nested Loop" and plan["Join Type"] == "Left"
    for child in plan.get("Plans", ()):
        if not (looks_up and child["Parent Relationship"] == "Inner"):
            yield from _nodes(child)
