"""Content is viewed by many at once while parts are killed: every answered view is counted once.

What is asked of every run: the rows are the views, the shown count never falls and is never ahead of what was
sent.
"""

import http.client
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread, Timer
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from footfall import access, counts, stream
from footfall.clock import utc_now
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.factory import EVENTS
from tests.functional.instance import Instance
from tests.waiting import wait_until

THREADS = 50
VIEWS = 2_000
VIEWERS = 600
PATIENCE_SECONDS = 60.0  # for one answer; a killed part is back well before
AGAIN_SECONDS = 0.1
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
# Redis is paused for longer than counts are refused after it went away, which takes 5 s to be noticed
REFUSED_SECONDS = 10.0
PAUSE_SECONDS = 40.0

STORED = text(
    f"SELECT v.id, v.outcome, v.entry FROM {EVENTS} AS v JOIN entities AS e ON e.id = v.entity_id"
    " WHERE e.entity_type = :type AND e.external_id = :id"
)
COUNTERS = text(
    "SELECT c.view_type, c.count FROM view_counters AS c JOIN entities AS e ON e.id = c.entity_id"
    " WHERE e.entity_type = :type AND e.external_id = :id"
)


@dataclass(slots=True)
class View:
    """One view on its way: sent under its id until it is answered."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    viewer: str
    id: UUID = field(default_factory=lambda: uuid7(utc_now()))
    answers_to_lose: int = 0  # each makes the viewer send it again
    outcome: str = ""  # as answered
    sent_at: float = 0.0
    answered_at: float = 0.0
    next: "View | None" = None  # the viewer's, sent some time after the answer


@dataclass(frozen=True, slots=True)
class Row:
    """A view as stored."""

    id: UUID
    outcome: str
    entry: int  # negative: written without the queue


class Client:
    """One kept connection."""

    def __init__(self, instance: Instance) -> None:
        address = urlsplit(instance.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, str, Any]:
        """Status, outcome and JSON; status 503 as well when nobody answers."""
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
            return answer.status, answer.headers.get("X-View-Outcome", ""), json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 503, "", None

    def close(self) -> None:
        self._connection.close()


class Crowd:
    """Fifty at a time, each sending the next view until it is answered."""

    def __init__(self, instance: Instance, views: Iterable[View]) -> None:
        self._instance = instance
        self._waiting = deque(views)
        self._lock = Lock()
        self._chance = random.Random(11)
        self._threads = [Thread(target=self._work) for _ in range(THREADS)]
        self._problems: list[str] = []
        self.ids_sent = 0
        self.answered: list[View] = []

    @contextmanager
    def sending(self) -> Iterator["Crowd"]:
        """Everything is sent when the block ends."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            for thread in self._threads:
                thread.join()
        assert self._problems == []

    def wait_for(self, answers: int) -> None:
        """Wait for so many answers; fails when all have been given."""
        wait_until(lambda: len(self.answered) >= answers or self._problems, "answers", 120)
        assert any(thread.is_alive() for thread in self._threads), "it was not in the middle"

    def _work(self) -> None:
        client = Client(self._instance)
        try:
            while (view := self._next()) is not None:
                self._send(client, view)
                self._note_answer(view)
        except AssertionError as error:
            self._problems.append(str(error))
        finally:
            client.close()

    def _next(self) -> View | None:
        with self._lock:
            if not self._waiting:
                return None
            self.ids_sent += 1
            return self._waiting.popleft()

    def _note_answer(self, view: View) -> None:
        with self._lock:
            self.answered.append(view)
            if view.next is not None:
                self._waiting.insert(self._chance.randrange(len(self._waiting) + 1), view.next)

    def _send(self, client: Client, view: View) -> None:
        body = json.dumps({**view.body, "id": str(view.id)}).encode()
        headers = {"Content-Type": "application/json", **BROWSER, **view.headers}
        view.sent_at = time.monotonic()
        while True:
            status, outcome, content = client.request("POST", view.path, body, headers)
            if status == 200 and view.answers_to_lose:
                view.answers_to_lose -= 1
                continue
            if status == 200:
                view.outcome = outcome
                view.answered_at = time.monotonic()
                return
            assert status == 503, f"{status} {content}"
            assert time.monotonic() < view.sent_at + PATIENCE_SECONDS, "no answer"
            time.sleep(AGAIN_SECONDS)


class Watcher:
    """Reads the shown count as fast as it can."""

    def __init__(self, instance: Instance, path: str, crowd: Crowd) -> None:
        self._instance = instance
        self._path = path
        self._crowd = crowd
        self._ended = False
        self._thread = Thread(target=self._work)
        self.readings: list[int] = []
        self.too_high: list[tuple[int, int]] = []  # the count, the ids that had been sent by then
        self.other: Counter[int] = Counter()  # statuses but 200

    @contextmanager
    def watching(self) -> Iterator["Watcher"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended = True
            self._thread.join()

    @property
    def falls(self) -> list[tuple[int, int]]:
        """Readings that were followed by a lower one."""
        pairs = zip(self.readings, self.readings[1:], strict=False)
        return [(before, after) for before, after in pairs if after < before]

    def read_again(self) -> None:
        """Wait for a count that was asked for after this call."""
        enough = len(self.readings) + 2
        wait_until(lambda: len(self.readings) >= enough, "another reading")

    def _work(self) -> None:
        client = Client(self._instance)
        while not self._ended:
            status, _, content = client.request("GET", self._path, None, {})
            if status == 200:
                count = sum(content.values())
                self.readings.append(count)
                sent = self._crowd.ids_sent
                if count > sent:
                    self.too_high.append((count, sent))
            else:
                self.other[status] += 1
        client.close()


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-counts-", dir="/tmp"))
    with Instance(folder / "data", {"FOOTFALL_TRUSTED_PROXIES": "1"}).running() as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def settings(instance: Instance) -> Settings:
    """The instance's own, so that tokens can be made as the host site would."""
    return instance.settings


@pytest.fixture
def redis(instance: Instance) -> Iterator[Redis]:
    client = Redis.from_url(instance.run["redis"]["url"])
    yield client
    client.close()


@pytest.mark.parametrize(
    "killed",
    [[], ["redis"], ["postgres"], ["redis", "postgres"], ["api"], ["worker"]],
    ids=lambda parts: " and ".join(parts) or "nothing",
)
def test_2000_first_views_of_a_new_book_by_50_threads_are_2000_views(
    instance: Instance, redis: Redis, settings: Settings, killed: list[str]
) -> None:
    book = f"book-{uuid4()}"
    crowd = Crowd(instance, book_views(settings, book))
    watcher = Watcher(instance, f"/api/books/{book}/stats", crowd)
    with watcher.watching():
        with crowd.sending():
            if killed:
                crowd.wait_for(VIEWS // 3)
                kill(instance, killed)
        settle(instance, redis)
        watcher.read_again()
    assert Counter(view.outcome for view in crowd.answered) == {"counted": VIEWS}
    rows = stored(instance, "book", book)
    assert Counter(row.id for row in rows) == Counter(view.id for view in crowd.answered)
    assert {row.outcome for row in rows} == {"counted"}
    assert counters(instance, "book", book) == [("card_view", VIEWS)]
    assert instance.get(f"/api/books/{book}/stats").json == {"card_view": VIEWS}
    assert watcher.readings[-1] == VIEWS
    assert len(set(watcher.readings)) > 20
    assert watcher.falls == []
    assert watcher.too_high == []
    assert set(watcher.other) <= {503}
    if killed == ["redis"]:
        assert {row.entry < 0 for row in rows} == {True, False}, "not both ways were taken"


def test_of_two_views_of_a_viewer_at_once_one_counts(instance: Instance, redis: Redis) -> None:
    story = f"story-{uuid4()}"
    viewers = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(VIEWERS)]
    # side by side in the queue, so that both are under way at the same time
    crowd = Crowd(instance, [story_view(story, viewer) for viewer in viewers for _ in range(2)])
    with crowd.sending():
        pass
    settle(instance, redis)
    outcomes = Counter((view.viewer, view.outcome) for view in crowd.answered)
    assert outcomes == Counter((viewer, outcome) for viewer in viewers for outcome in ("counted", "repeat"))
    assert {(row.id, row.outcome) for row in stored(instance, "story", story)} == {
        (view.id, view.outcome) for view in crowd.answered
    }
    assert counters(instance, "story", story) == [("intentional", VIEWERS)]


@pytest.mark.parametrize("killed", ["redis", "postgres", "api"])
def test_of_two_views_of_a_viewer_one_counts_whatever_is_killed(
    instance: Instance, redis: Redis, killed: str
) -> None:
    """But for those whose first view was in the queue, unwritten, at the moment when Redis was killed: the
    second one goes to the database, which does not know of it yet, and counts as well.
    """
    story = f"story-{uuid4()}"
    first = [story_view(story, f"10.{2 + len(killed)}.{n // 250}.{n % 250 + 1}") for n in range(VIEWERS)]
    for view in first:
        view.next = story_view(story, view.viewer)
    crowd = Crowd(instance, first)
    with crowd.sending():
        crowd.wait_for(VIEWERS * 2 // 3)
        written = {row.id for row in stored(instance, "story", story)}
        killed_at = time.monotonic()
        kill(instance, [killed])
    settle(instance, redis)
    assert len(crowd.answered) == 2 * VIEWERS
    rows = {row.id: row for row in stored(instance, "story", story)}
    assert {(row.id, row.outcome) for row in rows.values()} == {
        (view.id, view.outcome) for view in crowd.answered
    }
    views = Counter(view.viewer for view in crowd.answered if view.outcome == "counted")
    excused = {
        view.viewer
        for view in first
        if killed == "redis"
        and view.sent_at < killed_at
        and rows[view.id].entry > 0
        and view.id not in written
    }
    assert {viewer for viewer, count in views.items() if count > 1} <= excused
    assert set(views) == {view.viewer for view in first}
    assert max(views.values()) <= 2
    assert counters(instance, "story", story) == [("intentional", views.total())]
    assert counts.shown(redis, ("story", story)) == {"intentional": views.total()}
    if killed == "redis":
        ways = {(rows[view.id].entry < 0, rows[cast(View, view.next).id].entry < 0) for view in first}
        assert {(True, False), (False, True)} <= ways, "nobody's two views went different ways"


def test_while_redis_is_away_counts_are_refused_for_ten_seconds_and_then_the_databases(
    instance: Instance, redis: Redis, settings: Settings
) -> None:
    book = f"book-{uuid4()}"
    path = f"/api/books/{book}/stats"
    views = iter(book_views(settings, book))
    send(instance, [next(views) for _ in range(20)])
    settle(instance, redis)
    crowd = Crowd(instance, [])
    crowd.ids_sent = VIEWS
    watcher = Watcher(instance, path, crowd)
    with watcher.watching():
        with paused(instance, "redis"):
            wait_until(lambda: watcher.other[503], "the first refusal")
            refused_at, before = time.monotonic(), len(watcher.readings)
            answered = [view for _ in range(30) for view in send(instance, [next(views)])]
            waited = [view for view in answered if view.answered_at - view.sent_at > 2.0]
            assert len(waited) <= 2, "more than who looks whether Redis is back"
            wait_until(lambda: len(watcher.readings) > before, "a count")
            refused = time.monotonic() - refused_at
            assert REFUSED_SECONDS - 1 < refused < REFUSED_SECONDS + 3
            assert watcher.readings[-1] == 50
            assert counters(instance, "book", book) == [("card_view", 50)]
        sent = 50
        while not went_through_redis(instance, redis, book):
            send(instance, [next(views)])
            sent += 1
        settle(instance, redis)
        watcher.read_again()
    assert watcher.readings[-1] == sent
    assert watcher.falls == []


def book_views(settings: Settings, book: str) -> list[View]:
    """First views of a book, each by a signed-in user of its own; some of the answers get lost."""
    now = utc_now()
    return [
        View(
            f"/api/books/{book}/track-view",
            {"viewType": "card_view"},
            {"Authorization": f"Bearer {access.make_token(settings, f'user-{n}', 'user', now)}"},
            viewer=f"user-{n}",
            answers_to_lose=int(n % 20 == 0),
        )
        for n in range(VIEWS)
    ]


def story_view(story: str, address: str) -> View:
    """A view of a story by whoever has that address."""
    return View(f"/api/stories/{story}/view", {}, {"X-Forwarded-For": address}, address)


def send(instance: Instance, views: Sequence[View]) -> list[View]:
    """Send them; they come back answered."""
    crowd = Crowd(instance, views)
    with crowd.sending():
        pass
    return crowd.answered


def kill(instance: Instance, parts: Sequence[str]) -> None:
    """End the parts at once, and wait until each has a successor."""
    before = instance.run
    for part in parts:
        os.kill(before[part]["pid"], signal.SIGKILL)
    wait_until(
        lambda: all(instance.run[part]["pid"] != before[part]["pid"] for part in parts), "the successors"
    )


@contextmanager
def paused(instance: Instance, part: str) -> Iterator[None]:
    """The part does nothing until the block ends, and never for longer than a while."""
    pid = instance.run[part]["pid"]
    goes_on = Timer(PAUSE_SECONDS, os.kill, (pid, signal.SIGCONT))
    os.kill(pid, signal.SIGSTOP)
    goes_on.start()
    try:
        yield
    finally:
        goes_on.cancel()
        os.kill(pid, signal.SIGCONT)


def settle(instance: Instance, redis: Redis) -> None:
    """Wait until nothing is queued and nothing is to be shown later."""

    def is_settled() -> bool:
        try:
            queued = stream.backlog(redis, utc_now()).entries
            return not queued and select(instance, text("SELECT count(*) FROM shown_behind")) == [(0,)]
        except (RedisError, DBAPIError):
            return False  # a store is on its way back

    wait_until(is_settled, "the queue to be empty", 90)


def stored(instance: Instance, entity_type: str, external_id: str) -> list[Row]:
    return [Row(*row) for row in select(instance, STORED, type=entity_type, id=external_id)]


def counters(instance: Instance, entity_type: str, external_id: str) -> list[tuple[Any, ...]]:
    return select(instance, COUNTERS, type=entity_type, id=external_id)


def went_through_redis(instance: Instance, redis: Redis, book: str) -> bool:
    """Whether the last view of the book that was written came from the queue."""
    settle(instance, redis)
    newest = max(stored(instance, "book", book), key=lambda row: row.id)
    return newest.entry > 0


def select(instance: Instance, query: TextClause, **values: str) -> list[tuple[Any, ...]]:
    engine = instance.engine()
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query, values)]
    finally:
        engine.dispose()
