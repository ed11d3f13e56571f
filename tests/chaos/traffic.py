"""Views with known ids, each sent until it is answered, and a reader of the counts that are shown."""

import contextlib
import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from footfall import access
from footfall.clock import utc_now
from footfall.ids import uuid7
from tests.functional.instance import Instance

THREADS = 8
REQUESTS_A_SECOND = 60.0
ANSWER_SECONDS = 8.0  # then the client sends it again
AGAIN_SECONDS = (0.2, 2.0)  # sooner than Retry-After says: more often tried is more easily doubled
LOOK_SECONDS = 0.03  # between two readings of a count
CLOSED = 0.01  # of the views: the browser is closed when they are sent, and nobody waits for the answer
ANSWER_LOST = 0.02  # of the answers: the client has not seen it and sends the view again
BATCH_EVENTS = 20
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
BOOKS = [f"chaos-book-{n}" for n in range(6)]
RESOURCES = [f"chaos-resource-{n}" for n in range(6)]
STORIES = [f"chaos-story-{n}" for n in range(6)]
USERS = 200


@dataclass(slots=True)
class Request:
    """One request, the same bytes at each try."""

    ids: list[UUID]
    path: str
    body: bytes
    headers: Mapping[str, str]
    is_given_up: bool = False
    tries: int = 0
    sent_at: float = 0.0  # the first time
    answered_at: float | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A count as shown at some time (of the wall clock)."""

    what: str
    asked_at: float
    read_at: float
    count: int


@dataclass(slots=True)
class Seen:
    """What the clients know when the run is over."""

    sent: set[UUID] = field(default_factory=set)
    answered: dict[UUID, str] = field(default_factory=dict)  # {id: outcome, where the answer is of one view}
    statuses: Counter[int] = field(default_factory=Counter)  # 0: no answer
    unexpected: list[str] = field(default_factory=list)
    longest_wait_seconds: float = 0.0
    readings: list[Reading] = field(default_factory=list)


class Client:
    """One kept connection to wherever the instance listens now."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._connection: http.client.HTTPConnection | None = None

    def send_and_close(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send it if somebody listens, and do not wait for the answer."""
        self.close()
        with contextlib.suppress(OSError, KeyError, http.client.HTTPException):
            self._open().request("POST", path, body, dict(headers))
        self.close()

    def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, str, bytes]:
        """Status, outcome and body; status 0 without an answer."""
        try:
            connection = self._open()
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers.get("X-View-Outcome", ""), answer.read()
        except (OSError, http.client.HTTPException, KeyError):  # KeyError: run.json names no API now
            self.close()
            return 0, "", b""

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            address = urlsplit(self._instance.url)
            self._connection = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=ANSWER_SECONDS
            )
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Traffic:
    """The clients, in threads of their own. What they see is in `seen` when they have been stopped."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._chance = random.Random(f"{seed} traffic")
        settings, now = instance.settings, utc_now()
        self._tokens = [access.make_token(settings, f"user-{n}", "user", now) for n in range(USERS)]
        self._api_key = instance.api_key
        self._lock = Lock()
        self._again: list[tuple[float, int, Request]] = []  # a heap: when, a number, what
        self._number = 0
        self._next_at = time.monotonic()
        self._makes_new = True
        self._ended = Event()
        self._threads = [Thread(target=self._send_all, name="sender") for _ in range(THREADS)]
        self._threads.append(Thread(target=self._read_all, name="reader"))
        self._under_way = 0
        self.seen = Seen()

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def unanswered(self) -> int:
        """Requests that are still to be answered."""
        with self._lock:
            return len(self._again) + self._under_way

    def stop_new(self) -> None:
        """Send only what has not been answered yet."""
        self._makes_new = False

    def stop(self) -> Seen:
        """End all of it; what was seen."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self.seen

    # Sending

    def _send_all(self) -> None:
        client = Client(self._instance)
        while not self._ended.is_set():
            request, wait_seconds = self._next()
            if request is None:
                self._ended.wait(wait_seconds)
                continue
            try:
                self._send(client, request)
            finally:
                with self._lock:
                    self._under_way -= 1
        client.close()

    def _next(self) -> tuple[Request | None, float]:
        with self._lock:
            now = time.monotonic()
            if self._again and self._again[0][0] <= now:
                self._under_way += 1
                return heappop(self._again)[2], 0.0
            if not self._makes_new or self._next_at > now:
                return None, 0.02
            # after a pause of all clients, there is no rush
            self._next_at = max(self._next_at + 1 / REQUESTS_A_SECOND, now - 1.0)
            self._under_way += 1
            request = self._made()
            request.is_given_up = self._chance.random() < CLOSED
            self.seen.sent.update(request.ids)
            return request, 0.0

    def _send(self, client: Client, request: Request) -> None:
        request.tries += 1
        request.sent_at = request.sent_at or time.monotonic()
        if request.is_given_up:
            client.send_and_close(request.path, request.body, request.headers)
            return
        status, outcome, content = client.ask("POST", request.path, request.body, request.headers)
        with self._lock:
            self.seen.statuses[status] += 1
            if status in (200, 204):
                self._note_answer(request, outcome, content)
                if self._chance.random() < ANSWER_LOST:
                    self._send_later(request)
            elif status in (0, 503):
                self._send_later(request)
            else:
                self.seen.unexpected.append(f"{request.path}: {status} {content[:200]!r}")

    def _note_answer(self, request: Request, outcome: str, content: bytes) -> None:
        if request.path.endswith("/batch"):
            answer = json.loads(content)
            if answer["errors"] or answer["accepted"] != len(request.ids):
                self.seen.unexpected.append(f"{request.path}: {answer}")
        if request.answered_at is None:
            request.answered_at = time.monotonic()
            wait = request.answered_at - request.sent_at
            self.seen.longest_wait_seconds = max(self.seen.longest_wait_seconds, wait)
            self.seen.answered |= dict.fromkeys(request.ids, outcome)
        elif outcome != request.outcome and outcome:
            self.seen.unexpected.append(f"{request.path}: {request.outcome} first, then {outcome}")
        request.outcome = outcome

    def _send_later(self, request: Request) -> None:
        first, longest = AGAIN_SECONDS
        wait = min(first * 2 ** (request.tries - 1), longest) * self._chance.uniform(0.5, 1.0)
        self._number += 1
        heappush(self._again, (time.monotonic() + wait, self._number, request))

    # Making

    def _made(self) -> Request:
        chance = self._chance
        kind = chance.choices(["page", "book", "story", "resource", "batch"], [50, 18, 18, 12, 2])[0]
        event_id = self._id()
        viewer = f"10.0.{chance.randrange(2)}.{chance.randrange(1, 150)}"  # few: they come back
        if kind == "batch":
            return self._batch()
        body: dict[str, Any] = {"id": str(event_id)}
        headers = {"Content-Type": "application/json", "User-Agent": BROWSER, "X-Forwarded-For": viewer}
        if kind == "page":
            path, body["path"] = "/api/track/page-view", f"/page/{chance.randrange(40)}"
        elif kind == "book":
            path, body["viewType"] = f"/api/books/{chance.choice(BOOKS)}/track-view", "card_view"
            headers["Authorization"] = f"Bearer {chance.choice(self._tokens)}"
        elif kind == "story":
            path = f"/api/stories/{chance.choice(STORIES)}/view"
        else:
            path = "/api/views"
            body |= {"contentId": chance.choice(RESOURCES), "contentType": "resource"}
        return Request([event_id], path, json.dumps(body).encode(), headers)

    def _batch(self) -> Request:
        ids = [self._id() for _ in range(BATCH_EVENTS)]
        events = [
            {
                "entity_type": self._chance.choice(["page", "resource", "course"]),
                "entity_id": f"/batch/{self._chance.randrange(20)}",
                "id": str(event_id),
                "ip": f"10.9.0.{self._chance.randrange(1, 250)}",
                "user_agent": BROWSER,
            }
            for event_id in ids
        ]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._api_key}"}
        return Request(ids, "/api/track/batch", json.dumps({"events": events}).encode(), headers)

    def _id(self) -> UUID:
        """Of now, or of a client that was offline or whose clock is ahead."""
        now: datetime = utc_now()
        chance = self._chance.random()
        if chance < 0.05:
            return uuid7(now - timedelta(seconds=self._chance.uniform(60, 20 * 3600)))
        return uuid7(now + timedelta(seconds=self._chance.uniform(10, 200))) if chance < 0.1 else uuid7(now)

    # Reading

    def _read_all(self) -> None:
        client = Client(self._instance)
        paths = [(f"book {name}", f"/api/books/{name}/stats") for name in BOOKS[:3]]
        paths += [
            (f"resource {name}", f"/api/views?contentId={name}&contentType=resource")
            for name in RESOURCES[:3]
        ]
        for what, path in _again_and_again(paths):
            if self._ended.is_set():
                break
            asked_at = time.time()
            status, _, content = client.ask("GET", path, None, {})
            if status == 200:
                count = sum(json.loads(content).values())
                self.seen.readings.append(Reading(what, asked_at, time.time(), count))
            elif status not in (0, 503):
                with self._lock:
                    self.seen.unexpected.append(f"{path}: {status} {content[:200]!r}")
            self._ended.wait(LOOK_SECONDS)
        with contextlib.suppress(OSError):
            client.close()


def _again_and_again(paths: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    while True:
        yield from paths
