"""Flushing: what is queued is written at once, however many ask, and whatever becomes of them."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, cast

import pytest
from werkzeug.test import TestResponse

from footfall import flush, stream, writer
from footfall.clock import utc_now
from tests.integration.api import SERVICE, bearer
from tests.integration.content import Open, Site

FLUSH = "/api/views/flush"
VIEW = "/api/track/view"


def ask(site: Site, role: str = "admin") -> TestResponse:
    """POST the flush as somebody in that role."""
    return site.client.post(FLUSH, headers=bearer(site.settings, role))


def view(site: Site, course: str = "c1", **body: object) -> None:
    answer = site.track("/api/views", {"contentId": course, "contentType": "course", **body})
    assert answer.status == 200


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def total(site: Site) -> int:
    return sum(site.counters().values())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush gives up soon."""
    monkeypatch.setattr(flush, "FLUSH_SECONDS", 0.4)
    monkeypatch.setattr(flush, "POLL_SECONDS", 0.01)


def test_row_27_only_an_admin_flushes(site: Site) -> None:
    view(site)
    anonymous = site.client.post(FLUSH)
    assert (anonymous.status_code, anonymous.headers["WWW-Authenticate"]) == (401, "Bearer")
    for role in ("user", "moderator", "service"):
        answer = ask(site, role)
        assert (answer.status_code, answer.json and answer.json["code"]) == (403, "not_allowed")
    assert site.client.post(FLUSH, headers=SERVICE).status_code == 403
    assert site.client.get(FLUSH).status_code == 405
    assert total(site) == 0
    assert ask(site).status_code == 200
    assert total(site) == 1


def test_row_27_a_flush_tells_how_many_counters_it_wrote(site: Site) -> None:
    answer = ask(site)
    assert (answer.status_code, answer.json) == (200, {"success": True, "flushed": 0})
    for course in ("c1", "c2", "c1"):
        view(site, course)
    for view_type in ("listing", "search"):
        site.track(VIEW, {"entity_type": "post", "entity_id": "p", "view_type": view_type})
    site.send("/api/track/page-view", {"path": "/a"})
    site.track("/api/views", {"contentId": "c3", "contentType": "course"}, agent="Googlebot/2.1")
    answer = ask(site)
    assert answer.json == {"success": True, "flushed": 5}
    assert len(site.counters()) == 5
    assert stream.backlog(site.redis, utc_now()).entries == 0
    answer = ask(site)
    assert answer.json == {"success": True, "flushed": 0}


def test_row_30_two_flushes_at_once_lose_and_double_nothing(open_site: Open) -> None:
    sites = [open_site() for _ in range(3)]
    for number in range(60):
        view(sites[0], f"c{number % 7}")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, sites * 2))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert max(cast(Any, answer.json)["flushed"] for answer in answers) == 7
    assert total(sites[0]) == 60
    assert sites[0].tallies() == {"accepted": 60, "settled": 60}
    assert sites[0].rows("SELECT count(*) FROM view_events") == [(60,)]


def test_row_30_flushes_while_views_come_in_lose_and_double_nothing(open_site: Open) -> None:
    site, flushers = open_site(), [open_site(), open_site()]
    done = Event()

    def keep_flushing(process: Site) -> set[int]:
        statuses = set()
        while not done.is_set():
            statuses.add(ask(process).status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        flushing = [pool.submit(keep_flushing, process) for process in flushers]
        try:
            told = [
                site.track("/api/views", {"contentId": "c1", "contentType": "course"}).body["count"]
                for _ in range(150)
            ]
        finally:
            done.set()
    assert told == list(range(1, 151)), "a count was lost, doubled or fell"
    assert {status for one in flushing for status in one.result()} == {200}
    assert ask(site).status_code == 200
    assert total(site) == 150
    assert site.tallies() == {"accepted": 150, "settled": 150}


@pytest.mark.parametrize("where", ["footfall.days.raise_versions", "footfall.stream.settle"])
def test_row_30_a_flush_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before the commit, or between it and the acknowledgement."""
    site, other = open_site(), open_site()
    for number in range(10):
        view(site, f"c{number % 3}")
    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            ask(site)
    view(site)
    monkeypatch.setattr(stream, "TAKE_OVER_IDLE_MS", 0)
    answer = ask(other)
    assert (answer.status_code, cast(Any, answer.json)["flushed"]) == (200, 3)
    assert total(site) == 11
    assert site.tallies() == {"accepted": 11, "settled": 11}
    assert site.client.get("/api/views?contentId=c0&contentType=course").json == {"count": 4}


def test_a_flush_waits_for_what_another_writer_holds(site: Site) -> None:
    view(site)
    (entry,) = stream.read(site.redis, "another", 10)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(ask, site)
        view(site, "c2")
        while ("course", "c2", "intentional") not in site.counters():
            assert time.monotonic() < started + 20
            time.sleep(0.01)
        assert not flushing.done(), "it did not wait"
        assert total(site) == 1
        writer.drain(site.engine, site.redis, site.settings, "another")
        answer = flushing.result(20)
    assert answer.json == {"success": True, "flushed": 1}
    assert total(site) == 2
    assert stream.settle(site.redis, {entry.id: {}}) == 0, "it was acknowledged already"


@pytest.mark.usefixtures("impatient")
def test_a_flush_that_waits_in_vain_says_so_and_loses_nothing(site: Site) -> None:
    view(site)
    assert stream.read(site.redis, "another", 10)
    view(site, "c2")
    answer = ask(site)
    assert (answer.status_code, answer.json and answer.json["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert total(site) == 1, "what nobody holds is written all the same"
    writer.drain(site.engine, site.redis, site.settings, "another")
    assert total(site) == 2


def test_a_flush_does_not_wait_for_what_comes_after_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that come in faster than they are written do not keep it."""
    read: Any = stream.read
    sent = 0

    def another_comes_in(*arguments: Any) -> Any:
        nonlocal sent
        entries = read(*arguments)
        if entries:
            sent += 1
            view(site, "endless")
        return entries

    monkeypatch.setattr(writer, "DRAIN_SECONDS", 5.0)
    monkeypatch.setattr("footfall.stream.read", another_comes_in)
    view(site)
    started = time.monotonic()
    assert ask(site).json == {"success": True, "flushed": 1}
    assert time.monotonic() - started < 4
    assert 1 <= sent <= 3


def test_a_flush_without_a_store_is_503(open_site: Open) -> None:
    without_redis = open_site(redis_url="redis://127.0.0.1:1")
    without_database = open_site(database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    view(open_site())
    for site in (without_redis, without_database):
        answer = ask(site)
        assert (answer.status_code, answer.json and answer.json["code"]) == (503, "unavailable")
    assert ask(open_site()).json == {"success": True, "flushed": 1}
