"""The tracking endpoints: what is taken, what is refused, and what never comes through."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.app import create_app
from api.parts import KEY
from footfall import writer
from footfall.event import encode
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.integration.api import ADDRESS, API_KEY_HASH, FIREFOX, SERVICE, MakeClient, bearer, queued
from tests.wire import ServedClient

PAGE_VIEW = "/api/track/page-view"
BATCH = "/api/track/batch"
BROWSER = {"User-Agent": FIREFOX}
TRACES = (ADDRESS, FIREFOX, "secret-query", "ann")


@pytest.fixture(params=[FlaskClient, ServedClient], ids=["flask", "served"])
def make_client(
    settings: Settings, engine: Engine, redis: Redis, request: pytest.FixtureRequest
) -> Iterator[MakeClient]:
    """Makes clients of an app with some settings replaced; the stores are empty.

    Once by Flask alone, once by what is served, with the hot lane in front.
    """
    made = []

    def make(**values: Any) -> FlaskClient:
        app = create_app(replace(settings, api_key_hashes=frozenset({API_KEY_HASH}), **values))
        made.append(app.extensions[KEY])
        app.test_client_class = request.param
        return app.test_client()

    yield make
    for parts in made:
        parts.engine.dispose()
        parts.redis.close()


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    """A client of the app with the tests' settings."""
    return make_client()


def send(client: FlaskClient, body: object, url: str = PAGE_VIEW, **headers: str) -> TestResponse:
    """POST `body` as JSON from a browser; an underscore in a header's name is a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(url, json=body, headers=BROWSER | named, environ_overrides={"REMOTE_ADDR": ADDRESS})


def entries(count: int) -> list[dict[str, object]]:
    """So many good events of a batch."""
    return [
        {"entity_type": "page", "entity_id": f"/{number}", "ip": ADDRESS, "user_agent": FIREFOX}
        for number in range(count)
    ]


def test_a_view_is_queued_and_answered_with_its_outcome(client: FlaskClient, redis: Redis) -> None:
    response = send(client, {"path": "/a?b#c", "referrer": "https://news.example.com/x"})
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["X-View-Outcome"] == "counted"
    assert response.mimetype != "text/html"
    (event,) = queued(redis)
    assert (event.external_id, event.referrer_domain, event.device) == ("/a", "news.example.com", "desktop")
    assert event.visitor is not None


def test_a_crawlers_view_is_queued_as_a_bots(client: FlaskClient, redis: Redis) -> None:
    response = send(client, {"path": "/a"}, User_Agent="Googlebot/2.1")
    assert (response.status_code, response.headers["X-View-Outcome"]) == (204, "bot")
    (event,) = queued(redis)
    assert (event.outcome, event.visitor) == ("bot", None)


def test_what_is_queued_says_nothing_of_the_visitor(
    client: FlaskClient, settings: Settings, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"path": "/a?secret-query", "referrer": "https://user:secret-query@example.com/secret-query"}
    assert send(client, body, **bearer(settings, "user")).status_code == 204
    payload = encode(queued(redis)).decode()
    assert not [trace for trace in TRACES if trace in payload + caplog.text]
    assert queued(redis)[0].authenticated


def test_the_same_view_sent_twice_is_stored_once(
    client: FlaskClient, settings: Settings, engine: Engine, redis: Redis
) -> None:
    body = {"path": "/a", "id": str(uuid7(datetime.now(UTC)))}
    first, second = send(client, body), send(client, body)
    assert first.status_code == second.status_code == 204
    assert first.headers["X-View-Outcome"] == second.headers["X-View-Outcome"] == "counted"
    one, other = queued(redis)
    assert one == other
    assert writer.drain(engine, redis, settings, "test").fates == {"row": 1, "duplicate": 1}


BAD_BODIES = {
    "a path of 10,000 characters": (json.dumps({"path": "/" + "x" * 10_000}).encode(), "path"),
    "invalid UTF-8": (b'{"path": "/\xff"}', "body"),
    "a lone surrogate": (b'{"path": "/\\ud800"}', "path"),
    "a NUL": (b'{"path": "/\\u0000"}', "path"),
    "a control character": (b'{"path": "/\\u0085"}', "path"),
    "a path that is a number": (b'{"path": 1}', "path"),
    "a path that is null": (b'{"path": null}', "path"),
    "a path that is deep": (b'{"path": ' + b"[" * 900 + b"]" * 900 + b"}", "path"),
    "no path": (b"{}", "path"),
    "no slash": (b'{"path": "a"}', "path"),
    "a referrer that is a list": (b'{"path": "/", "referrer": []}', "referrer"),
    "an id that is no UUID": (b'{"path": "/", "id": "1"}', "id"),
    "nothing": (b"", "body"),
    "half of it": (b'{"path": "/', "body"),
    "a list": (b'["/"]', "body"),
    "very deep": (b'{"path": ' + b"[" * 16_000, "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_view_is_refused_by_the_fields_name_and_leaves_no_trace(
    client: FlaskClient, redis: Redis, caplog: pytest.LogCaptureFixture, body: bytes, field: str
) -> None:
    caplog.set_level(logging.DEBUG)
    response = client.post(
        PAGE_VIEW,
        data=body,
        content_type="application/json",
        headers=BROWSER,
        environ_overrides={"REMOTE_ADDR": ADDRESS},
    )
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"].startswith(f"{field}: ")
    assert response.json["code"] == "invalid"
    assert "X-View-Outcome" not in response.headers
    assert queued(redis) == []
    assert not [trace for trace in TRACES if trace in caplog.text]


def test_a_batch_of_depth_100_000_is_refused(client: FlaskClient, redis: Redis) -> None:
    body = b'{"events": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = client.post(BATCH, data=body, content_type="application/json", headers=SERVICE)
    assert (response.status_code, response.json) == (
        400,
        {"error": "body: is nested too deeply", "code": "invalid"},
    )
    assert queued(redis) == []


def test_a_body_over_the_limit_is_413(client: FlaskClient, redis: Redis) -> None:
    fits = {"path": "/", "x": "y" * (64 * 1024 - len('{"path":"/","x":""}'))}
    body = json.dumps(fits, separators=(",", ":")).encode()
    assert len(body) == 64 * 1024
    assert client.post(PAGE_VIEW, data=body, content_type="application/json").status_code == 204
    response = client.post(PAGE_VIEW, data=body + b" ", content_type="application/json")
    assert (response.status_code, response.json and response.json["code"]) == (413, "too_large")
    assert len(queued(redis)) == 1


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 400), (64 * 1024 + 1, 413), (10**7, 413)])
def test_a_body_without_a_length_is_read_up_to_the_limit(client: FlaskClient, size: int, status: int) -> None:
    response = client.post(
        PAGE_VIEW,
        data=b"x" * size,
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
    )
    assert response.status_code == status


def test_a_beacon_is_read_as_text(client: FlaskClient, redis: Redis) -> None:
    for content_type in ("text/plain;charset=UTF-8", "application/json; charset=latin-1"):
        response = client.post(PAGE_VIEW, data='{"path": "/ü"}', content_type=content_type)
        assert response.status_code == 204
    assert {event.external_id for event in queued(redis)} == {"/ü"}


@pytest.mark.parametrize("content_type", [None, "text/html", "application/x-www-form-urlencoded"])
def test_other_types_are_415(client: FlaskClient, redis: Redis, content_type: str | None) -> None:
    response = client.post(PAGE_VIEW, data='{"path": "/"}', content_type=content_type)
    assert (response.status_code, response.json and response.json["code"]) == (415, "unsupported_media_type")
    assert queued(redis) == []


@pytest.mark.parametrize("header", ["Sec-GPC", "DNT"])
def test_who_asks_not_to_be_traced_is_counted_without_a_visitor(
    client: FlaskClient, redis: Redis, header: str
) -> None:
    assert send(client, {"path": "/"}, **{header: "1"}).headers["X-View-Outcome"] == "counted"
    assert send(client, {"path": "/"}, **{header: "0"}).headers["X-View-Outcome"] == "counted"
    asked, did_not = queued(redis)
    assert asked.visitor is None
    assert did_not.visitor is not None


def visitor_through(client: FlaskClient, redis: Redis, forwarded: str | None, peer: str) -> int | None:
    """The visitor of a view that came from `peer` with that X-Forwarded-For."""
    headers = BROWSER | ({"X-Forwarded-For": forwarded} if forwarded else {})
    client.post(PAGE_VIEW, json={"path": "/"}, headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    return queued(redis)[-1].visitor


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer"),
    [
        (0, "203.0.113.9", "198.51.100.1"),
        (1, "198.51.100.1", "10.0.0.1"),
        (1, "203.0.113.9, 198.51.100.1", "10.0.0.1"),
        (1, "198.51.100.1:4711", "10.0.0.1"),
        (1, "::ffff:198.51.100.1", "10.0.0.1"),
        (2, "203.0.113.9, 198.51.100.1, 10.0.0.2", "10.0.0.1"),
        (2, "203.0.113.9", "198.51.100.1"),  # not through both proxies
    ],
)
def test_the_client_is_as_many_hops_away_as_there_are_trusted_proxies(
    make_client: MakeClient, redis: Redis, proxies: int, forwarded: str, peer: str
) -> None:
    direct = visitor_through(make_client(), redis, None, "198.51.100.1")
    assert direct is not None
    assert visitor_through(make_client(trusted_proxies=proxies), redis, forwarded, peer) == direct


def test_a_client_whose_address_is_nonsense_is_counted_without_a_visitor(
    make_client: MakeClient, redis: Redis
) -> None:
    assert visitor_through(make_client(trusted_proxies=1), redis, "nonsense", "10.0.0.1") is None
    assert queued(redis)[-1].outcome == "counted"


def test_the_country_is_the_trusted_headers(make_client: MakeClient, redis: Redis) -> None:
    trusting, other = make_client(country_header="CF-IPCountry"), make_client()
    for client in (trusting, other):
        for country in ("DE", "XX", "<script>"):
            send(client, {"path": "/"}, CF_IPCountry=country)
    assert [event.country for event in queued(redis)] == ["DE", None, None, None, None, None]


def test_the_sites_own_pages_are_no_referrers(make_client: MakeClient, redis: Redis) -> None:
    client = make_client(site_domains=frozenset({"example.org"}))
    for referrer in (
        "https://www.example.org/",
        "http://localhost/x",
        "https://site.example/",
        "https://a.b/",
    ):
        send(
            client, {"path": "/", "referrer": referrer}, Origin="https://site.example", Referer="https://c.d/"
        )
    assert [event.referrer_domain for event in queued(redis)] == [None, None, None, "a.b"]


def test_a_signed_in_viewer_is_known_by_the_token(
    client: FlaskClient, settings: Settings, redis: Redis
) -> None:
    send(client, {"path": "/"}, **bearer(settings, "user"))
    send(client, {"path": "/"}, User_Agent=FIREFOX + " other", **bearer(settings, "moderator"))
    send(client, {"path": "/"}, **SERVICE)
    one, other, server = queued(redis)
    assert one.visitor == other.visitor != server.visitor
    assert (one.authenticated, other.authenticated, server.authenticated) == (True, True, False)


def test_a_bad_token_is_401_and_not_anonymous(client: FlaskClient, redis: Redis) -> None:
    response = send(client, {"path": "/"}, Authorization="Bearer nonsense")
    assert (response.status_code, response.json and response.json["code"]) == (401, "not_authenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert queued(redis) == []


def test_a_batch_with_one_malformed_event_keeps_the_999_others(
    client: FlaskClient, settings: Settings, engine: Engine, redis: Redis
) -> None:
    events = entries(1000)
    events[417] = {"entity_type": "page", "entity_id": "/\ud800", "ip": ADDRESS}
    response = send(client, {"events": events}, BATCH, **SERVICE)
    assert response.status_code == 200
    assert response.json == {
        "accepted": 999,
        "outcomes": {"counted": 999},
        "errors": [
            {"index": 417, "error": "entity_id: must not contain control characters or lone surrogates"}
        ],
    }
    assert len(queued(redis)) == 999
    assert writer.drain(engine, redis, settings, "test").fates == {"row": 999}


def test_a_batch_sent_twice_is_stored_once(
    client: FlaskClient, settings: Settings, engine: Engine, redis: Redis
) -> None:
    moment = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    events = [{**entry, "id": str(uuid4()), "occurred_at": moment} for entry in entries(20)]
    for _ in range(2):
        assert send(client, {"events": events}, BATCH, **SERVICE).status_code == 200
    assert writer.drain(engine, redis, settings, "test").fates == {"row": 20, "duplicate": 20}


def test_a_batch_is_for_servers(client: FlaskClient, settings: Settings, redis: Redis) -> None:
    body = {"events": entries(1)}
    assert send(client, body, BATCH).status_code == 401
    for role in ("user", "moderator", "admin"):
        assert send(client, body, BATCH, **bearer(settings, role)).status_code == 403
    assert queued(redis) == []
    assert send(client, body, BATCH, **bearer(settings, "service")).status_code == 200


def test_a_batch_of_1001_is_refused_whole(client: FlaskClient, redis: Redis) -> None:
    response = send(client, {"events": entries(1001)}, BATCH, **SERVICE)
    assert (response.status_code, response.json and response.json["error"]) == (
        400,
        "events: must be at most 1000",
    )
    assert queued(redis) == []


def test_a_batch_without_a_good_event_is_answered_and_queues_nothing(
    client: FlaskClient, redis: Redis
) -> None:
    response = send(client, {"events": [{}]}, BATCH, **SERVICE)
    assert response.status_code == 200
    assert response.json is not None
    assert (response.json["accepted"], len(response.json["errors"])) == (0, 1)
    assert queued(redis) == []


def test_listed_origins_may_read_and_others_may_not(make_client: MakeClient) -> None:
    client = make_client(cors_origins=frozenset({"https://Example.org/"}))
    listed = send(client, {"path": "/"}, Origin="https://example.org")
    assert listed.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "X-View-Outcome" in listed.headers["Access-Control-Expose-Headers"]
    assert "Origin" in listed.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in listed.headers
    refused = send(client, {}, Origin="https://example.org")
    assert refused.headers["Access-Control-Allow-Origin"] == "https://example.org"
    for origin in ("https://evil.example", "null", "https://example.org.evil.example"):
        other = send(client, {"path": "/"}, Origin=origin)
        assert other.status_code == 204
        assert "Access-Control-Allow-Origin" not in other.headers
        assert "Origin" in other.headers["Vary"]


def test_a_preflight_is_answered_for_listed_origins_only(make_client: MakeClient, redis: Redis) -> None:
    client = make_client(cors_origins=frozenset({"https://example.org"}))
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    listed = client.options(PAGE_VIEW, headers={"Origin": "https://example.org", **ask})
    assert listed.status_code == 200
    assert "POST" in listed.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in listed.headers["Access-Control-Allow-Headers"]
    other = client.options(PAGE_VIEW, headers={"Origin": "https://evil.example", **ask})
    assert "Access-Control-Allow-Methods" not in other.headers
    assert queued(redis) == []


def test_when_both_stores_are_away_the_answer_is_503_and_when_to_come_again(make_client: MakeClient) -> None:
    client = make_client(
        redis_url="redis://127.0.0.1:1", database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nothing"
    )
    for url, body in ((PAGE_VIEW, {"path": "/"}), (BATCH, {"events": entries(1)})):
        response = send(client, body, url, **SERVICE)
        assert (response.status_code, response.json and response.json["code"]) == (503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0


def test_when_the_database_is_away_a_new_process_answers_503(make_client: MakeClient, redis: Redis) -> None:
    client = make_client(database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    response = send(client, {"path": "/"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert send(client, {"path": "/"}, User_Agent="Googlebot/2.1").status_code == 204
    assert len(queued(redis)) == 1


def test_a_full_queue_is_503(make_client: MakeClient, redis: Redis) -> None:
    assert send(make_client(queue_limit_entries=1), {"path": "/"}).status_code == 204
    assert send(make_client(queue_limit_entries=1), {"path": "/"}).status_code == 503
    assert len(queued(redis)) == 1


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/api//health", 404),
        ("GET", "/api/health/", 404),
        ("GET", "/", 404),
        ("GET", PAGE_VIEW, 405),
        ("PUT", PAGE_VIEW, 405),
    ],
)
def test_every_error_is_json(client: FlaskClient, method: str, url: str, status: int) -> None:
    response = client.open(url, method=method)
    assert response.status_code == status
    assert response.mimetype == "application/json"
    assert response.json is not None
    assert set(response.json) == {"error", "code"}
    assert ("Allow" in response.headers) == (status == 405)


def test_a_bug_is_500_in_json_and_its_log_quotes_nothing(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: object) -> None:
        raise KeyError(f"secret-query {ADDRESS} {FIREFOX}")

    monkeypatch.setattr("footfall.intake.page_view", break_down)
    response = send(client, {"path": "/?secret-query"})
    assert (response.status_code, response.json and response.json["code"]) == (500, "internal")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "builtins.KeyError" in str(vars(record))
    assert "break_down" in str(vars(record))
    assert not [trace for trace in TRACES if trace in str(vars(record)) + caplog.text]
