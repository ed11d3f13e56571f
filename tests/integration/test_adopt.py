"""Taking over another site's counts: each of its views once, whatever is run again or goes on meanwhile."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, text

from footfall import adoption, days, entities, host, ledger, retention, rollup, stats, stream, verify
from footfall.cli import main
from footfall.database import read_snapshot
from footfall.settings import Settings
from tests.factory import EVENTS, PEPPER, SECRET, make_event, make_settings, store
from tests.integration.content import Open

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TODAY = date(2026, 3, 10)
BEFORE = TODAY - timedelta(days=5)

BOOKS = """
    CREATE TABLE book_view_statistics (
        id serial, book_id integer, view_type varchar(40), view_count integer,
        last_viewed_at timestamp, created_at timestamp, updated_at timestamp)
"""
COUNTERS = """
    CREATE TABLE "ViewCounterTotal" (
        key text PRIMARY KEY, namespace text NOT NULL, "entityId" text, path text,
        total integer NOT NULL DEFAULT 0,
        "createdAt" timestamp(3) NOT NULL, "updatedAt" timestamp(3) NOT NULL);
    CREATE TABLE "ViewCounterDaily" (
        id text PRIMARY KEY, key text NOT NULL, day timestamp(3) NOT NULL, count integer NOT NULL DEFAULT 0,
        UNIQUE (key, day))
"""
DAILY = """
    CREATE TABLE blog_post_stats_daily (
        id integer PRIMARY KEY, blog_post_id integer, date date NOT NULL, total_views integer DEFAULT 0,
        unique_viewers integer DEFAULT 0, views_by_country jsonb DEFAULT '{}',
        views_by_device jsonb DEFAULT '{}', views_by_type jsonb DEFAULT '{}')
"""
COUNTER = "INSERT INTO \"ViewCounterTotal\" VALUES (:key, :ns, :id, :path, :n, '2025-01-01', '2026-01-01')"
OF_DAY = 'INSERT INTO "ViewCounterDaily" VALUES (:key || :day, :key, CAST(:day AS date), :n)'
POST_DAY = (
    "INSERT INTO blog_post_stats_daily"
    " SELECT coalesce(max(id), 0) + 1, :post, CAST(:day AS date), :n, :viewers,"
    " CAST(:country AS jsonb), CAST(:device AS jsonb), CAST(:type AS jsonb)"
    " FROM blog_post_stats_daily"
)

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with freeze_time(NOW):
        yield


@pytest.fixture
def old_url(postgres_url: str) -> Iterator[str]:
    """The other site's database."""
    server = create_engine(
        make_settings(DATABASE_URL=postgres_url).database_url, isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE old_site"))
        url = server.url.set(database="old_site", drivername="postgresql")
        yield url.render_as_string(hide_password=False)
        connection.execute(text("DROP DATABASE old_site WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def old(old_url: str) -> Iterator[Connection]:
    """A connection to it; each statement is committed."""
    engine = create_engine(make_settings(DATABASE_URL=old_url).database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def adopt(
    settings: Settings,
    engine: Engine,
    redis: Redis,
    old_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Calls the command on the tests' servers."""
    # Redis stamps its entries by the real clock
    monkeypatch.setattr(adoption, "OLDEST_ENTRY", timedelta(days=100_000))
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "FOOTFALL_PEPPER": PEPPER,
        "FOOTFALL_JWT_SECRET": SECRET,
    }

    def call(*words: str, url: str = old_url) -> Result:
        command = ["adopt", "--from", url, "--data-dir", str(tmp_path), *words]
        return CliRunner().invoke(main, command, env=environment)

    return call


@pytest.fixture(autouse=True)
def balanced(engine: Engine, redis: Redis, settings: Settings) -> Iterator[None]:
    """After each test: every count is what was sealed and the raw rows, every day's ledger balances, and the
    audit finds nothing.
    """
    yield
    query = text(f"""
        SELECT c.entity_id, c.view_type, c.count, c.sealed, count(v.id) AS raw
        FROM view_counters AS c LEFT JOIN {EVENTS} AS v
            ON v.entity_id = c.entity_id AND v.view_type = c.view_type AND v.outcome = 'counted'
        GROUP BY 1, 2, 3, 4 HAVING c.count <> c.sealed + count(v.id)
    """)
    span = stats.Span.ending_today(31, NOW, UTC)
    with read_snapshot(engine) as connection:
        assert connection.execute(query).all() == []
        lines = ledger.ledger(connection, redis, span.days, NOW, UTC)
    assert [line for line in lines if not line["balanced"]] == []
    assert verify.audit(engine, redis, settings, NOW).differences == []


def counters(engine: Engine) -> dict[tuple[str, str, str], int]:
    query = (
        "SELECT entity_type, external_id, view_type, count FROM view_counters JOIN entities ON id = entity_id"
    )
    with engine.connect() as connection:
        return {tuple(row[:3]): row[3] for row in connection.execute(text(query))}


def everything(engine: Engine) -> dict[str, list[Any]]:
    """All rows that adopting could change, and where keys go on."""
    tables = ("entities", "view_counters", "daily_stats", "event_days", "rollup_days", "adoptions", "tallies",
              "shown_behind", "pg_sequences")  # fmt: skip
    with engine.connect() as connection:
        return {
            name: sorted(connection.scalars(text(f"SELECT CAST(t AS text) FROM {name} AS t")).all())
            for name in tables
        }


def of_days(engine: Engine, entity_type: str, external_id: str) -> dict[str, Any]:
    """What a reader gets of an entity over 30 days."""
    with read_snapshot(engine) as connection:
        entity = entities.find(connection, entity_type, external_id)
        assert entity is not None
        return stats.entity_stats(connection, entity, stats.Span.ending_today(30, NOW, UTC))


def views_by_day(answer: dict[str, Any], name: str = "daily_views") -> dict[str, int]:
    return {row["date"]: row["views"] for row in answer[name] if row["views"]}


def book(
    old: Connection, book_id: int | None, n: int | None, view_type: str = "card_view", **at: str
) -> None:
    moments = {"last": "2026-01-05 10:00", "created": "2025-05-01"} | at
    old.execute(
        text(
            "INSERT INTO book_view_statistics (book_id, view_type, view_count, last_viewed_at, created_at)"
            " VALUES (:id, :type, :n, :last, :created)"
        ),
        {"id": book_id, "type": view_type, "n": n, **moments},
    )


def figure(output: str, name: str) -> int:
    """The sum of the numbers in the reports' lines of that name."""
    lines = [line for line in output.splitlines() if line.strip().startswith(name + "  ")]
    assert lines, output
    return sum(int(line.split()[-1].replace(",", "")) for line in lines)


def test_books_with_duplicates_and_identical_rows_are_added_up(
    adopt: Run, engine: Engine, old: Connection
) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 40, last="2026-01-05 10:00", created="2025-05-01")
    book(old, 1, 2, last="2026-02-07 11:00", created="2025-06-01")
    for _ in range(3):
        book(old, 1, 5, "reader_open")
    book(old, 2, 0)
    done = adopt()
    assert done.exit_code == 0, done.output
    assert counters(engine) == {("book", "1", "card_view"): 42, ("book", "1", "reader_open"): 15}
    assert (figure(done.output, "rows"), figure(done.output, "added to others of the same key")) == (6, 3)
    assert figure(done.output, "all-time views after") == 57
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT first_viewed_at, last_viewed_at, created_at FROM view_counters WHERE count = 42")
        ).one()
    assert row == (
        datetime(2025, 5, 1, tzinfo=UTC),
        datetime(2026, 2, 7, 11, tzinfo=UTC),
        datetime(2025, 5, 1, tzinfo=UTC),
    )


def test_twice_changes_nothing_and_a_source_that_has_grown_adds_what_is_more(
    adopt: Run, engine: Engine, old: Connection
) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 40)
    book(old, 2, 7)
    adopt()
    before = everything(engine)
    assert figure(adopt().output, "added") == 0
    assert everything(engine) == before
    old.execute(text("UPDATE book_view_statistics SET view_count = 43 WHERE book_id = 1"))
    book(old, 2, 1)
    book(old, 3, 5)
    assert figure(adopt().output, "added") == 9
    grown = {("book", "1", "card_view"): 43, ("book", "2", "card_view"): 8, ("book", "3", "card_view"): 5}
    assert counters(engine) == grown
    old.execute(text("UPDATE book_view_statistics SET view_count = 1"))
    adopt()
    assert counters(engine) == grown, "nothing is lowered"
    old.execute(text("UPDATE book_view_statistics SET view_count = 44 WHERE book_id = 1"))
    adopt()
    assert counters(engine)["book", "1", "card_view"] == 44, "what it fell to is not what was taken"


def test_a_dry_run_says_the_same_and_changes_nothing(adopt: Run, engine: Engine, old: Connection) -> None:
    for statement in (BOOKS, COUNTERS, DAILY):
        old.execute(text(statement))
    book(old, 1, 40)
    old.execute(text(COUNTER), {"key": "course:7", "ns": "course", "id": "7", "path": None, "n": 9})
    old.execute(text(OF_DAY), {"key": "course:7", "day": str(BEFORE), "n": 4})
    before = everything(engine)
    tried = adopt("--dry-run")
    assert tried.exit_code == 0, tried.output
    assert everything(engine) == before
    done = adopt()
    same = tried.output.replace(", would be taken over", "").replace("dry run: nothing was changed\n", "")
    assert same == done.output
    assert everything(engine) != before


def test_what_footfall_has_counted_itself_is_added_to(
    adopt: Run, engine: Engine, redis: Redis, settings: Settings, old: Connection
) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 40)
    own = [
        make_event(settings, NOW, entity_type="book", external_id="1", view_type="card_view")
        for _ in range(3)
    ]
    store(engine, redis, settings, own)
    done = adopt()
    assert figure(done.output, "all-time views before") == 3
    assert (figure(done.output, "entities, new"), figure(done.output, "entities, known")) == (0, 1)
    assert counters(engine) == {("book", "1", "card_view"): 43}


def test_the_shown_counts_are_raised(adopt: Run, open_site: Open, old: Connection, engine: Engine) -> None:
    site = open_site(require_sign_in=False)
    site.track("/api/books/1/track-view", {"viewType": "card_view"})
    assert site.shown("1") == {"card_view": 1}
    old.execute(text(BOOKS))
    book(old, 1, 40)
    book(old, 2, 7, "reader_open")
    adopt()
    assert site.shown("2") == {"reader_open": 7}
    assert site.shown("1") == {"card_view": 40}, "its own view is not written yet"
    site.write()
    assert site.shown("1") == {"card_view": 41}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM shown_behind")) == 0


def test_bad_rows_are_left_out_and_counted_by_why(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(BOOKS.replace("book_id integer", "book_id text")))
    good = "good"
    rows: list[tuple[str | None, int | None, str]] = [
        (good, 1, "card_view"),
        (good, -5, "card_view"),
        (good, None, "card_view"),
        (None, 3, "card_view"),
        ("", 3, "card_view"),
        ("x" * 256, 3, "card_view"),
        ("tab\there", 3, "card_view"),
        ("b", 3, "No such type!"),
    ]
    for book_id, n, view_type in rows:
        book(old, book_id, n, view_type)  # type: ignore[arg-type]
    done = adopt()
    assert done.exit_code == 0, done.output
    assert counters(engine) == {("book", "good", "card_view"): 1}
    assert figure(done.output, "left out") == 7
    for why, n in (
        ("negative count", 1),
        ("no count", 1),
        ("id: missing", 2),
        ("id: must be at most 255 bytes", 1),
        ("id: must not contain control characters or lone surrogates", 1),
        ("view type: must be 1 to 40 of a-z, 0-9 and _", 1),
    ):
        assert figure(done.output, why) == n


@pytest.mark.parametrize("n", ["1.5", "'NaN'", "'Infinity'", "1e300", "9007199254740993"])
def test_numbers_that_are_no_counts_are_left_out(adopt: Run, engine: Engine, old: Connection, n: str) -> None:
    old.execute(text(BOOKS.replace("view_count integer", "view_count numeric")))
    old.execute(
        text(f"INSERT INTO book_view_statistics (book_id, view_type, view_count) VALUES (1, 'a', {n})")
    )
    done = adopt()
    assert done.exit_code == 0, done.output
    assert figure(done.output, "left out") == 1
    assert counters(engine) == {}


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "0044-03-15 BC", "9999-12-31"])
def test_moments_beyond_reason_are_none(adopt: Run, engine: Engine, old: Connection, moment: str) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 4, last=moment, created=moment)
    assert adopt().exit_code == 0
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT last_viewed_at FROM view_counters")) == NOW


def test_counters_and_their_days(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(COUNTERS))
    for key, ns, entity_id, path, n in (
        ("resource:r1", "resource", "r1", None, 100),
        ("course:c1", "course", None, None, 20),
        ("page:/about", "page", None, "/about?utm=1", 5),
        ("page:/about#x", "page", None, "/about", 3),
        ("views:course:c1", "", None, None, 1),
        ("widget:w", "widget", "w", None, 9),
        ("nothing", "", None, None, 9),
    ):
        old.execute(text(COUNTER), {"key": key, "ns": ns, "id": entity_id, "path": path, "n": n})
    days_before = [TODAY - timedelta(days=back) for back in (0, 1, 2, 30, 31)]
    for day, n in zip(days_before, (1, 2, 4, 8, 16), strict=True):
        old.execute(text(OF_DAY), {"key": "resource:r1", "day": str(day), "n": n})
        old.execute(text(OF_DAY), {"key": "page:/about", "day": str(day), "n": n})
    done = adopt("--layout", "counters")
    assert done.exit_code == 0, done.output
    assert counters(engine) == {
        ("resource", "r1", "intentional"): 100,
        ("course", "c1", "intentional"): 21,
        ("page", "/about", "intentional"): 8,
    }
    resource = of_days(engine, "resource", "r1")
    assert views_by_day(resource) == {str(days_before[2]): 4}
    assert resource["views_by_country"] == {"ZZ": 4}
    assert resource["views_by_type"] == {"intentional": 4}
    assert resource["all_time_views"] == 100
    assert "2026-03-09, 2026-03-10: may still get views" in done.output
    assert "2026-02-07: older than daily rows are kept" in done.output
    with read_snapshot(engine) as connection:
        sitewide = stats.sitewide_stats(connection, stats.Span.ending_today(30, NOW, UTC))
    assert views_by_day(sitewide) == {str(days_before[2]): 4}, "pages are the site's views"
    assert sitewide["views_by_page"] == {"/about": 4}


def test_daily_tables_with_their_breakdowns(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(DAILY))
    told = {
        "post": 7,
        "day": str(BEFORE),
        "n": 10,
        "viewers": 6,
        "country": json.dumps({"DE": 4, "nowhere": 2, "AT": -1}),
        "device": json.dumps({"mobile": 9}),
        "type": json.dumps({"intentional": 5, "listing": 3, "odd": 2}),
    }
    empty = dict.fromkeys(("country", "device", "type"), "[]")
    old.execute(text(POST_DAY), told)
    old.execute(text(POST_DAY), {**told, **empty, "n": 1, "viewers": 1})
    # sums that are more than the whole
    old.execute(
        text(POST_DAY), {**told, "post": 8, "n": 3, "viewers": 99, "type": json.dumps({"listing": 4})}
    )
    done = adopt()
    assert done.exit_code == 0, done.output
    answer = of_days(engine, "blog_post", "7")
    assert answer["daily_views"][-6] == {"date": str(BEFORE), "views": 11, "unique_viewers": 7, "gap": False}
    assert answer["views_by_country"] == {"ZZ": 7, "DE": 4}
    assert answer["views_by_device"] == {"mobile": 9, "other": 2}
    assert answer["views_by_type"] == {"intentional": 8, "listing": 3}
    assert answer["all_time_views"] == 11
    other = of_days(engine, "blog_post", "8")
    assert (other["views_by_type"], other["visitor_days"]) == ({"intentional": 3}, 3)
    before = everything(engine)
    adopt()
    assert everything(engine) == before


def test_totals_of_daily_tables_go_on_although_the_source_drops_its_old_days(
    adopt: Run, engine: Engine, old: Connection
) -> None:
    old.execute(text(DAILY))
    plain = {"post": 7, "viewers": 0, "country": "{}", "device": "{}", "type": "{}"}
    old.execute(text(POST_DAY), {**plain, "day": "2026-02-01", "n": 50})
    old.execute(text(POST_DAY), {**plain, "day": str(BEFORE), "n": 10})
    adopt()
    old.execute(text("DELETE FROM blog_post_stats_daily WHERE total_views = 50"))
    old.execute(text("UPDATE blog_post_stats_daily SET total_views = 12"))
    old.execute(text(POST_DAY), {**plain, "day": str(TODAY), "n": 1})
    adopt()
    assert counters(engine) == {("blog_post", "7", "intentional"): 63}
    assert views_by_day(of_days(engine, "blog_post", "7")) == {str(BEFORE): 12}


def test_a_day_that_footfall_has_events_of_is_left_alone(
    adopt: Run,
    engine: Engine,
    redis: Redis,
    settings: Settings,
    old: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    sealed, raw, free = (TODAY - timedelta(days=back) for back in (9, 6, 4))
    events = [
        make_event(settings, datetime(day.year, day.month, day.day, 9, tzinfo=UTC), entity_type="course",
                   external_id="c1") for day in (sealed, raw)
    ]  # fmt: skip
    store(engine, redis, settings, events)
    rollup.roll_up_closed_days(engine, TODAY, NOW)
    assert retention.drop_expired(engine, redis, settings, NOW) == [sealed]
    with engine.begin() as connection:
        days.open_days(connection, [free])  # opened, and nothing came
    old.execute(text(COUNTERS))
    for day in (sealed, raw, free):
        old.execute(text(OF_DAY), {"key": "course:c1", "day": str(day), "n": 50})
    done = adopt()
    assert f"{sealed}, {raw}: Footfall has events of its own" in done.output
    assert views_by_day(of_days(engine, "course", "c1")) == {str(sealed): 1, str(raw): 1, str(free): 50}
    assert rollup.roll_up(engine, free, NOW) is None, "an adopted day is not recomputed"


def test_an_adopted_day_takes_no_events_and_ends_as_any_other(
    adopt: Run,
    engine: Engine,
    redis: Redis,
    settings: Settings,
    old: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old.execute(text(COUNTERS))
    old.execute(text(OF_DAY), {"key": "course:c1", "day": str(BEFORE), "n": 50})
    adopt()
    late = datetime(BEFORE.year, BEFORE.month, BEFORE.day, 9, tzinfo=UTC)
    store(engine, redis, settings, [make_event(settings, late, entity_type="course", external_id="c1")])
    assert views_by_day(of_days(engine, "course", "c1")) == {str(BEFORE): 50}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT reason FROM dead_letters")) == "too_late"
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    retention.turn_days(engine, settings, NOW)
    retention.drop_expired(engine, redis, settings, NOW + timedelta(days=40))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM daily_stats")) == 0


def test_a_day_is_not_taken_while_its_views_may_be_queued(
    adopt: Run, engine: Engine, redis: Redis, old: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "OLDEST_ENTRY", timedelta(days=1))
    long_ago = int((NOW - timedelta(days=2)).timestamp() * 1000)
    stuck = redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"stuck"}, id=f"{long_ago}-0")
    old.execute(text(COUNTERS))
    old.execute(text(OF_DAY), {"key": "course:c1", "day": str(BEFORE), "n": 50})
    done = adopt()
    assert "still wait in the queue" in done.output
    redis.xdel(stream.STREAM_KEY, stuck)
    assert figure(adopt().output, "days taken") == 1
    assert views_by_day(of_days(engine, "course", "c1")) == {str(BEFORE): 50}


def test_what_was_deleted_here_stays_deleted(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(COUNTERS))
    old.execute(text(COUNTER), {"key": "course:7", "ns": "course", "id": "7", "path": None, "n": 9})
    old.execute(text(OF_DAY), {"key": "course:7", "day": str(BEFORE), "n": 4})
    adopt()
    with engine.begin() as connection:
        host.erase(connection, ("course", "7"), NOW)
    old.execute(text('UPDATE "ViewCounterTotal" SET total = 20'))
    assert figure(adopt().output, "entities, deleted here and left so") == 2, "in both tables"
    assert counters(engine) == {}


def test_new_entities_leave_the_days_cap_to_viewers(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(COUNTERS))
    old.execute(text(COUNTER), {"key": "page:/a", "ns": "page", "id": None, "path": "/a", "n": 9})
    old.execute(text(OF_DAY), {"key": "page:/b", "day": str(BEFORE), "n": 4})
    adopt()
    cap_of_one = make_settings(FOOTFALL_NEW_ENTITIES_PER_DAY="1")
    with engine.connect() as connection:
        assert entities.over_cap(connection, [("page", "/new")], NOW, cap_of_one) == set()


def test_many_entities_go_in_parts_and_an_interrupted_run_goes_on(
    adopt: Run, engine: Engine, old: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "CHUNK_ENTITIES", 7)
    monkeypatch.setattr(adoption, "STAGED_CELLS", 10)
    old.execute(text(BOOKS))
    old.execute(
        text(
            "INSERT INTO book_view_statistics (book_id, view_type, view_count)"
            " SELECT n % 50, 'card_view', n FROM generate_series(0, 199) AS n"
        )
    )
    chunks = []
    take = adoption._OneTable._take_chunk

    def interrupted(self: Any, first: int, last: int) -> None:
        chunks.append(first)
        take(self, first, last)
        if len(chunks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(adoption._OneTable, "_take_chunk", interrupted)
    assert adopt().exit_code != 0
    assert 0 < len(counters(engine)) < 50
    assert adopt().exit_code == 0
    assert len(counters(engine)) == 50
    assert sum(counters(engine).values()) == sum(range(200))


def test_views_that_go_on_meanwhile_are_all_counted(
    adopt: Run,
    engine: Engine,
    redis: Redis,
    settings: Settings,
    old: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adoption, "CHUNK_ENTITIES", 5)
    old.execute(text(BOOKS))
    for book_id in range(40):
        book(old, book_id, 100)
    stop, written = Event(), [0]

    def write() -> None:
        while not stop.is_set():
            events = [
                make_event(settings, NOW, entity_type="book", external_id=str(n), view_type="card_view")
                for n in reversed(range(40))
            ]
            store(engine, redis, settings, events)
            written[0] += len(events)

    writer = Thread(target=write)
    writer.start()
    try:
        for more in range(4):
            old.execute(text("UPDATE book_view_statistics SET view_count = 100 + :more"), {"more": more})
            done = adopt()
            assert done.exit_code == 0, done.output
    finally:
        stop.set()
        writer.join()
    assert written[0] > 0
    assert sum(counters(engine).values()) == 40 * 103 + written[0]


def test_two_at_once_are_one_too_many(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text(BOOKS))
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(7108623)"))
        refused = adopt()
    assert refused.exit_code == 1
    assert "another `footfall adopt` is running" in refused.output
    assert adopt().exit_code == 0


def test_the_same_table_from_another_address_is_asked_about(
    adopt: Run, engine: Engine, old: Connection, old_url: str
) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 40)
    adopt()
    elsewhere = old_url.replace("host=", "host=/./")
    assert elsewhere != old_url
    refused = adopt(url=elsewhere)
    assert refused.exit_code == 1
    assert "--another-site" in refused.output
    assert counters(engine) == {("book", "1", "card_view"): 40}
    assert adopt("--another-site", url=elsewhere).exit_code == 0
    assert counters(engine) == {("book", "1", "card_view"): 80}


@pytest.mark.parametrize(
    ("tables", "words", "told"),
    [
        ("CREATE TABLE posts (id int)", (), "There is: posts"),
        ("CREATE TABLE posts (id int)", ("--layout", "books"), "no table of the layout books"),
        (BOOKS, ("--layout", "daily"), "There is: book_view_statistics"),
        ("CREATE TABLE book_view_statistics (id int, hits int)", (),
         "has no column bookid, viewtype, viewcount"),
        (DAILY.replace("blog_post", "sheep"), (), "say what its entities are with --entity-type"),
        ("CREATE TABLE site_stats_daily (date date, total_views int)", (), "has no column site_id"),
        (BOOKS + ";CREATE SCHEMA b;" + BOOKS.replace("TABLE ", "TABLE b."), (), "say which with --schema"),
        (BOOKS.replace("view_count integer", "view_count text") + ";INSERT INTO book_view_statistics"
         " (book_id, view_type, view_count) VALUES (1, 'a', 'many')", (), "cannot be read: invalid input"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_what_was_found(
    adopt: Run, engine: Engine, old: Connection, tables: str, words: tuple[str, ...], told: str
) -> None:
    old.execute(text(tables))
    before = everything(engine)
    refused = adopt(*words)
    assert refused.exit_code == 1
    assert told in refused.output
    assert everything(engine) == before


def test_types_and_schemas_can_be_told(adopt: Run, engine: Engine, old: Connection) -> None:
    old.execute(text("CREATE SCHEMA other;" + BOOKS.replace("TABLE ", "TABLE other.") + ";" + BOOKS))
    book(old, 1, 40)
    assert adopt("--schema", "public", "--entity-type", "story").exit_code == 0
    assert counters(engine) == {("story", "1", "card_view"): 40}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://root@localhost/site", "must be a PostgreSQL address"),
        ("postgresql://me:secret-word@127.0.0.1:1/site", "does not answer"),
    ],
)
def test_a_source_that_cannot_be_reached_is_told_without_the_password(
    adopt: Run, engine: Engine, url: str, told: str
) -> None:
    refused = adopt(url=url)
    assert refused.exit_code == 1
    assert told in refused.output
    assert "secret-word" not in refused.output


def test_the_source_is_only_read(adopt: Run, old: Connection, engine: Engine) -> None:
    old.execute(text(BOOKS))
    book(old, 1, 40)
    old.execute(
        text(
            "CREATE FUNCTION wrong() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO hidden (book_id) VALUES (9); RETURN 1; END $$;"
            "ALTER TABLE book_view_statistics RENAME TO hidden;"
            "CREATE VIEW book_view_statistics AS SELECT book_id, view_type, wrong() AS view_count FROM hidden"
        )
    )
    assert "read-only transaction" in adopt().output
    assert old.scalar(text("SELECT count(*) FROM hidden")) == 1
