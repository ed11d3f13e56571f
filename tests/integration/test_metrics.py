"""/metrics says what was done, the same from every process, and says what it can while a store is away."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from freezegun.api import FrozenDateTimeFactory
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, create_engine, text

from api.parts import Parts, of
from footfall import keys, ledger, metrics, retention, rollup, scrape, stream, traffic
from footfall.settings import Settings
from footfall.traffic import Answered, Traffic
from tests.factory import SECRET, make_event, store
from tests.integration.api import API_KEY_HASH, FIREFOX, SERVICE, bearer
from tests.integration.conftest import NOW
from tests.integration.content import Open, Site, site_on
from tests.integration.everything import site_with_everything
from tests.integration.own_redis import OwnRedis
from tests.prometheus_text import Scrape, parse
from tests.unit import mmdb
from tests.waiting import wait_until

TOKEN = "a token of the tests for the metrics"[:36].replace(" ", "-")
PROMETHEUS = {"Authorization": f"Bearer {TOKEN}"}
NOWHERE = {
    "redis": {"redis_url": "redis://127.0.0.1:1"},
    "postgresql": {"database_url": "postgresql+psycopg2://nobody@127.0.0.1:1/none"},
}
PAGE_VIEW = ("tracking", "POST", "/api/track/page-view")
ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.usefixtures("clock")


def parts(site: Site) -> Parts:
    return of(site.client.application)


def read(site: Site) -> Scrape:
    """What /metrics answers, after what this process has counted was brought to Redis."""
    parts(site).traffic.flush()
    return scraped(site.client, site.settings)


def scraped(client: FlaskClient, settings: Settings) -> Scrape:
    response = client.get("/metrics", headers=bearer(settings, "moderator"))
    assert response.status_code == 200, response.data
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    return parse(response.text)


def page(site: Site, path: str = "/a", **more: Any) -> int:
    return site.send("/api/track/page-view", {"path": path, **more}).status_code


def ledger_rows(site: Site, of_days: int) -> list[dict[str, Any]]:
    response = site.client.get(
        f"/api/admin/ledger?days={of_days}", headers=bearer(site.settings, "moderator")
    )
    assert response.json is not None
    rows: list[dict[str, Any]] = response.json["days"]
    return rows


def backend_of(engine: Engine) -> int:
    """The process of PostgreSQL that serves the engine's first connection."""
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


# What was done


def test_the_ledgers_numbers_are_what_was_done(site: Site, open_site: Open) -> None:
    id_ = str(UUID(int=7))
    for _ in range(3):
        assert page(site) == 204
    for _ in range(2):
        site.batch({"entity_type": "page", "entity_id": "/b", "id": id_, "occurred_at": NOW.isoformat()})
    store(site.engine, site.redis, site.settings, [make_event(site.settings, NOW, device="toaster")])
    page(site)
    other = open_site(redis_enabled=False)
    assert page(other) == page(other, "/c") == 204
    site.tell("page?path=/c")
    assert site.erase("page?path=/c") == 204
    found = read(site)
    assert found.by("footfall_events_accepted_total", "way") == {"redis": 7, "postgresql": 2}
    assert found.by("footfall_events_settled_total", "way") == {"redis": 6, "postgresql": 2}
    assert found.by("footfall_events_duplicates_total", "way") == {"redis": 1}
    assert found.by("footfall_events_dead_letters_total", "way") == {"redis": 1}
    assert found.by("footfall_events_erased_total", "way") == {"postgresql": 1}
    assert found.by("footfall_dead_letters", "reason") == {"refused": 1}
    assert found.value("footfall_queue_entries") == found.value("footfall_queue_events") == 1
    site.write()
    found = read(site)
    assert not any(traffic.REFUSED in name for name in stream.ledger(site.redis))
    assert found.by("footfall_events_settled_total", "way") == {"redis": 7, "postgresql": 2}
    assert found.value("footfall_queue_entries") == found.value("footfall_queue_events") == 0


def test_every_refusal_is_counted_by_its_reason_and_stands_in_the_ledger(site: Site, open_site: Open) -> None:
    def post(path: str, body: str = "{}", **headers: str) -> int:
        headers = {"Content-Type": "application/json", "User-Agent": FIREFOX, **headers}
        return site.client.post(path, data=body, headers=headers).status_code

    page_view, book = "/api/track/page-view", "/api/books/b1/track-view"
    assert [post(page_view), post(page_view, "{"), post("/api/stories/s1/view", "[]")] == [400] * 3
    assert post(page_view, "{}", **{"Content-Type": "text/html"}) == 415
    assert post(page_view, " " * 70_000) == 413
    assert post(book, '{"viewType": "card_view"}') == 401
    assert post("/api/track/batch", '{"events": []}') == 401
    user = bearer(site.settings, "user")
    assert post("/api/track/event", '{"event_type": "signup"}', **user) == 403
    assert post("/api/track/pageview") == 404  # a client that asks for what is not there, for eight months
    assert site.client.put("/api/track/page-view").status_code == 405
    answer = site.batch(
        {"entity_type": "page", "entity_id": "/a"},
        {"entity_type": "page", "entity_id": "a"},
        {"entity_type": "planet", "entity_id": "/a"},
    )
    assert (answer["accepted"], len(answer["errors"])) == (1, 2)
    full = open_site(queue_limit_entries=1)
    assert page(full) == 503
    capped = open_site(new_entities_per_day=1, redis_enabled=False)
    assert capped.track("/api/stories/s1/view").status == 200
    assert capped.track("/api/stories/s2/view").status == 429
    several = capped.batch(*({"entity_type": "story", "entity_id": f"s{n}"} for n in range(3, 6)))
    assert len(several["errors"]) == 3
    # neither of these is a refused view
    assert site.client.get("/api/admin/ledger").status_code == 401
    assert site.client.get("/api/nothing").status_code == 404
    for one in (full, capped):
        parts(one).traffic.flush()
    expected = {
        "invalid": 5,
        "unsupported_media_type": 1,
        "too_large": 1,
        "not_authenticated": 2,
        "not_allowed": 1,
        "not_found": 1,
        "method_not_allowed": 1,
        "unavailable": 1,
        "limited": 4,
    }
    assert read(site).by("footfall_refusals_total", "reason") == expected
    rows = ledger_rows(site, 2)
    assert [row["refusals"] for row in rows] == [{}, expected]
    assert rows[1]["balanced"] is False  # one waits in the queue; refusals are no part of the balance
    site.write()
    assert ledger_rows(site, 1)[0]["balanced"] is True


def test_a_refusal_belongs_to_the_day_on_which_it_happened(site: Site, clock: FrozenDateTimeFactory) -> None:
    page(site, "no path")
    clock.move_to(NOW + timedelta(days=1))
    page(site, "no path")
    page(site, "no path")
    assert read(site).by("footfall_refusals_total", "reason") == {"invalid": 3}
    rows = ledger_rows(site, 2)
    assert [row["refusals"] for row in rows] == [{"invalid": 1}, {"invalid": 2}]


def test_requests_are_counted_by_endpoint_and_status_and_timed(site: Site) -> None:
    for _ in range(3):
        page(site)
    page(site, "no path")
    site.client.get("/api/health")
    found = read(site)
    kind, method, endpoint = PAGE_VIEW
    labels = {"kind": kind, "method": method, "endpoint": endpoint}
    by_status = {
        s: found.value("footfall_requests_total", **labels, status=str(s)) for s in (204, 400, 500, 503)
    }
    # the failures that have not happened are there: else the first one would be no increase
    assert by_status == {204: 3, 400: 1, 500: 0, 503: 0}
    assert found.value("footfall_request_duration_seconds", "_count", **labels) == 4
    health = {"kind": "other", "method": "GET", "endpoint": "/api/health"}
    assert found.value("footfall_requests_total", **health, status="200") == 1


def test_a_duration_counts_in_every_bucket_from_its_own_on(redis: Redis, site: Site) -> None:
    mine = Traffic(redis)
    answer = Answered("tracking", "POST", "/api/track/page-view", 204)
    for seconds in (0.0004, 0.0005, 0.02, 0.02, 7.0):
        mine.answered(answer, seconds)
    mine.flush()
    found = scraped(site.client, site.settings)
    labels = dict(zip(("kind", "method", "endpoint"), PAGE_VIEW, strict=True))
    name = "footfall_request_duration_seconds"
    bounds = {
        le: found.value(name, "_bucket", **labels, le=le) for le in ("0.0005", "0.01", "0.025", "5.0", "+Inf")
    }
    assert bounds == {"0.0005": 2, "0.01": 2, "0.025": 4, "5.0": 4, "+Inf": 5}
    assert found.value(name, "_sum", **labels) == pytest.approx(7.0409)


def test_what_another_version_counted_under_other_bounds_is_not_lost(redis: Redis) -> None:
    field = "answer tracking POST /api/track/page-view 204"
    redis.hset(keys.TRAFFIC, mapping={f"{field} 0.003": 2, f"{field} 30.0": 1, f"{field} microseconds": 5})
    (durations,) = traffic.total(redis).answers.values()
    assert durations.amounts[traffic.BOUNDS.index(0.005)] == 2
    assert durations.amounts[-1] == 1
    assert sum(durations.amounts) == 3


def test_countries_are_counted_and_their_file_is_dated(open_site: Open, tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    mmdb.write(file, "192.0.2.77", {"country": {"iso_code": "NP"}})
    site = open_site(country_file=file)
    page(site)
    site.send("/api/track/page-view", {"path": "/a"}, address="192.0.2.78")
    found = read(site)
    assert found.by("footfall_country_lookups_total", "result") == {"known": 1, "unknown": 1}
    assert found.by("footfall_country_source_info", "source") == {"file": 1}
    assert found.value("footfall_country_file_built_timestamp_seconds") == 1
    assert found.value("footfall_country_problem") == 0
    broken = read(open_site(country_file=tmp_path / "missing.mmdb"))
    assert broken.value("footfall_country_problem") == 1
    assert broken.value("footfall_country_file_built_timestamp_seconds") is None


def test_a_late_rollup_and_a_late_retention_show(site: Site, clock: FrozenDateTimeFactory) -> None:
    store(site.engine, site.redis, site.settings, [make_event(site.settings, NOW)])
    page(site)  # has made salts
    found = read(site)
    assert found.value("footfall_partitions") == 1
    assert found.value("footfall_rollups_waiting") == 0
    assert found.value("footfall_rollup_last_timestamp_seconds") is None
    assert found.value("footfall_salts_overdue") == 0
    for after, overdue in ((7, 0), (8, 1)):  # today and the 7 days before are kept
        clock.move_to(NOW + timedelta(days=after))
        assert read(site).value("footfall_partitions_overdue") == overdue
    clock.move_to(NOW + timedelta(days=9))
    late = read(site)
    names = ("footfall_rollups_waiting", "footfall_partitions_overdue", "footfall_salts_overdue")
    assert [late.value(name) for name in names] == [1, 1, 3]
    now = NOW + timedelta(days=9)
    rollup.roll_up_closed_days(site.engine, now.date(), now)
    site.write()
    rollup.roll_up_closed_days(site.engine, now.date(), now)
    retention.turn_days(site.engine, site.settings, now)
    retention.drop_expired(site.engine, site.redis, site.settings, now)
    done = read(site)
    assert [done.value(name) for name in names] == [0, 0, 0]
    assert done.value("footfall_rollup_last_timestamp_seconds") == now.timestamp()


def test_the_age_of_what_is_queued_is_told(site: Site) -> None:
    stream.put(site.redis, [make_event(site.settings, NOW)])
    milliseconds = int(site.redis.xinfo_stream(stream.STREAM_KEY)["last-generated-id"].split(b"-")[0])
    added = datetime.fromtimestamp(milliseconds / 1000, UTC)
    samples = parts(site).scraper.samples(added + timedelta(seconds=90))
    assert [one.value for one in samples if one.name == "footfall_queue_oldest_age_seconds"] == [90]


def test_queue_and_ledger_are_of_one_moment(settings: Settings, redis: Redis) -> None:
    done = threading.Event()

    def put_and_settle() -> None:
        client = stream.connect(settings)
        while not done.is_set():
            stream.put(client, [make_event(settings, NOW)])
            stream.settle(
                client, {one.id: {f"{NOW.date()}:settled": 1} for one in stream.read(client, "w", 10)}
            )
        client.close()

    thread = threading.Thread(target=put_and_settle)
    thread.start()
    seen = set()
    for _ in range(500):
        backlog, tallies = stream.backlog_and_ledger(redis, NOW)
        accepted, settled = (tallies.get(f"{NOW.date()}:{name}", 0) for name in ("accepted", "settled"))
        assert backlog.entries == accepted - settled
        seen.add(backlog.entries)
    done.set()
    thread.join()
    assert seen == {0, 1}


def test_a_schema_that_has_drifted_shows(site: Site) -> None:
    assert read(site).value("footfall_schema_ok") == 1
    with site.engine.begin() as connection:
        connection.execute(text("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"))
    try:
        assert read(site).value("footfall_schema_ok") == 0
    finally:
        with site.engine.begin() as connection:
            connection.execute(
                text("ALTER TABLE view_events ADD CONSTRAINT view_events_day_id_unique UNIQUE (day, id)")
            )


def test_a_database_without_tables_says_so_and_that_questions_were_not_answered(
    settings: Settings, redis: Redis, engine: Engine
) -> None:
    admin = create_engine(settings.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE nothing_in_it"))
    url = settings.database_url.replace("/footfall?", "/nothing_in_it?")
    assert url != settings.database_url
    try:
        with site_on(settings, engine, redis, database_url=url) as site:
            found = read(site)
        assert found.by("footfall_up", "store") == {"redis": 1, "postgresql": 1}
        assert found.value("footfall_schema_ok") == 0
        assert found.by("footfall_scrape_problems", "store") == {"postgresql": 3}
    finally:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE nothing_in_it"))
        admin.dispose()


def test_a_loss_shows_at_once_and_in_the_closed_days_ledger(site: Site, clock: FrozenDateTimeFactory) -> None:
    stream.put(site.redis, [make_event(site.settings, NOW) for _ in range(60)])
    queued = read(site)
    assert (queued.value("footfall_queue_entries"), queued.value("footfall_queue_events")) == (2, 60)
    site.redis.delete(stream.STREAM_KEY)
    lost = read(site)
    assert (lost.value("footfall_queue_entries"), lost.value("footfall_queue_events")) == (0, 60)
    assert lost.value("footfall_ledger_unbalanced") == 0  # of the closed days
    store(site.engine, site.redis, site.settings, [make_event(site.settings, NOW)])
    tomorrow = NOW + timedelta(days=1)
    clock.move_to(tomorrow)
    rollup.roll_up_closed_days(site.engine, tomorrow.date(), tomorrow)
    assert read(site).value("footfall_ledger_unbalanced") == 1
    clock.move_to(tomorrow + timedelta(days=1))
    assert read(site).value("footfall_queue_events") == 0  # told for two days, then the ledger's
    clock.move_to(tomorrow + timedelta(days=3))
    assert read(site).value("footfall_ledger_unbalanced") == 0


def test_a_day_that_waits_for_its_rollup_is_no_imbalance(site: Site, clock: FrozenDateTimeFactory) -> None:
    stream.put(site.redis, [make_event(site.settings, NOW)])
    site.redis.delete(stream.STREAM_KEY)
    store(site.engine, site.redis, site.settings, [make_event(site.settings, NOW)])
    clock.move_to(NOW + timedelta(days=1))
    found = read(site)
    assert (found.value("footfall_rollups_waiting"), found.value("footfall_ledger_unbalanced")) == (1, 0)


def test_the_ledger_is_read_every_quarter_of_an_hour(
    site: Site, clock: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[datetime] = []
    real = ledger.ledger

    def noting(connection: Any, redis: Any, of_days: Any, now: datetime, zone: Any) -> Any:
        looked.append(now)
        return real(connection, redis, of_days, now, zone)

    monkeypatch.setattr(ledger, "ledger", noting)
    for seconds in (0, 15, 899, 900, 915):
        clock.move_to(NOW + timedelta(seconds=seconds))
        assert read(site).value("footfall_ledger_unbalanced") == 0
    assert looked == [NOW, NOW + timedelta(seconds=900)]


# Several processes, restarts, days that go


def test_processes_add_up_and_answer_the_same(site: Site, open_site: Open) -> None:
    other = open_site()
    for one, times in ((site, 2), (other, 3)):
        for _ in range(times):
            page(one)
            page(one, "no path")
    parts(other).traffic.flush()
    mine, theirs = read(site), scraped(other.client, other.settings)
    labels = dict(zip(("kind", "method", "endpoint"), PAGE_VIEW, strict=True))
    for found in (mine, theirs):
        assert found.value("footfall_requests_total", **labels, status="204") == 5
        assert found.value("footfall_requests_total", **labels, status="400") == 5
        assert found.by("footfall_refusals_total", "reason") == {"invalid": 5}
        assert found.by("footfall_events_accepted_total", "way") == {"redis": 5}


def counters(found: Scrape) -> dict[Any, float]:
    """Everything that may only rise."""
    return {
        (name, *key): value
        for name, family in found.families.items()
        if family.kind != "gauge"
        for key, value in family.samples.items()
    }


def test_no_counter_falls_over_restarts_retention_and_erasures(
    open_site: Open, clock: FrozenDateTimeFactory
) -> None:
    before: dict[Any, float] = {}
    for n in range(0, 66, 6):
        now = NOW + timedelta(days=n)
        clock.move_to(now)
        site = open_site(redis_enabled=n % 4 == 0)  # a new process each time, on one way or the other
        for path in ("/a", "/b", "no path"):
            page(site, path)
        site.erase("page?path=/b")
        site.write()
        rollup.roll_up_closed_days(site.engine, now.date(), now)
        retention.drop_expired(site.engine, site.redis, site.settings, now)
        after = counters(read(site))
        fallen = {key: (value, after.get(key)) for key, value in before.items() if after.get(key, -1) < value}
        assert not fallen
        before = after
    tallies = {name.partition(":")[0] for name in stream.ledger(site.redis)}
    assert stream.BEFORE in tallies
    assert not {day for day in tallies if day < "2026-04-09"}, "tallies of days long gone"
    found = read(site)
    assert found.by("footfall_events_accepted_total", "way") == {"redis": 12, "postgresql": 10}
    assert found.by("footfall_refusals_total", "reason") == {"invalid": 11}
    kept = "SELECT min(day), count(DISTINCT day) FROM tallies WHERE day > :long_ago"
    assert site.rows(kept, long_ago=date(2, 1, 1)) == [(date(2026, 4, 9), 3)]


def test_dropping_the_tallies_twice_changes_nothing(site: Site) -> None:
    page(site)
    site.write()
    stream.drop_tallies_before(site.redis, date(2027, 1, 1))
    once = stream.ledger(site.redis)
    stream.drop_tallies_before(site.redis, date(2027, 1, 1))
    assert stream.ledger(site.redis) == once == {"before:accepted": 1, "before:settled": 1}


def test_nothing_is_lost_between_threads_that_count_and_those_that_flush(redis: Redis) -> None:
    mine = Traffic(redis)
    answers = [Answered("tracking", "POST", f"/{n}", 204) for n in range(3)]
    stop = threading.Event()

    def count() -> None:
        for n in range(6_000):
            mine.answered(answers[n % 3], 0.001)
            mine.refused(NOW.date(), "invalid")

    def flush() -> None:
        while not stop.is_set():
            mine.flush()

    counting = [threading.Thread(target=count) for _ in range(4)]
    flushing = [threading.Thread(target=flush) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of everything
    try:
        for thread in (*counting, *flushing):
            thread.start()
        for thread in counting:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    stop.set()
    for thread in flushing:
        thread.join()
    mine.flush()
    found = traffic.total(redis).answers
    assert {answer: sum(durations.amounts) for answer, durations in found.items()} == dict.fromkeys(
        answers, 8_000
    )
    assert stream.ledger(redis) == {"2026-03-10:refused:invalid": 24_000}


def test_a_process_that_ends_brings_what_it_has_counted(settings: Settings, redis: Redis) -> None:
    program = (
        "import sys, datetime; from redis import Redis; from footfall.traffic import Traffic\n"
        "mine = Traffic(Redis.from_url(sys.argv[1])); mine.flush_forever()\n"
        "mine.refused(datetime.date(2026, 3, 10), 'invalid')"
    )
    subprocess.run([sys.executable, "-c", program, settings.redis_url], check=True, cwd=ROOT, timeout=60)
    assert stream.ledger(redis) == {"2026-03-10:refused:invalid": 1}


# Stores that are away


OWN = {
    name
    for name in metrics.METRICS
    if "_country_" in name or name.endswith(("_info", "_enabled", "_limit_entries"))
}
OWN = OWN - {"footfall_country_lookups_total"} | {"footfall_up"}
OF_REDIS = {
    "footfall_requests_total",
    "footfall_request_duration_seconds",
    "footfall_refusals_total",
    "footfall_country_lookups_total",
    "footfall_queue_entries",
    "footfall_queue_events",
    "footfall_queue_oldest_age_seconds",
    "footfall_cache_answers_total",
    "footfall_redis_memory_used_bytes",
    "footfall_redis_memory_limit_bytes",
    "footfall_redis_keys",
    "footfall_redis_durable",
}
OF_POSTGRESQL = {
    "footfall_dead_letters",
    "footfall_rollups_waiting",
    "footfall_rollup_last_timestamp_seconds",
    "footfall_partitions",
    "footfall_partitions_overdue",
    "footfall_salts_overdue",
    "footfall_schema_ok",
    "footfall_table_size_bytes",
    "footfall_table_rows",
}
OF_EITHER = {  # with a label that says of which
    "footfall_scrape_problems",
    "footfall_store_answer_seconds",
    "footfall_events_accepted_total",
    "footfall_events_settled_total",
    "footfall_events_duplicates_total",
    "footfall_events_dead_letters_total",
    "footfall_events_erased_total",
}
OF_BOTH = {"footfall_ledger_unbalanced"}


@pytest.mark.parametrize(
    ("away", "there"),
    [
        ({"redis"}, OF_POSTGRESQL | OF_EITHER),
        ({"postgresql"}, OF_REDIS | OF_EITHER),
        ({"redis", "postgresql"}, set()),
    ],
)
def test_a_store_that_is_away_takes_only_its_own_numbers_with_it(
    open_site: Open,
    tmp_path: Path,
    away: set[str],
    there: set[metrics.Name],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert set(metrics.METRICS) == OWN | OF_REDIS | OF_POSTGRESQL | OF_EITHER | OF_BOTH
    site = site_with_everything(open_site, tmp_path)
    assert set(read(site).families) == set(metrics.METRICS)
    changes = {name: value for store_ in away for name, value in NOWHERE[store_].items()}
    other = open_site(country_file=site.settings.country_file, **changes)
    caplog.clear()
    found = scraped(other.client, other.settings)
    assert set(found.families) == OWN | there
    up = {"redis", "postgresql"} - away
    assert found.by("footfall_up", "store") == dict.fromkeys(up, 1)
    for name in OF_EITHER & there:
        assert {value for _, labels in found.families[name].samples for _, value in labels} == up
    # a store that does not answer the simplest question is asked no other
    assert caplog.messages == ["a question for the metrics was not answered"] * len(away)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_database_that_hangs_costs_a_scrape_its_patience_however_many_come(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "PATIENCE_SECONDS", 0.5)
    assert read(site).by("footfall_up", "store") == {"redis": 1, "postgresql": 1}
    threads = threading.active_count()
    with stopped(backend_of(parts(site).engine)):
        for _ in range(4):
            started = time.clock_gettime(time.CLOCK_MONOTONIC)  # the one that does not stand still
            samples = parts(site).scraper.samples(NOW)
            assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 2
            up = {one.labels["store"]: one.value for one in samples if one.name == "footfall_up"}
            assert up == {"redis": 1, "postgresql": 0}
            assert "footfall_queue_entries" in {one.name for one in samples}
        assert threading.active_count() <= threads + 2  # not one more for each scrape
    assert read(site).by("footfall_up", "store") == {"redis": 1, "postgresql": 1}


def test_one_table_that_is_locked_costs_its_own_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "STATEMENT_TIMEOUT", text("SET LOCAL statement_timeout = '200ms'"))
    with site.engine.begin() as connection:
        connection.execute(text("LOCK TABLE rollup_days IN ACCESS EXCLUSIVE MODE"))
        found = read(site)
    assert found.by("footfall_up", "store") == {"redis": 1, "postgresql": 1}
    # the sizes of tables want the lock as well
    assert found.value("footfall_scrape_problems", store="postgresql") == 2
    assert "footfall_rollups_waiting" not in found.families
    assert "footfall_dead_letters" in found.families, "what was asked after it"
    # its thread may still be asking, and the stores' clients are closed next
    wait_until(lambda: not any(thread.name == "scrape" for thread in threading.enumerate()))


def test_what_is_counted_while_redis_is_away_is_kept_and_brought_later(own: OwnRedis) -> None:
    client = Redis.from_url(own.server.url, socket_timeout=0.5)
    mine = Traffic(client)
    for n in range(4):
        mine.refused(NOW.date(), "unavailable")
        if n == 1:
            own.kill()
        if n in {1, 2}:
            with pytest.raises(RedisError):
                mine.flush()
    own.start()
    mine.flush()
    assert stream.ledger(client) == {"2026-03-10:refused:unavailable": 4}
    client.close()


def test_what_a_paused_redis_carries_out_later_is_counted_once(own: OwnRedis) -> None:
    client = Redis.from_url(own.server.url, socket_timeout=0.2)
    mine = Traffic(client)
    mine.refused(NOW.date(), "invalid")
    mine.flush()
    with own.paused():
        for _ in range(3):  # each of them waits in the server's socket
            mine.refused(NOW.date(), "invalid")
            with pytest.raises(RedisError):
                mine.flush()
    mine.flush()
    assert stream.ledger(client) == {"2026-03-10:refused:invalid": 4}
    client.close()


# Who may read, and what


def test_it_is_for_prometheus_moderators_and_servers(open_site: Open) -> None:
    site = open_site(metrics_token=TOKEN)

    def status(headers: dict[str, str]) -> int:
        return site.client.get("/metrics", headers=headers).status_code

    assert status(PROMETHEUS) == 200
    assert status(SERVICE) == 200
    for role, expected in {"moderator": 200, "admin": 200, "service": 200, "user": 403}.items():
        assert status(bearer(site.settings, role)) == expected, role
    assert status({}) == 401
    assert status({"Authorization": TOKEN}) == 401
    for wrong in (TOKEN[:-1], f"{TOKEN}x", "", "None", "ä" * 32):
        assert status({"Authorization": f"Bearer {wrong}".encode().decode("latin-1")}) == 401, wrong
    assert site.client.post("/metrics", headers=PROMETHEUS).status_code == 405


def test_whoever_is_logged_in_as_a_moderator_may_look(site: Site) -> None:
    token = bearer(site.settings, "moderator")["Authorization"].removeprefix("Bearer ")
    site.client.set_cookie("footfall_session", token)
    assert site.client.get("/metrics").status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1"])
def test_an_address_opens_nothing(site: Site, address: str) -> None:
    response = site.client.get("/metrics", environ_overrides={"REMOTE_ADDR": address})
    assert response.status_code == 401


def test_without_the_setting_there_is_no_such_token(site: Site) -> None:
    assert site.settings.metrics_token is None
    for word in ("None", "", TOKEN):
        assert site.client.get("/metrics", headers={"Authorization": f"Bearer {word}"}).status_code == 401


def test_the_token_opens_nothing_else(open_site: Open) -> None:
    site = open_site(metrics_token=TOKEN)
    for path in ("/api/admin/ledger", "/api/admin/sitewide-stats", "/api/stats/top?type=book"):
        assert site.client.get(path, headers=PROMETHEUS).status_code == 401
    assert site.client.post("/api/track/batch", json={"events": []}, headers=PROMETHEUS).status_code == 401
    assert site.client.delete("/api/entities/book/b1", headers=PROMETHEUS).status_code == 401


def test_everything_has_a_name_a_kind_and_a_meaning_and_nobody_is_in_it(
    open_site: Open, tmp_path: Path
) -> None:
    site = site_with_everything(open_site, tmp_path, metrics_token=TOKEN)
    found = read(site)
    assert set(found.families) == set(metrics.METRICS)
    assert {name: (family.kind, family.help) for name, family in found.families.items()} == dict(
        metrics.METRICS
    )
    for word in ("secret", "SECRET", "192.0.2", "Firefox", "NP", TOKEN, SECRET, API_KEY_HASH):
        assert word not in found.text
    series = sum(len(family.samples) for family in found.families.values())
    assert series < 400


def test_label_values_are_escaped() -> None:
    sample = metrics.Sample("footfall_build_info", 1, {"version": 'a"b\\c\nd'})
    text_ = metrics.text_of([sample])
    assert text_.endswith('footfall_build_info{version="a\\"b\\\\c\\nd"} 1\n')
    assert parse(text_).value("footfall_build_info", version='a"b\\c\nd') == 1
