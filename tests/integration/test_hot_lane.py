"""The hot lane beside Flask: whatever is sent, the answer and the event are the same.

And what is served as a whole: slow bodies, clients that go away, answers that are streamed.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, Response
from redis import Redis
from sqlalchemy import Engine

from api import asgi
from api.app import create_app
from api.asgi import Application, Scope
from api.hot_lane import PATH, HotLane
from api.parts import KEY
from footfall import stream
from footfall.clock import utc_now
from footfall.database import make_engine
from footfall.event import EPOCH, ViewEvent
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.asgi import exchange
from tests.integration.api import FIREFOX, bearer, queued

ORIGIN = "https://site.example"
BROWSER = {
    b"host": b"stats.example",
    b"content-type": b"text/plain;charset=UTF-8",
    b"user-agent": FIREFOX.encode(),
    b"origin": ORIGIN.encode(),
}
GONE = "postgresql+psycopg2://nobody@/nothing?host=/nowhere"


@pytest.fixture
def app(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Flask]:
    """An app behind one proxy, whose site allows one origin."""
    made = create_app(
        replace(settings, trusted_proxies=1, cors_origins=frozenset({ORIGIN}), country_header="CF-IPCountry")
    )
    yield made
    made.extensions[KEY].engine.dispose()
    made.extensions[KEY].redis.close()


@pytest.fixture
def lane(app: Flask) -> Application:
    """What is served, which holds the salts that the lane needs."""
    warm = Application(app)
    app.extensions[KEY].salts.for_days((), utc_now())
    return warm


@pytest.fixture
def flask(app: Flask) -> Application:
    """The same without the lane."""
    plain = Application(app)
    plain._lane = None
    return plain


def scope(headers: dict[bytes, bytes] | list[tuple[bytes, bytes]], **values: Any) -> Scope:
    """A POST to the page view's endpoint as granian tells of it."""
    plain = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": list(headers.items()) if isinstance(headers, dict) else headers,
        "client": ("127.0.0.1", "40000"),
        "server": ("127.0.0.1", "8000"),
    }
    return plain | values


def answer(application: Application, asked: Scope, *pieces: bytes) -> tuple[int, list[Any], bytes]:
    """Status, headers in order of their names, and body."""
    start, *bodies = asyncio.run(exchange(application, asked, pieces))
    return start["status"], sorted(start["headers"]), b"".join(one["body"] for one in bodies)


def sized(body: bytes, **headers: bytes | None) -> dict[bytes, bytes]:
    """A browser's headers for a body; None takes one out."""
    changed = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    all_headers = {**BROWSER, b"content-length": str(len(body)).encode(), **changed}
    return {name: value for name, value in all_headers.items() if value is not None}


VIEW = {"path": "/a?b#c", "referrer": "https://news.example/x?y"}
LANE, FLASK = True, False
REQUESTS: dict[str, tuple[bool, Any, dict[str, bytes | None]]] = {
    "a browser's": (LANE, VIEW, {}),
    "without a referrer": (LANE, {"path": "/a"}, {}),
    "of another site": (LANE, VIEW, {"origin": b"https://elsewhere.example"}),
    "without an origin": (LANE, VIEW, {"origin": None}),
    "from the site itself": (LANE, {"path": "/a", "referrer": f"{ORIGIN}/b"}, {}),
    "as JSON": (LANE, VIEW, {"content_type": b"application/json"}),
    "as JSON in capitals": (LANE, VIEW, {"content_type": b"Application/JSON; charset=utf-8"}),
    "a crawler's": (LANE, VIEW, {"user_agent": b"Googlebot/2.1"}),
    "without a user agent": (LANE, VIEW, {"user_agent": None}),
    "with Latin-1 in the user agent": (LANE, VIEW, {"user_agent": FIREFOX.encode() + b" \xe9\xff"}),
    "with UTF-8 in the user agent": (LANE, VIEW, {"user_agent": FIREFOX.encode() + " é".encode()}),
    "with Sec-GPC": (LANE, VIEW, {"sec_gpc": b"1"}),
    "with DNT": (LANE, VIEW, {"dnt": b"1"}),
    "with DNT that is off": (LANE, VIEW, {"dnt": b"0"}),
    "through a proxy": (LANE, VIEW, {"x_forwarded_for": b"10.0.0.1, 192.0.2.7"}),
    "through a proxy by IPv6": (LANE, VIEW, {"x_forwarded_for": b"2001:DB8::7"}),
    "with an address that is none": (LANE, VIEW, {"x_forwarded_for": b"unknown"}),
    "from a country": (LANE, VIEW, {"cf_ipcountry": b"de"}),
    "from no country": (LANE, VIEW, {"cf_ipcountry": b"XX"}),
    "with a cookie": (LANE, VIEW, {"cookie": b"a=b"}),
    "with letters beyond ASCII": (LANE, {"path": "/ü/日本"}, {}),
    "with an emoji": (LANE, {"path": "/🙂"}, {}),
    "with unknown fields": (LANE, {**VIEW, "x": [1, {"y": None}]}, {}),
    "with a UUIDv4": (LANE, {**VIEW, "id": "6c1c6a9a-3e6c-4b52-8f0c-0d6c3f9f7f11"}, {}),
    "in chunks": (LANE, VIEW, {"content_length": None, "transfer_encoding": b"chunked"}),
    "with half a surrogate pair elsewhere": (
        LANE,
        b'{"path": "/a", "id": "ID", "x": "\\ud800"}',
        {},
    ),
    "with half a surrogate pair in the path": (FLASK, b'{"path": "/\\ud800"}', {}),
    "with NUL in the path": (FLASK, {"path": "/\0"}, {}),
    "without a path": (FLASK, {"referrer": "x"}, {}),
    "with a number for a path": (FLASK, {"path": 1}, {}),
    "with a path too long": (FLASK, {"path": "/" + "a" * 2048}, {}),
    "with an id that is none": (FLASK, {**VIEW, "id": "x"}, {}),
    "with a list": (FLASK, [1], {}),
    "empty": (FLASK, b"", {}),
    "not JSON": (FLASK, b"{", {}),
    "not UTF-8": (FLASK, b'{"path": "/\xff"}', {}),
    "nested deeply": (FLASK, b'{"path": "/a", "x": ' + b"[" * 50_000 + b"]" * 50_000, {}),
    "with NaN elsewhere": (LANE, b'{"path": "/a", "id": "ID", "x": NaN}', {}),
    "too large": (FLASK, {"path": "/a", "x": "y" * 65_536}, {}),
    "as a form": (FLASK, VIEW, {"content_type": b"application/x-www-form-urlencoded"}),
    "of no type": (FLASK, VIEW, {"content_type": None}),
    "with a token that is none": (FLASK, VIEW, {"authorization": b"Bearer x"}),
    "with a key that is none": (FLASK, VIEW, {"authorization": b"Bearer ffk_x"}),
    "with half a header": (FLASK, VIEW, {"authorization": b"Bearer"}),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_is_answered_as_flask_answers_it_and_is_the_same_event(
    what: str, lane: Application, flask: Application, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_lane, content, headers = REQUESTS[what]
    if isinstance(content, dict) and "id" not in content:
        content = {**content, "id": str(uuid7(utc_now()))}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    body = body.replace(b"ID", str(uuid7(utc_now())).encode())
    took = note_what_the_lane_takes(monkeypatch)
    asked = scope(sized(body, **headers))
    assert answer(lane, asked, body) == answer(flask, asked, body)
    assert took == [by_lane]
    events = [comparable(event) for event in queued(redis)]
    assert len(events) == (2 if by_lane else 0)
    assert events[:1] == events[1:]


def test_a_signed_in_viewers_request_is_the_same_too(
    lane: Application,
    flask: Application,
    redis: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took = note_what_the_lane_takes(monkeypatch)
    body = json.dumps({**VIEW, "id": str(uuid7(utc_now()))}).encode()
    token = bearer(settings, "user", "ann")["Authorization"].encode()
    asked = scope(sized(body, authorization=token))
    assert answer(lane, asked, body) == answer(flask, asked, body)
    one, other = queued(redis)
    assert one == other
    assert one.authenticated
    assert took == [True]


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"user-agent", b"content-type", b"authorization"])
def test_a_header_that_comes_twice_is_for_flask(
    name: bytes, lane: Application, flask: Application, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = note_what_the_lane_takes(monkeypatch)
    body = json.dumps({**VIEW, "id": str(uuid7(utc_now()))}).encode()
    twice = [*sized(body).items(), (name, b"192.0.2.1"), (name, b"192.0.2.2")]
    assert answer(lane, scope(twice), body) == answer(flask, scope(twice), body)
    assert took == [False]
    assert queued(redis)[:1] == queued(redis)[1:]


def test_a_header_with_an_underscore_passes_for_no_other(flask: Application, redis: Redis) -> None:
    body = json.dumps({"path": "/a"}).encode()
    addresses = (b"192.0.2.1", b"192.0.2.2")
    for address in addresses:
        forged = [*sized(body).items(), (b"x_forwarded_for", address)]
        assert answer(flask, scope(forged), body)[0] == 204
    one, other = queued(redis)
    assert one.visitor == other.visitor


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"method": "GET"}, 405),
        ({"method": "OPTIONS"}, 200),
        ({"method": "POST", "path": "/api/track/page-views", "raw_path": b"/api/track/page-views"}, 404),
        ({"method": "POST", "query_string": b"q=\xff%ff&\xc3\xa9"}, 204),
        ({"method": "POST", "path": "/api/track/p\ufffd", "raw_path": b"/api/track/p%ff"}, 404),
        ({"path": "/api/health", "raw_path": b"/api/health", "method": "GET"}, 200),
        ({"path": "/api/health", "raw_path": b"/api/health", "method": "HEAD"}, 200),
        ({"path": "/footfall.js", "raw_path": b"/footfall.js", "method": "GET"}, 200),
    ],
)
def test_other_requests_pass_through(lane: Application, values: dict[str, Any], status: int) -> None:
    body = b'{"path": "/a"}' if values["method"] == "POST" else b""
    found, headers, sent = answer(lane, scope(sized(body), **values), body)
    assert found == status
    if status != 204 and values["method"] != "HEAD":
        assert (b"content-length", str(len(sent)).encode()) in headers


def test_what_flask_streams_comes_in_pieces(app: Flask, lane: Application) -> None:
    app.add_url_rule("/stream", "stream", lambda: Response(str(number) for number in range(5)))
    start, *bodies = asyncio.run(
        exchange(lane, scope({}, path="/stream", raw_path=b"/stream", method="GET"), [])
    )
    assert start["status"] == 200
    assert [one["body"] for one in bodies] == [b"0", b"1", b"2", b"3", b"4", b""]


def test_who_reads_no_further_is_given_up(
    app: Flask, lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SEND_SECONDS", 0.05)
    closed = []

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append(True)

    app.add_url_rule("/endless", "endless", lambda: Response(endless()))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    with pytest.raises(ConnectionError):
        asyncio.run(lane(scope({}, path="/endless", raw_path=b"/endless", method="GET"), receive, send))
    assert closed


def test_a_body_that_does_not_come_holds_nobody_up(
    lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(asgi, "LOOK_SECONDS", 0.01)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(lane(scope(sized(b"123")), receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == "too_slow"


def test_a_client_that_goes_away_in_the_middle_is_no_view(lane: Application, redis: Redis) -> None:
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"path": "/a"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(lane(scope(sized(b"", content_length=b"20")), receive, send))
    assert (sent, incoming, queued(redis)) == ([], [], [])


def test_no_more_of_a_body_is_read_than_the_endpoint_takes(lane: Application) -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 10_000
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(lane(scope(sized(b"", content_length=None)), receive, send))
    assert (sent[0]["status"], read) == (413, 70_000)
    asyncio.run(lane(scope(sized(b"", content_length=b"10000000")), receive, send))
    assert (sent[2]["status"], read) == (413, 70_000)


def test_when_no_store_takes_the_view_the_lane_says_what_flask_says(
    lane: Application, flask: Application, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = app.extensions[KEY]
    for application in (lane, flask):
        asyncio.run(exchange(application, scope(sized(b'{"path": "/a"}')), [b'{"path": "/a"}']))
    monkeypatch.setattr(parts.acceptance, "_redis_is_usable", lambda _: False)
    gone = make_engine(replace(parts.settings, database_url=GONE))
    monkeypatch.setattr(parts.acceptance, "_engine", gone)
    took = note_what_the_lane_takes(monkeypatch)
    asked = scope(sized(b'{"path": "/a"}'))
    one, other = (answer(application, asked, b'{"path": "/a"}') for application in (lane, flask))
    assert one == other
    assert one[0] == 503
    assert (b"retry-after", b"5") in one[1]
    assert took == [True]


def test_a_salt_that_has_to_be_asked_for_is_asked_for_aside(
    app: Flask, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = Application(app)
    took = note_what_the_lane_takes(monkeypatch)
    for _ in range(2):
        assert answer(cold, scope(sized(b'{"path": "/a"}')), b'{"path": "/a"}')[0] == 204
    assert took == [False, True]
    assert len(queued(redis)) == 2


def test_those_who_come_while_a_group_is_on_its_way_are_taken_when_it_is_back(
    lane: Application, redis: Redis
) -> None:
    bodies = [json.dumps({"path": f"/{number}"}).encode() for number in range(20)]

    async def all_at_once() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(exchange(lane, scope(sized(body)), [body]) for body in bodies))

    answers = asyncio.run(asyncio.wait_for(all_at_once(), 20))
    assert {answer[0]["status"] for answer in answers} == {204}
    assert {event.external_id for event in queued(redis)} == {f"/{number}" for number in range(20)}
    assert redis.xlen(stream.STREAM_KEY) == 2, "the first, and all who came after it"


def test_it_can_be_switched_off(app: Flask, settings: Settings) -> None:
    assert Application(app)._lane is not None
    off = create_app(replace(settings, hot_lane=False))
    assert Application(off)._lane is None


def note_what_the_lane_takes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether the lane took each request; what it did is not changed."""
    took: list[Any] = []
    real = HotLane._event

    def noted(self: HotLane, *asked: Any) -> ViewEvent | None:
        event = real(self, *asked)
        took.append(event is not None)
        return event

    monkeypatch.setattr(HotLane, "_event", noted)
    return took


def comparable(event: ViewEvent) -> ViewEvent:
    """Without the time, where the server's clock gave it."""
    return event if event.id.version == 7 else event._replace(occurred_at=EPOCH)
