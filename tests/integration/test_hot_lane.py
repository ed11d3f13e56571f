"""The hot lane beside Flask: whatever is sent, the answer and the event are the same.

And what is served as a whole: slow bodies, clients that go away, answers that are streamed.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import uvicorn
from flask import Flask, Response
from redis import Redis
from sqlalchemy import Engine
from uvicorn.server import ServerState

from api import asgi, connection, tracking
from api.__main__ import UVICORN
from api.app import create_app
from api.asgi import Application, Scope
from api.connection import Connection
from api.hot_lane import PATH, HotLane, Request
from api.parts import KEY
from footfall import stream, traffic
from footfall.clock import utc_now
from footfall.database import make_engine
from footfall.event import EPOCH, ViewEvent, decode
from footfall.ids import uuid7
from footfall.intake import PageViews
from footfall.settings import Settings
from tests.asgi import exchange
from tests.integration.api import FIREFOX, bearer, queued
from tests.wire import Answer, Headers, Wire, ask, converse, request

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
    plain.lane = None
    return plain


def scope(headers: dict[bytes, bytes], **values: Any) -> Scope:
    """A POST to the page view's endpoint as ASGI has it."""
    plain = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": list(headers.items()),
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }
    return plain | values


def answer(
    application: Application,
    headers: dict[bytes, bytes] | Headers,
    body: bytes,
    method: str = "POST",
    target: bytes = PATH.encode(),
) -> Answer:
    """The answer to a request, by default for a page view."""
    listed = list(headers.items()) if isinstance(headers, dict) else headers
    found = ask(application, *request(method, target, listed, body), method=method)
    assert found is not None
    return found


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
    asked = sized(body, **headers)
    assert answer(lane, asked, body) == answer(flask, asked, body)
    assert took == ([by_lane] if len(body) <= tracking.PAGE_VIEW_BYTES else [])
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
    asked = sized(body, authorization=token)
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
    assert answer(lane, twice, body) == answer(flask, twice, body)
    assert took == [False]
    assert queued(redis)[:1] == queued(redis)[1:]


def test_of_a_header_that_comes_twice_flask_reads_both_in_their_order(
    lane: Application, redis: Redis
) -> None:
    body = b'{"path": "/a"}'
    first, last = ((b"x-forwarded-for", address) for address in (b"192.0.2.1", b"192.0.2.2"))
    for headers in ([first, last], [last, first], [last]):
        assert answer(lane, [*headers[:1], *sized(body).items(), *headers[1:]], body).status == 204
    one, other, plain = (event.visitor for event in queued(redis))
    assert one == plain != other
    twice = [*sized(body).items(), (b"user-agent", b"Linux")]
    for headers in (twice, list(sized(body, user_agent=FIREFOX.encode() + b",Linux").items())):
        assert answer(lane, headers, body).status == 204
    one, joined = (event.visitor for event in queued(redis)[3:])
    assert one == joined != plain


def test_what_comes_after_the_body_is_no_header(lane: Application, flask: Application, redis: Redis) -> None:
    """Or a client could add to what the proxy in front of us says of it."""
    body = b'{"path": "/a"}'
    headers = sized(body, content_length=None, transfer_encoding=b"chunked", x_forwarded_for=b"192.0.2.7")
    head, *pieces = request("POST", PATH.encode(), list(headers.items()), body)
    trailers = b"0\r\nx-forwarded-for: 192.0.2.1\r\nauthorization: Bearer x\r\nuser-agent: x\r\n\r\n"
    for application in (lane, flask):
        for end in (pieces[-1], trailers):
            found = ask(application, head, *pieces[:-1], end)
            assert found is not None
            assert found.status == 204
    assert len({event.visitor for event in queued(redis)}) == 1
    assert len(queued(redis)) == 4


def test_headers_are_the_same_in_capitals(
    lane: Application, flask: Application, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = note_what_the_lane_takes(monkeypatch)
    body = json.dumps({**VIEW, "id": str(uuid7(utc_now()))}).encode()
    headers = sized(body, x_forwarded_for=b"192.0.2.7", cf_ipcountry=b"DE")
    for application in (lane, flask):
        for asked in (headers, {name.title(): value for name, value in headers.items()}):
            assert answer(application, asked, body).status == 204
    first, *others = queued(redis)
    assert others == [first] * 3
    assert took == [True, True]
    assert first.country == "DE"


def test_the_lane_tells_how_many_views_had_a_country(lane: Application, app: Flask, redis: Redis) -> None:
    told = app.extensions[KEY].traffic
    told.flush()
    before = traffic.total(redis).countries
    body = b'{"path": "/a"}'
    for country in (b"DE", b"FR", None):
        assert answer(lane, sized(body, cf_ipcountry=country), body).status == 204
    told.flush()
    found = traffic.total(redis).countries
    assert {name: found[name] - before[name] for name in found} == {"known": 2, "unknown": 1}


def test_a_header_with_an_underscore_passes_for_no_other(flask: Application, redis: Redis) -> None:
    body = json.dumps({"path": "/a"}).encode()
    addresses = (b"192.0.2.1", b"192.0.2.2")
    for address in addresses:
        forged = [*sized(body).items(), (b"x_forwarded_for", address)]
        assert answer(flask, forged, body).status == 204
    one, other = queued(redis)
    assert one.visitor == other.visitor


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", PATH, 405),
        ("OPTIONS", PATH, 200),
        ("POST", "/api/track/page-views", 404),
        ("POST", f"{PATH}?q=%ff&%C3%A4", 204),
        ("POST", "/api/track/page%2Dview", 204),
        ("POST", "/api/track/p%ff", 404),
        ("GET", "/api/health", 200),
        ("HEAD", "/api/health", 200),
        ("GET", "/footfall.js", 200),
    ],
)
def test_other_requests_pass_through(
    lane: Application, method: str, target: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = note_what_the_lane_takes(monkeypatch)
    body = b'{"path": "/a"}' if method == "POST" else b""
    found = answer(lane, sized(body), body, method, target.encode())
    assert found.status == status
    assert took == []
    if status != 204 and method != "HEAD":
        assert (b"content-length", str(len(found.body)).encode()) in found.headers


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


@pytest.mark.parametrize("target", [PATH.encode(), b"/api/track/batch"])
@pytest.mark.parametrize("end", [30, -1])
def test_a_request_that_does_not_end_is_given_up(
    target: bytes, end: int, lane: Application, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    whole = b"".join(request("POST", target, list(sized(b"123").items()), b"123"))
    found = ask(lane, whole[:end])
    assert found is not None
    assert (found.status, json.loads(found.body)["code"]) == (408, "too_slow")
    assert (b"connection", b"close") in found.headers
    assert queued(redis) == []


def test_who_says_nothing_is_hung_up_on(lane: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    assert ask(lane) is None
    assert ask(lane, b"\r\n\r\n") is None
    body = b'{"path": "/a"}'

    async def talk() -> int:
        wire = Wire()
        wire.connect(lane).timeout_keep_alive = 0
        for piece in request("POST", PATH.encode(), list(sized(body).items()), body):
            wire.connection.data_received(piece)
        (found,) = await wire.answers("POST")
        while not wire.closed:
            wire.changed.clear()
            await asyncio.wait_for(wire.changed.wait(), 20)
        return found.status

    assert converse(lane, talk()) == 204


def test_who_never_reads_its_answers_is_hung_up_on(
    lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real socket: it is the kernel that knows what the client has not taken."""
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 1)
    ended = asyncio.Event()

    class Noted(Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        state, config = ServerState(), uvicorn.Config(lane, **UVICORN)
        server = await loop.create_server(
            lambda: Noted(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.sockets[0].getsockname())
            client.setblocking(False)
            asked = b"".join(request("GET", b"/static/dashboard.css", [(b"host", b"x")]))
            # more than the kernel holds of answers; when it takes no more requests, that is enough as well
            with suppress(BlockingIOError):
                for _ in range(1_000):
                    client.send(asked)
            await asyncio.wait_for(ended.wait(), 20)
        server.close()
        await server.wait_closed()

    converse(lane, talk())


def test_trailers_without_end_are_refused(lane: Application, flask: Application) -> None:
    """What stands between chunks and after them, where nobody asks for anything."""
    headers = list(sized(b"", content_length=None, transfer_encoding=b"chunked").items())
    head, *_ = request("POST", PATH.encode(), headers, b"{}")
    for application in (lane, flask):
        for begun in (b"2\r\n{}\r\n0\r\nx: ", b"2;x="):
            found = ask(application, head, begun, *(b"y" * 1000 for _ in range(100)))
            assert found is not None
            assert (found.status, json.loads(found.body)["code"]) == (431, "headers_too_long")


def test_a_long_body_in_chunks_is_no_long_head(lane: Application) -> None:
    headers = list(sized(b"", content_length=None, transfer_encoding=b"chunked").items())
    head, *_ = request("POST", b"/api/track/batch", headers, b"{}")
    pieces = [part for _ in range(100) for part in (b"3e8\r\n", b"y" * 1000, b"\r\n")]
    found = ask(lane, head, *pieces, b"0\r\n\r\n")
    assert found is not None
    assert found.status == 401


def test_headers_without_end_are_refused(lane: Application) -> None:
    found = ask(lane, b"POST / HTTP/1.1\r\n", *(b"x: %s\r\n" % (b"y" * 1000) for _ in range(100)))
    assert found is not None
    assert (found.status, json.loads(found.body)["code"]) == (431, "headers_too_long")
    found = ask(lane, b"GET /", *(b"y" * 1000 for _ in range(100)))
    assert found is not None
    assert found.status == 431


@pytest.mark.parametrize(
    "sent", [b"\x00", b"GET /\xff HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"]
)
def test_what_is_no_http_is_refused(sent: bytes, lane: Application) -> None:
    found = ask(lane, sent)
    assert found is not None
    assert (found.status, json.loads(found.body)["code"]) == (400, "bad_request")
    assert (b"x-content-type-options", b"nosniff") in found.headers


def test_requests_that_do_not_wait_for_answers_are_answered_in_their_order(
    lane: Application, redis: Redis
) -> None:
    """A page view, a question to Flask, a page view that Flask refuses, a page view, in one piece."""
    views = [b'{"path": "/a"}', b'{"path": 1}', b'{"path": "/b"}']
    first, wrong, last = (
        b"".join(request("POST", PATH.encode(), list(sized(body).items()), body)) for body in views
    )
    health = b"".join(request("GET", b"/api/health", [(b"host", b"x")]))

    async def talk() -> list[Answer]:
        wire = Wire()
        wire.connect(lane).data_received(first + health + wrong + last)
        return await wire.answers("POST", "GET", "POST", "POST")

    assert [one.status for one in converse(lane, talk())] == [204, 200, 400, 204]
    assert sorted(event.external_id for event in queued(redis)) == ["/a", "/b"]


def test_who_asks_again_while_flask_answers_waits_in_line(
    app: Flask, lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page view that Flask refuses, a slow question, and a page view while that is answered."""
    took = note_what_the_lane_takes(monkeypatch)
    goes_on = threading.Event()
    app.add_url_rule("/slow", "slow", lambda: str(goes_on.wait(20)))
    wrong, right = (
        b"".join(request("POST", PATH.encode(), list(sized(body).items()), body))
        for body in (b'{"path": 1}', b'{"path": "/a"}')
    )
    slow = b"".join(request("GET", b"/slow", [(b"host", b"x")]))

    async def talk() -> list[int]:
        wire = Wire()
        wire.connect(lane).data_received(wrong + slow)
        await wire.answers("POST")
        wire.connection.data_received(right)
        for _ in range(5):
            await asyncio.sleep(0)  # turns of the loop in which the lane would have taken it
        assert took == [False]
        goes_on.set()
        return [one.status for one in await wire.answers("POST", "GET", "POST")]

    assert converse(lane, talk()) == [400, 200, 204]


@pytest.mark.parametrize(
    ("version", "header"),
    [
        (b"1.0", {}),
        (b"1.0", {"connection": b"close"}),
        (b"1.0", {"connection": b"keep-alive"}),
        (b"1.0", {"proxy_connection": b"keep-alive"}),
        (b"1.1", {"connection": b"close"}),
    ],
)
def test_who_wants_no_further_answer_is_hung_up_on(
    version: bytes, header: dict[str, bytes], lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies ask so: with HTTP/1.0, whatever they say with it, or with `Connection: close`."""
    took = note_what_the_lane_takes(monkeypatch)
    for body, status in ((b'{"path": "/a"}', 204), (b'{"path": 1}', 400)):
        whole = b"".join(request("POST", PATH.encode(), list(sized(body, **header).items()), body))

        async def talk(sent: bytes = whole) -> tuple[list[Answer], bool]:
            wire = Wire()
            wire.connect(lane).data_received(sent)
            return await wire.answers("POST"), wire.closed

        (found,), closed = converse(lane, talk(whole.replace(b"HTTP/1.1", b"HTTP/" + version)))
        assert (found.status, closed) == (status, True)
        assert (b"connection", b"close") in found.headers
    assert took == [True, False]


def test_a_view_for_flask_keeps_its_headers_while_the_next_request_comes(lane: Application) -> None:
    body = b'{"path": 1}'
    whole = b"".join(request("POST", PATH.encode(), list(sized(body).items()), body))

    async def talk() -> list[Answer]:
        wire = Wire()
        connection = wire.connect(lane)
        connection.data_received(whole + whole[:60])  # the lane reads the first when the next has begun
        await wire.answers("POST")
        connection.data_received(whole[60:])
        return await wire.answers("POST", "POST")

    first, second = converse(lane, talk())
    assert first == second
    assert (first.status, json.loads(first.body)["error"]) == (400, "path: must be a string")


def test_a_client_that_waits_for_a_word_before_its_body_gets_it(lane: Application, redis: Redis) -> None:
    body = b'{"path": "/a"}'
    head, *_ = request("POST", PATH.encode(), list(sized(body, expect=b"100-Continue").items()), body)

    async def talk() -> list[Answer]:
        wire = Wire()
        connection = wire.connect(lane)
        connection.data_received(head)
        while not wire.sent:
            await asyncio.wait_for(wire.changed.wait(), 20)
        assert wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.data_received(body)
        return await wire.answers("POST")

    assert [one.status for one in converse(lane, talk())] == [204]
    assert len(queued(redis)) == 1


@pytest.mark.parametrize("target", [PATH, "/api/health"])
def test_what_comes_just_before_the_process_ends_is_answered(
    target: str, lane: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LAST_CALL_SECONDS", 0.05)
    body = b'{"path": "/a"}'
    whole = b"".join(request("POST", target.encode(), list(sized(body).items()), body))

    async def talk(sent: bytes) -> tuple[list[Answer], bool]:
        wire = Wire()
        wire.connect(lane).shutdown()
        if sent:
            wire.connection.data_received(sent)
        while not wire.closed:
            wire.changed.clear()
            await asyncio.wait_for(wire.changed.wait(), 20)
        return await wire.answers("POST"), wire.closed

    (found,), _ = converse(lane, talk(whole))
    assert found.status == (204 if target == PATH else 405)
    assert (b"connection", b"close") in found.headers
    assert converse(lane, talk(b"")) == ([], True)


def test_a_client_that_goes_away_is_no_harm(lane: Application, flask: Application, redis: Redis) -> None:
    """In the middle of its request it is no view; before its answer it is one."""
    body = b'{"path": "/a"}'
    pieces = request("POST", PATH.encode(), list(sized(body).items()), body)

    async def talk(application: Application, *sent: bytes) -> bytes:
        wire, other = Wire(), Wire()
        wire.connect(application)
        for piece in sent:
            wire.connection.data_received(piece)
        wire.close()
        other.connect(application)
        for piece in pieces:
            other.connection.data_received(piece)
        await other.answers("POST")
        return wire.sent

    for application in (lane, flask):
        assert converse(application, talk(application, pieces[0], body[:5])) == b""
    assert len(queued(redis)) == 2
    assert converse(lane, talk(lane, b"".join(pieces))) == b""
    assert len(queued(redis)) == 4


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
    body = b'{"path": "/a"}'
    for application in (lane, flask):
        answer(application, sized(body), body)
    monkeypatch.setattr(parts.acceptance, "_redis_is_usable", lambda _: False)
    monkeypatch.setattr(type(parts.acceptance), "may_append", False)
    gone = make_engine(replace(parts.settings, database_url=GONE))
    monkeypatch.setattr(parts.acceptance, "_engine", gone)
    took = note_what_the_lane_takes(monkeypatch)
    one, other = (answer(application, sized(body), body) for application in (lane, flask))
    assert one == other
    assert one.status == 503
    assert (b"retry-after", b"5") in one.headers
    assert took == [True]


def test_a_salt_that_has_to_be_asked_for_is_asked_for_aside(
    app: Flask, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = Application(app)
    took = note_what_the_lane_takes(monkeypatch)
    for _ in range(2):
        assert answer(cold, sized(b'{"path": "/a"}'), b'{"path": "/a"}').status == 204
    assert took == [True]
    assert len(queued(redis)) == 2


def test_those_who_come_at_once_and_while_a_group_is_on_its_way_are_groups(
    lane: Application, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PRESSURE_INTERVAL_SECONDS", 60.0)
    answer(lane, sized(b'{"path": "/first"}'), b'{"path": "/first"}')  # for which Redis is looked at

    async def send(wire: Wire, path: str) -> None:
        body = json.dumps({"path": path}).encode()
        wire.connect(lane)
        for piece in request("POST", PATH.encode(), list(sized(body).items()), body):
            wire.connection.data_received(piece)

    async def talk() -> set[int]:
        wires = [Wire() for _ in range(30)]
        for number in range(10):
            await send(wires[number], f"/{number}")
        await asyncio.sleep(0)  # one turn of the loop: the first ten are on their way
        for number in range(10, 30):
            await send(wires[number], f"/{number}")
        return {(await wire.answers("POST"))[0].status for wire in wires}

    assert converse(lane, talk()) == {204}
    assert {event.external_id for event in queued(redis)} == {"/first"} | {
        f"/{number}" for number in range(30)
    }
    entries = stream.entries_until(redis, stream.last_id(redis))
    assert [len(decode(entry.payload)) for entry in entries] == [1, 10, 20]


def test_it_can_be_switched_off(app: Flask, settings: Settings) -> None:
    assert Application(app).lane is not None
    off = create_app(replace(settings, hot_lane=False))
    assert Application(off).lane is None


def note_what_the_lane_takes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether the lane took each request that it was given; what it did is not changed."""
    took: list[Any] = []
    real = HotLane._event

    def noted(self: HotLane, asked: Request, views: PageViews, now: datetime) -> Any:
        took.append(False)
        event = real(self, asked, views, now)
        took[-1] = True
        return event

    monkeypatch.setattr(HotLane, "_event", noted)
    return took


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections be patient for hundredths of a second only."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.01)


def comparable(event: ViewEvent) -> ViewEvent:
    """Without the time, where the server's clock gave it."""
    return event if event.id.version == 7 else event._replace(occurred_at=EPOCH)
