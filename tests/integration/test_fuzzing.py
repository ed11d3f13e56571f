"""Whatever bytes are sent: never a 500, never an exception, and never a header that nobody wrote."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from flask import Flask
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Engine, text

from api import connection
from api.app import create_app
from api.asgi import Application, Scope
from api.parts import KEY
from footfall import stream, writer
from footfall.clock import utc_now
from footfall.event import ENVELOPE_VERSION, encode
from footfall.settings import Settings
from tests.asgi import exchange
from tests.factory import make_event
from tests.integration.api import API_KEY, API_KEY_HASH, FIREFOX, bearer
from tests.wire import ask

FIXTURES_STAY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def app(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Flask]:
    """An app in which everything is on."""
    made = create_app(
        replace(
            settings,
            trusted_proxies=1,
            cors_origins=frozenset({"https://site.example"}),
            country_header="CF-IPCountry",
            api_key_hashes=frozenset({API_KEY_HASH}),
            demo_site=True,
            metrics_token="m" * 32,
            views_per_minute_per_visitor=100_000,
            views_per_minute_per_network=100_000,
        )
    )
    made.extensions[KEY].salts.for_days((), utc_now())
    yield made
    made.extensions[KEY].engine.dispose()
    made.extensions[KEY].redis.close()


@pytest.fixture
def served(app: Flask) -> Application:
    return Application(app)


def words(*known: bytes) -> st.SearchStrategy[bytes]:
    """One of the known values, changed perhaps, or any bytes that a server lets through in a header."""
    anything = st.binary(max_size=60)
    changed = st.tuples(st.sampled_from(known), st.integers(0, 60), anything, st.integers(0, 60)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + parts[3] :]
    )
    # RFC 9110, 5.5: what uvicorn's parser refuses by itself
    return (st.sampled_from(known) | anything | changed).map(
        lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value)
    )


KEY_HEADER = f"Bearer {API_KEY}".encode()
HEADERS = {
    b"host": words(b"stats.example", b"[::1]:80", b"a:99999999", b""),
    b"content-type": words(
        b"application/json", b"text/plain;charset=UTF-8", b"multipart/form-data; boundary=x", b";"
    ),
    b"content-length": words(b"0", b"10", b"-1", b"9" * 5000, b"1e3", b"99999999"),
    b"user-agent": words(FIREFOX.encode(), b"Googlebot/2.1", b"-"),
    b"origin": words(b"https://site.example", b"null", b"http://["),
    b"authorization": words(KEY_HEADER, b"Bearer a.b.c", b"Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", b"Basic x"),
    b"cookie": words(b"footfall_session=a.b.c", b"footfall_session=", b"=;=;;"),
    b"x-forwarded-for": words(b"192.0.2.7, 10.0.0.1", b"::ffff:1.2.3.4", b"[::1]:80", b",,,", b"1.2.3.4%0"),
    b"x-forwarded-proto": words(b"https", b"http,https"),
    b"cf-ipcountry": words(b"DE", b"T1", b"\xff\xff"),
    b"sec-gpc": words(b"1"),
    b"sec-fetch-site": words(b"same-origin", b"cross-site"),
    b"if-none-match": words(b'"x"', b"*", b'W/"'),
    b"if-modified-since": words(b"Wed, 21 Oct 2015 07:28:00 GMT", b"Wed, 99 Oct 99999 07:28:00 GMT"),
    b"range": words(b"bytes=0-1", b"bytes=-", b"bytes=9-1,2-", b"x=1-2"),
    b"accept-encoding": words(b"gzip"),
    b"expect": words(b"100-continue"),
}


def paths() -> st.SearchStrategy[bytes]:
    """Raw paths: the app's own, with some of it changed, and any other."""
    known = [
        b"/api/track/page-view",
        b"/api/track/view",
        b"/api/track/batch",
        b"/api/track/event",
        b"/api/books/%s/track-view",
        b"/api/books/%s/stats",
        b"/api/stories/%s/view",
        b"/api/chapters/%s/view",
        b"/api/views",
        b"/api/views/badge.svg",
        b"/api/entities/story/%s",
        b"/api/entities/page",
        b"/api/stats/%s/%s",
        b"/api/stats/story/%s/export.csv",
        b"/api/stats/page",
        b"/api/stats/page/export.csv",
        b"/api/stats/top",
        b"/api/admin/sitewide-stats",
        b"/api/admin/export.csv",
        b"/api/admin/ledger",
        b"/api/blog-post/%s/stats",
        b"/api/health",
        b"/mod-dashboard",
        b"/mod-dashboard/page",
        b"/mod-dashboard/story/%s",
        b"/login",
        b"/logout",
        b"/demo",
        b"/metrics",
        b"/footfall.js",
        b"/footfall.%s.js",
        b"/static/%s",
    ]
    piece = st.binary(max_size=20).map(lambda raw: quote_from_bytes(raw, safe="/%").encode())
    filled = st.tuples(st.sampled_from(known), piece).map(
        lambda both: both[0].replace(b"%s", both[1] or b"x")
    )
    return filled | piece.map(lambda raw: b"/" + raw)


NAMES = [
    "path", "referrer", "id", "entity_type", "entity_id", "view_type", "view_source", "events", "occurred_at",
    "ip", "user_agent", "user_id", "country", "event_type", "detail", "viewType", "contentId", "contentType",
    "owner_id", "title", "parent", "engagement", "reactions", "comments", "token", "next", "days", "range",
    "audience", "type", "period", "limit", "refresh", "q", "label", "page", "sort",
]  # fmt: skip
GOOD = [
    "/a", "story", "page", "book", "intentional", "web", "1", "30", "30d", "week", "signup", "true", "=1+1",
    "192.0.2.1", "de", "2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000", FIREFOX, "course",
    "/mod-dashboard\r\nX-Made-Up: 1", "' OR 1=1 --", "{{7*7}}", "%s%n", "\x00", "\ud800", "http://[",
]  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(GOOD)
)
documents = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), leaves, max_size=6),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(NAMES), below, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=80) | documents.map(lambda value: json.dumps(value).encode())
pairs = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(GOOD) | st.text(max_size=10)), max_size=4)
queries = st.binary(max_size=60) | pairs.map(
    lambda found: b"&".join(
        name.encode() + b"=" + quote_from_bytes(value.encode("utf-8", "surrogatepass")).encode()
        for name, value in found
    )
)


@search(max_examples=500, deadline=None, suppress_health_check=FIXTURES_STAY)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"]),
    path=paths(),
    query=queries,
    headers=st.dictionaries(st.sampled_from(sorted(HEADERS)), st.none(), max_size=5),
    body=bodies,
    who=st.sampled_from(["nobody", "service", "admin", "user"]),
    client=st.sampled_from([("127.0.0.1", "1"), ("", "1"), ("unix", "0"), None]),
    data=st.data(),
)
def test_no_request_is_answered_with_500(
    served: Application,
    app: Flask,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: bytes,
    query: bytes,
    headers: dict[bytes, None],
    body: bytes,
    who: str,
    client: Any,
    data: st.DataObject,
) -> None:
    sent = [(b"content-type", b"application/json")] if b"content-type" not in headers else []
    if who != "nobody" and b"authorization" not in headers:
        known = bearer(app.extensions[KEY].settings, who)["Authorization"].encode()
        sent.append((b"authorization", KEY_HEADER if who == "service" else known))
    sent += [(name, data.draw(HEADERS[name])) for name in headers]
    status, found, content = asked(served, method, path, query, sent, body, client)
    if status >= 500:
        where = [
            (record.__dict__.get("exception"), record.__dict__.get("where")) for record in caplog.records
        ]
        pytest.fail(f"{status}: {method} {path!r} {query!r} {sent} {body!r} {client} {where[-1:]}")
    caplog.clear()
    assert not [name for name, _ in found if b"made-up" in name.lower()]
    assert all(re.fullmatch(rb"[!#-'*+.^_`|~0-9A-Za-z-]+", name) for name, _ in found)
    assert not any(re.search(rb"[\r\n\x00]", value) for _, value in found)


def asked(
    served: Application,
    method: str,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    client: Any = ("127.0.0.1", "1"),
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of a request as ASGI tells of it."""
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.split(b"%")[0].decode("utf-8", "replace") if b"%" in path else path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": client,
        "server": ("127.0.0.1", "8000"),
    }
    start, *pieces = asyncio.run(exchange(served, scope, [body]))
    return start["status"], list(start["headers"]), b"".join(piece.get("body", b"") for piece in pieces)


REQUESTS = (
    b"POST /api/track/page-view HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 14\r\n\r\n"
    b'{"path": "/a"}',
    b"POST /api/track/page-view HTTP/1.1\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    b'e\r\n{"path": "/a"}\r\n0\r\n\r\n',
    b"GET /api/health?a=b HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    b"POST /api/track/batch HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
)


@search(max_examples=200, deadline=None, suppress_health_check=FIXTURES_STAY)
@given(data=st.data(), first=st.sampled_from(REQUESTS), second=st.sampled_from(REQUESTS))
def test_whatever_bytes_come_by_a_connection_it_answers_or_hangs_up(
    served: Application,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    first: bytes,
    second: bytes,
) -> None:
    """Two requests with bytes taken out, put in or doubled, in pieces of any size."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.02)
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.01)
    sent = first + second
    for _ in range(data.draw(st.integers(0, 3))):
        start, end = sorted((data.draw(st.integers(0, len(sent))), data.draw(st.integers(0, len(sent)))))
        sent = sent[:start] + data.draw(st.binary(max_size=8) | st.just(sent[start:end])) + sent[end:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    answer = ask(served, *[piece for piece in pieces if piece])
    assert answer is None or answer.status < 500, (answer, pieces)
    # but for the second request, whose answer nobody waits for
    errors = [one.exc_info and one.exc_info[1] for one in caplog.records if one.levelname == "ERROR"]
    assert not [one for one in errors if not isinstance(one, asyncio.CancelledError)], pieces
    caplog.clear()


@pytest.mark.parametrize(
    ("query", "length"), [(b"path=/\xff", b"0"), (b"path=/\xc3\xa4", b"0"), (b"", b"9" * 5000), (b"", b"-1")]
)
def test_odd_bytes_that_were_found_once_are_answered(
    served: Application, app: Flask, query: bytes, length: bytes
) -> None:
    known = bearer(app.extensions[KEY].settings, "moderator")["Authorization"].encode()
    headers = [(b"authorization", known), (b"content-length", length)]
    status, _, _ = asked(served, "GET", b"/api/stats/page", query, headers, b"")
    assert status == (404 if query else 400)


def test_a_query_in_plain_utf8_is_understood(served: Application, app: Flask) -> None:
    key = [(b"authorization", KEY_HEADER), (b"content-type", b"application/json")]
    body = b'{"title": "T"}'
    for query in ("path=/\u00e4".encode(), b"path=/%C3%A4"):
        status, _, content = asked(served, "PUT", b"/api/entities/page", query, key, body)
        assert (status, json.loads(content)["entity_id"]) == (200, "/\u00e4")


rows = st.lists(
    st.recursive(leaves, lambda below: st.lists(below, max_size=15) | st.dictionaries(st.text(), below)),
    max_size=3,
)


@search(max_examples=120, deadline=None, suppress_health_check=FIXTURES_STAY)
@given(
    payload=st.binary(max_size=60) | rows.map(lambda found: json.dumps([ENVELOPE_VERSION, found]).encode()),
    place=st.integers(0, 14),
    value=st.recursive(leaves, lambda below: st.lists(below, max_size=3), max_leaves=4),
)
def test_whatever_is_in_the_queue_the_writer_settles_it_and_keeps_the_others(
    settings: Settings, engine: Engine, redis: Redis, payload: bytes, place: int, value: object
) -> None:
    """Entries of any bytes, and one whose row has any value in one of its places."""
    _, (row,) = json.loads(encode([make_event(settings, utc_now())]))
    row = [*row, "00", 0]
    row[place] = value
    changed = json.dumps([ENVELOPE_VERSION, [row]]).encode()
    good = make_event(settings, utc_now())
    for entry in (payload, changed, encode([good])):
        redis.xadd(stream.STREAM_KEY, {stream.FIELD: entry})
    writer.drain(engine, redis, settings, "test")
    assert redis.xlen(stream.STREAM_KEY) == 0
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT count(*) FROM view_events WHERE id = :id"), {"id": good.id})
        assert stored.scalar_one() == 1
