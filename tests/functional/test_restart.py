"""The API is told to end while requests are under way, and comes back also while Redis hangs."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import text

from footfall.clock import utc_now
from footfall.ids import uuid7
from tests.functional.instance import Instance
from tests.waiting import wait_until

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
BACK_SECONDS = 10.0  # half of what it took as long as the supervisor waited for Redis, too
UNDER_WAY = 16


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-restart-", dir="/tmp"))
    with Instance(folder / "data").running() as running:
        yield running
    shutil.rmtree(folder)


def test_requests_under_way_when_the_api_is_told_to_end_are_answered(instance: Instance) -> None:
    """They wait for a Redis that hangs, so that they are certainly under way; pages and content alike."""
    assert track(instance, 0) == 204  # whoever takes views holds connections and salts
    api = instance.run["api"]["pid"]
    with ThreadPoolExecutor(UNDER_WAY) as threads, hanging(instance, "redis"):
        answers = [threads.submit(track, instance, number) for number in range(UNDER_WAY)]
        wait_until(lambda: connections(instance) >= UNDER_WAY, "all requests to be under way")
        os.kill(api, signal.SIGTERM)
        assert [answer.result(30) for answer in answers] == [
            204 if n % 2 == 0 else 200 for n in range(UNDER_WAY)
        ]
    wait_until(lambda: instance.run["api"]["pid"] != api and answers_now(instance), "the next one")


def test_no_view_is_lost_while_the_api_is_restarted_again_and_again(instance: Instance) -> None:
    """What is not answered is sent again with its id, as the browser's script does."""
    enough = Event()
    paths: list[str] = []
    with ThreadPoolExecutor(4) as threads:
        senders = [threads.submit(send_until, instance, paths, enough) for _ in range(4)]
        try:
            for _ in range(3):
                many = len(paths) + 100
                wait_until(lambda many=many: len(paths) >= many, "views")  # type: ignore[misc]
                api = instance.run["api"]["pid"]
                os.kill(api, signal.SIGTERM)
                wait_until(lambda was=api: instance.run["api"]["pid"] != was and answers_now(instance), "it")  # type: ignore[misc]
        finally:
            enough.set()
        for sender in senders:
            sender.result(60)
    instance.check_balance()
    engine = instance.engine()
    query = text(
        "SELECT e.external_id, count(*) AS views"
        " FROM view_events AS v JOIN entities AS e ON e.id = v.entity_id"
        " WHERE e.external_id LIKE '/again/%' GROUP BY e.external_id"
    )
    with engine.connect() as connection:
        rows = {row.external_id: row.views for row in connection.execute(query)}
    engine.dispose()
    assert rows == dict.fromkeys(paths, 1)


def test_an_api_that_dies_while_redis_hangs_is_back_soon(instance: Instance) -> None:
    """Whoever starts it again does not wait for Redis."""
    api = instance.run["api"]["pid"]
    with hanging(instance, "redis"):
        # until the supervisor waits for Redis as well, as it looks every 5 s whether views are written
        deadline = time.monotonic() + 6
        wait_until(lambda: time.monotonic() > deadline, "the supervisor's next look")
        died_at = time.monotonic()
        os.kill(api, signal.SIGKILL)
        wait_until(lambda: instance.run["api"]["pid"] != api and answers_now(instance), "the next one")
        assert time.monotonic() - died_at < BACK_SECONDS


def track(instance: Instance, number: int) -> int:
    """A view of a page or of something with a live count; the answer's status."""
    if number % 2 == 0:
        return instance.post("/api/track/page-view", {"path": "/under-way"}, BROWSER).status
    body = {"contentId": "under-way", "contentType": "resource"}
    return instance.post("/api/views", body, BROWSER).status


def send_until(instance: Instance, paths: list[str], enough: Event) -> None:
    """Send views of new pages one after the other, each until it is answered; add their paths."""
    while not enough.is_set():
        event_id = uuid7(utc_now())
        body = {"path": f"/again/{event_id}", "id": str(event_id)}
        wait_until(lambda body=body: answered(instance, body), "an answer", 60)  # type: ignore[misc]
        paths.append(body["path"])


def answered(instance: Instance, body: dict[str, str]) -> bool:
    try:
        return instance.post("/api/track/page-view", body, BROWSER).status == 204
    except (OSError, HTTPException, KeyError):
        return False


def answers_now(instance: Instance) -> bool:
    try:
        return instance.get("/api/health").status == 200
    except (OSError, HTTPException):
        return False


def connections(instance: Instance) -> int:
    """How many connections the API has accepted; one that it has not has no inode yet (proc_net_tcp(5))."""
    port = f":{int(instance.url.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(1 for one in fields if one[1].endswith(port) and one[3] == "01" and one[9] != "0")


@contextmanager
def hanging(instance: Instance, part: str) -> Iterator[None]:
    """Stopped until the block ends: it takes connections and says nothing."""
    pid = instance.run[part]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
