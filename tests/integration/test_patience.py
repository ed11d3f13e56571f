"""A PostgreSQL that takes connections and does not answer: nobody waits for long, and most not at all."""

import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from psycopg2 import connect
from redis import Redis
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from footfall import breaker, database, patience
from footfall.database import make_serving_engine
from footfall.settings import Settings
from tests.chaos.proxy import Proxy
from tests.integration.api import bearer
from tests.integration.content import Open, Site
from tests.waiting import wait_until

CONNECT_SECONDS = 2  # instead of 5; libpq knows no less
PING_SECONDS = 1.0  # instead of 5
STATEMENT_SECONDS = 2.0  # instead of 30
AWAY_SECONDS = 0.3  # instead of 2
AT_ONCE = 0.5  # measured: a thousandth
AWAY, BACK = "PostgreSQL is away, who needs it is refused", "PostgreSQL is back"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is given up sooner."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", CONNECT_SECONDS)
    monkeypatch.setattr(patience, "PING_SECONDS", PING_SECONDS)
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(breaker, "AWAY_SECONDS", AWAY_SECONDS)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are given up sooner, too."""
    monkeypatch.setattr(database, "SPARE_SECONDS", STATEMENT_SECONDS - database.STATEMENT_TIMEOUT_MS / 1000)


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    """In front of the tests' PostgreSQL."""
    query = make_url(settings.database_url).query
    made = Proxy(Path(str(query["host"]), f".s.PGSQL.{query['port']}"))
    end = Timer(60, made.set_mode, ["open"])  # or who waits without end does so in the tests, too
    end.start()
    yield made
    end.cancel()
    made.set_mode("open")
    made.close()


@pytest.fixture
def through(proxy: Proxy, settings: Settings) -> Settings:
    """Settings that lead through the proxy."""
    url = make_url(settings.database_url).set(host="127.0.0.1", port=proxy.port, query={})
    return replace(settings, database_url=url.render_as_string(hide_password=False))


@pytest.fixture
def serving(through: Settings) -> Iterator[Engine]:
    engine = make_serving_engine(through)
    yield engine
    engine.dispose()


def ask(engine: Engine, query: str = "SELECT 7") -> Any:
    with engine.connect() as connection:
        return connection.scalar(text(query))


def refused_after(work: Callable[[], object]) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    with pytest.raises(OperationalError):
        work()
    return time.monotonic() - began


def test_one_waits_for_a_connection_and_the_others_are_refused_at_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It listens and says nothing, as a host whose PostgreSQL stands still."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = make_serving_engine(
            replace(settings, database_url=f"postgresql+psycopg2://x@127.0.0.1:{port}/x")
        )
        assert 1 < refused_after(lambda: ask(engine)) < 5 * CONNECT_SECONDS
        deadline, refusals = time.monotonic() + 3 * CONNECT_SECONDS, 0
        while time.monotonic() < deadline:
            assert refused_after(lambda: ask(engine)) < AT_ONCE
            refusals += 1
            time.sleep(0.01)
        engine.dispose()
        assert refusals > 50
        assert 2 <= pending(silent) <= 6, "one looks now and then"
    assert caplog.messages.count(AWAY) == 1


def test_it_is_used_again_when_it_answers(
    serving: Engine, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(serving) == 7
    for outage in (1, 2):
        proxy.set_mode("silent")
        # the idle connection first, then a new one
        assert refused_after(lambda: ask(serving)) < 5 * (PING_SECONDS + CONNECT_SECONDS)
        assert refused_after(lambda: ask(serving)) < AT_ONCE
        proxy.set_mode("open")
        wait_until(lambda: answers(serving))
        assert caplog.messages.count(AWAY) == caplog.messages.count(BACK) == outage


def test_a_refusal_that_comes_at_once_keeps_nobody_away(settings: Settings) -> None:
    """Of a server that is down everybody is told by itself; the first to come after its return is served."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = make_serving_engine(replace(settings, database_url=f"postgresql+psycopg2://x@127.0.0.1:{port}/x"))
    for _ in range(3):
        with pytest.raises(OperationalError, match="refused"):
            ask(away)
    away.dispose()


def test_one_that_refuses_instead_of_hanging_is_asked_by_everybody_again(
    serving: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.set_mode("silent")
    refused_after(lambda: ask(serving))
    monkeypatch.setattr(proxy, "_target", Path("/nowhere"))
    proxy.set_mode("open")
    wait_until(lambda: "somebody looks" not in why_refused(serving))


@pytest.mark.parametrize("what", ["statement", "many", "copy", "commit", "rollback", "cursor"])
@pytest.mark.usefixtures("hasty")
def test_what_is_under_way_when_it_falls_silent_is_given_up(
    what: str, through: Settings, proxy: Proxy
) -> None:
    serving = make_serving_engine(through)
    with serving.connect() as connection:
        raw: Any = connection.connection.driver_connection
        named = raw.cursor("named")
        named.execute("SELECT * FROM generate_series(1, 1000000)")
        proxy.set_mode("silent")
        began = time.monotonic()
        with pytest.raises((DBAPIError, raw.Error)):
            under_way(what, raw, named)
        assert STATEMENT_SECONDS - 0.5 < time.monotonic() - began < 5 * STATEMENT_SECONDS
        connection.invalidate()
    assert raw.closed
    proxy.set_mode("open")
    wait_until(lambda: answers(serving))
    serving.dispose()


def under_way(what: str, raw: Any, named: Any) -> None:
    match what:
        case "statement":
            raw.cursor().execute("SELECT 7")
        case "many":
            raw.cursor().executemany("SELECT %s", [(7,)])
        case "copy":
            with open(os.devnull, "w") as nowhere:
                raw.cursor().copy_expert("COPY (SELECT 7) TO STDOUT", nowhere)
        case "commit":
            raw.commit()
        case "rollback":
            raw.rollback()
        case "cursor":
            named.fetchmany(2000)


@pytest.mark.usefixtures("hasty")
def test_who_is_slow_within_the_limit_is_waited_for(through: Settings) -> None:
    """And the watch's thread ends with the last wait."""
    serving = make_serving_engine(through)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: ask(serving, "SELECT 7 FROM pg_sleep(0.7)"), range(8))) == [7] * 8
    serving.dispose()
    wait_until(lambda: not patience.WATCH._waits and not patience.WATCH._is_running)


def test_connections_leave_no_open_files(settings: Settings) -> None:
    def files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = files()
    for closing in (True, False):
        engine = make_serving_engine(settings)
        for _ in range(3):
            with engine.connect() as connection:
                connection.execute(text("SELECT 7"))
                if closing:
                    connection.invalidate()
        engine.dispose()
        raw = connect(settings.database_url.replace("+psycopg2", ""), connection_factory=patience.Connection)
        if closing:
            raw.close()
        del raw, engine, connection
    wait_until(lambda: files() <= before)


def test_requests_that_need_it_are_refused_and_pages_are_taken(
    open_site: Open, through: Settings, proxy: Proxy, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what Redis knows, views and counts are answered; of the rest, 503, soon and then at once."""
    caplog.set_level(logging.ERROR, "footfall")
    site = open_site(database_url=through.database_url)
    assert site.send("/api/views", {"contentId": "known", "contentType": "resource"}).status_code == 200
    assert site.send("/api/track/page-view", {"path": "/p"}).status_code == 204
    gets = [
        "/api/views?contentId=new&contentType=resource",
        "/api/admin/sitewide-stats",
        "/api/stats/top?type=book&period=day",
        "/mod-dashboard",
        "/api/health/ready",
    ]
    with silent(proxy):
        began = time.monotonic()
        for path in gets:
            assert get(site, path) == 503, path
        new = site.send("/api/views", {"contentId": "new", "contentType": "resource"})
        assert (new.status_code, new.headers["Retry-After"].isdecimal()) == (503, True)
        assert time.monotonic() - began < 5 * (PING_SECONDS + CONNECT_SECONDS)
        began = time.monotonic()
        for _ in range(10):
            new = site.send("/api/views", {"contentId": "new", "contentType": "resource"})
            assert (new.status_code, new.headers["Retry-After"].isdecimal()) == (503, True)
            assert get(site, "/api/admin/sitewide-stats") == 503
            assert site.send("/api/track/page-view", {"path": "/p"}).status_code == 204
            known = site.send("/api/views", {"contentId": "known", "contentType": "resource"})
            assert known.status_code == 200
        assert time.monotonic() - began < 10 * AT_ONCE
    wait_until(lambda: get(site, "/api/admin/sitewide-stats") == 200)
    assert site.send("/api/views", {"contentId": "new", "contentType": "resource"}).json == {
        "success": True,
        "count": 1,
    }
    assert site.send("/api/views", {"contentId": "known", "contentType": "resource"}).json == {
        "success": True,
        "count": 12,
    }


@contextmanager
def silent(proxy: Proxy) -> Iterator[None]:
    proxy.set_mode("silent")
    try:
        yield
    finally:
        proxy.set_mode("open")


def get(site: Site, path: str) -> int:
    return site.client.get(path, headers=bearer(site.settings, "moderator")).status_code


def answers(engine: Engine) -> bool:
    try:
        return bool(ask(engine) == 7)
    except OperationalError:
        return False


def why_refused(engine: Engine) -> str:
    with pytest.raises(OperationalError) as refusal:
        ask(engine)
    return str(refusal.value.orig)


def pending(listener: socket.socket) -> int:
    """How many have come so far."""
    listener.setblocking(False)
    found = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return found
        found += 1
