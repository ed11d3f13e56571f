"""Neither store is there: views are refused quickly, and land once when whoever sent them tries again."""

import json
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from threading import Event, Timer
from typing import Any
from urllib.error import HTTPError
from uuid import UUID

import pytest
from sqlalchemy import select

from api.asgi import ANSWER_SECONDS
from footfall.cli.processes import kill_session
from footfall.clock import utc_now
from footfall.database import make_engine
from footfall.ids import uuid7
from footfall.schema import ViewEventRow
from tests.chaos.stores import Stores
from tests.functional.instance import Instance
from tests.waiting import wait_until

QUICK_SECONDS = 2.0  # measured: some hundredths
BACK_SECONDS = 60.0
Body = Mapping[str, Any]


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-both-", dir="/tmp"))
    folder.chmod(0o755)
    made = Stores(folder)
    yield made
    made.close(keep=False)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def instance(stores: Stores) -> Iterator[Instance]:
    with Instance(stores.folder / "data", stores.environment).running() as running:
        yield running


@pytest.fixture
def requests(instance: Instance) -> list[tuple[str, Body, Mapping[str, str]]]:
    """One of each way in, with ids of their own."""
    batch = {
        "entity_type": "page",
        "entity_id": "/both",
        "id": new_id(),
        "ip": "192.0.2.1",
        "user_agent": "Mozilla",
    }
    return [
        ("/api/track/page-view", {"path": "/both", "id": new_id()}, {}),
        ("/api/views", {"contentId": "both", "contentType": "resource", "id": new_id()}, {}),
        ("/api/track/batch", {"events": [batch]}, {"Authorization": f"Bearer {instance.api_key}"}),
    ]


def test_views_are_refused_quickly_and_counted_once_when_sent_again(
    instance: Instance, stores: Stores, requests: list[tuple[str, Body, Mapping[str, str]]]
) -> None:
    before = stored(instance)
    for path, body, headers in requests:
        assert send(instance, path, with_new_ids(body), headers)[0] in (200, 204)
    refused = Event()
    with ThreadPoolExecutor(len(requests)) as threads:
        with down(stores):
            instance.get("/api/health")
            for path, body, headers in requests:
                asked_at = time.monotonic()
                status, answer = send(instance, path, body, headers)
                assert time.monotonic() - asked_at < QUICK_SECONDS, path
                assert (status, answer.get("retry-after", "").isdecimal()) == (503, True), path
            clients = [threads.submit(send_until_taken, instance, *request, refused) for request in requests]
            wait_until(refused.is_set, "a refusal")
            assert instance.get("/api/health").status == 200
        tries = [client.result(BACK_SECONDS) for client in clients]
    assert max(tries) > 1
    for path, body, headers in requests:  # whose answer got lost
        assert send(instance, path, body, headers)[0] in (200, 204)
    instance.check_balance()
    new = stored(instance) - before
    assert sorted(new.values()) == [1] * 2 * len(requests)
    assert {UUID(each) for _, body, _ in requests for each in ids(body)} <= new.keys()


def test_stores_that_hang_are_waited_for_less_than_a_minute(
    instance: Instance, stores: Stores, requests: list[tuple[str, Body, Mapping[str, str]]]
) -> None:
    """They neither refuse nor answer: whoever waits is told to come again, and nothing counts twice then."""
    for path, body, headers in requests:
        assert send(instance, path, with_new_ids(body), headers)[0] in (200, 204)
    with hanging(stores), ThreadPoolExecutor(len(requests)) as threads:
        asked_at = time.monotonic()
        answers = [threads.submit(send, instance, *request) for request in requests]
        for answer in answers:
            status, headers = answer.result()
            assert (status, headers.get("retry-after", "").isdecimal()) == (503, True)
        assert time.monotonic() - asked_at < ANSWER_SECONDS + QUICK_SECONDS
    for path, body, headers in requests:
        send_until_taken(instance, path, body, headers, Event())
    instance.check_balance()
    assert {stored(instance)[UUID(each)] for _, body, _ in requests for each in ids(body)} == {1}


@contextmanager
def down(stores: Stores) -> Iterator[None]:
    """Both killed, and started again when the block ends."""
    for store in stores.all.values():
        store.is_held_down = True
        kill_session(store.process)
    try:
        yield
    finally:
        for store in stores.all.values():
            store.is_held_down = False
        deadline = time.monotonic() + BACK_SECONDS
        while not all(store.server.answers() for store in stores.all.values()):
            assert time.monotonic() < deadline
            stores.tend()


@contextmanager
def hanging(stores: Stores) -> Iterator[None]:
    """Nothing passes to or from them until the block ends, or for a minute."""
    modes = [store.proxy.set_mode for store in stores.all.values()]
    end = Timer(60, lambda: [set_mode("open") for set_mode in modes] and None)
    end.start()
    try:
        for set_mode in modes:
            set_mode("silent")
        yield
    finally:
        end.cancel()
        for set_mode in modes:
            set_mode("open")


def send(
    instance: Instance, path: str, body: Body, headers: Mapping[str, str]
) -> tuple[int, Mapping[str, str]]:
    """As a server of the site's would: status and headers."""
    sent = {"Content-Type": "application/json", "User-Agent": "Mozilla/5.0", **headers}
    request = urllib.request.Request(instance.url + path, json.dumps(body).encode(), sent)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, _lower(answer.headers)
    except HTTPError as error:
        with error:
            return error.code, _lower(error.headers)


def send_until_taken(
    instance: Instance, path: str, body: Body, headers: Mapping[str, str], refused: Event
) -> int:
    """Send it again whenever 503 says when; how many tries it took."""
    for tries in range(1, 20):
        status, answer = send(instance, path, body, headers)
        if status in (200, 204):
            return tries
        assert status == 503
        refused.set()
        time.sleep(min(int(answer["retry-after"]), 5))
    raise AssertionError("it was never taken")


def stored(instance: Instance) -> Counter[UUID]:
    engine = make_engine(instance.settings)
    with engine.connect() as connection:
        found = Counter(connection.scalars(select(ViewEventRow.id)))
    engine.dispose()
    return found


def ids(body: Body) -> list[str]:
    return [each["id"] for each in body.get("events", [body])]


def with_new_ids(body: Body) -> Body:
    if "events" in body:
        return {"events": [{**each, "id": new_id()} for each in body["events"]]}
    return {**body, "id": new_id()}


def new_id() -> str:
    return str(uuid7(utc_now()))


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
