"""Limits of views a minute: who is refused, who never is, over how many processes, and what is left of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from freezegun.api import FrozenDateTimeFactory
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.app import create_app
from api.parts import KEY, Parts
from footfall import keys, limits, scripts
from footfall.clock import utc_now
from footfall.errors import Limited, Unavailable
from footfall.intake import Viewer
from footfall.limits import Limits
from footfall.settings import Settings
from footfall.visitors import day_key
from tests.integration.api import API_KEY_HASH, FIREFOX, SERVICE, bearer, queued
from tests.integration.conftest import NOW
from tests.integration.own_redis import OwnRedis
from tests.wire import ServedClient

pytestmark = pytest.mark.usefixtures("clock")

PAGE_VIEW = "/api/track/page-view"
ADDRESS = "203.0.113.7"
MakeClient = Callable[..., FlaskClient]


@pytest.fixture(params=[FlaskClient, ServedClient], ids=["flask", "served"])
def make_client(
    settings: Settings, engine: Engine, redis: Redis, request: pytest.FixtureRequest
) -> Iterator[MakeClient]:
    """Makes clients of processes of their own with some settings replaced; the stores are shared."""
    made: list[Parts] = []

    def make(**values: Any) -> FlaskClient:
        app = create_app(replace(settings, api_key_hashes=frozenset({API_KEY_HASH}), **values))
        made.append(app.extensions[KEY])
        app.test_client_class = request.param
        app.extensions[KEY].salts.for_days((), utc_now())  # as the lane wants it
        return app.test_client()

    yield make
    for parts in made:
        parts.engine.dispose()
        parts.redis.close()


def send(client: FlaskClient, address: str = ADDRESS, agent: str = FIREFOX, **headers: str) -> TestResponse:
    """A page view."""
    return client.post(
        PAGE_VIEW,
        json={"path": "/a"},
        headers={"User-Agent": agent, **headers},
        environ_overrides={"REMOTE_ADDR": address},
    )


def statuses(client: FlaskClient, times: int, **who: str) -> list[int]:
    """What so many page views are answered."""
    return [send(client, **who).status_code for _ in range(times)]


def parts(client: FlaskClient) -> Parts:
    found: Parts = client.application.extensions[KEY]
    return found


def test_one_too_many_within_a_minute_is_refused_until_the_next(
    make_client: MakeClient, redis: Redis, clock: FrozenDateTimeFactory
) -> None:
    client = make_client(views_per_minute_per_visitor=3)
    clock.move_to(NOW + timedelta(seconds=18))
    assert statuses(client, 3) == [204] * 3
    refused = send(client)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "42")
    assert refused.json == {"error": "too many views within a minute", "code": "limited"}
    assert "X-View-Outcome" not in refused.headers
    assert statuses(client, 5) == [429] * 5
    clock.move_to(NOW + timedelta(seconds=59.9))
    assert send(client).headers["Retry-After"] == "1"
    clock.move_to(NOW + timedelta(seconds=60))
    assert statuses(client, 4) == [204] * 3 + [429], "what was refused does not count"
    assert len(queued(redis)) == 6


def test_a_visitors_limit_is_no_other_visitors(make_client: MakeClient, settings: Settings) -> None:
    client = make_client(views_per_minute_per_visitor=2)
    others: list[dict[str, str]] = [
        {},
        {"address": "203.0.113.8"},
        {"address": "2001:db8::1"},
        {"agent": FIREFOX + "x"},
        {"agent": "Googlebot/2.1"},
        {"agent": "Other", "Sec-GPC": "1"},
        bearer(settings, "user", "ann"),
        bearer(settings, "user", "bob"),
    ]
    for who in others:
        assert statuses(client, 3, **who) == [204, 204, 429], who
    assert statuses(client, 1, address="192.0.2.1", **bearer(settings, "user", "ann")) == [429]


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ([f"203.0.113.{n}" for n in range(4)], "203.0.112.1"),
        ([f"2001:db8:1:{n:x}::{n:x}" for n in range(4)], "2001:db8:2::1"),
        (["203.0.113.7", "::ffff:203.0.113.8", "::ffff:203.0.113.9", "203.0.113.9"], "::1"),
    ],
)
def test_a_networks_limit_is_all_of_its_addresses(
    make_client: MakeClient, within: list[str], beyond: str
) -> None:
    client = make_client(views_per_minute_per_network=3, views_per_minute_per_visitor=2)
    answers = [
        send(client, address, f"{FIREFOX} {number}").status_code for number, address in enumerate(within)
    ]
    assert answers == [204, 204, 204, 429]
    assert statuses(client, 3, address=beyond) == [204, 204, 429]


def test_whose_address_is_not_known_is_nobody_to_be_limited(make_client: MakeClient) -> None:
    client = make_client(views_per_minute_per_network=1, views_per_minute_per_visitor=1)
    assert statuses(client, 3, address="unknown") == [204] * 3


def test_every_endpoint_for_browsers_counts_and_batches_do_not(
    make_client: MakeClient, settings: Settings
) -> None:
    client = make_client(views_per_minute_per_visitor=1)
    doors = {
        PAGE_VIEW: {"path": "/a"},
        "/api/track/view": {"entity_type": "story", "entity_id": "1"},
        "/api/stories/1/view": None,
        "/api/chapters/1/view": None,
        "/api/views": {"contentId": "1", "contentType": "course"},
        "/api/books/1/track-view": {"viewType": "card_view"},
    }
    for number, (url, body) in enumerate(doors.items()):
        who = bearer(settings, "user", f"reader {number}")
        for wanted in (client.post(url, json=body, headers={"User-Agent": FIREFOX, **who}) for _ in "12"):
            assert wanted.status_code in (200, 204, 429)
        assert wanted.status_code == 429, url
        assert (wanted.json or {})["code"] == "limited"
    event = {"entity_type": "page", "entity_id": "/a", "ip": ADDRESS, "user_agent": FIREFOX}
    answer = client.post("/api/track/batch", json={"events": [event] * 50}, headers=SERVICE)
    assert (answer.json or {})["accepted"] == 50
    for _ in range(3):
        happened = client.post("/api/track/event", json={"event_type": "signup"}, headers=SERVICE)
        assert happened.status_code == 202


def test_a_request_that_is_wrong_uses_nothing_up(make_client: MakeClient) -> None:
    client = make_client(views_per_minute_per_visitor=1)
    for _ in range(3):
        bad = client.post(PAGE_VIEW, json={"path": "a"}, environ_overrides={"REMOTE_ADDR": ADDRESS})
        assert bad.status_code == 400
    assert statuses(client, 2) == [204, 429]


def test_the_same_id_again_counts_as_a_request(make_client: MakeClient) -> None:
    client = make_client(views_per_minute_per_visitor=2)
    body = {"path": "/a", "id": "6c1c6a9a-3e6c-4b52-8f0c-0d6c3f9f7f11"}
    assert [client.post(PAGE_VIEW, json=body).status_code for _ in range(3)] == [204, 204, 429]


def test_refusals_are_tallied(make_client: MakeClient, redis: Redis) -> None:
    client = make_client(views_per_minute_per_visitor=1)
    statuses(client, 4)
    parts(client).traffic.flush()
    assert redis.hget(keys.LEDGER, f"{NOW.date()}:refused:limited") == b"3"


def test_without_the_settings_nothing_is_counted(make_client: MakeClient, redis: Redis) -> None:
    client = make_client()
    assert statuses(client, 50) == [204] * 50
    parts(client).limits.exchange()
    assert limit_keys(redis) == []


def test_processes_hold_a_limit_together(make_client: MakeClient) -> None:
    one, other = (make_client(views_per_minute_per_visitor=10) for _ in range(2))
    assert statuses(one, 6) == [204] * 6
    parts(one).limits.exchange()
    assert statuses(other, 1) == [204]
    parts(other).limits.exchange()
    assert statuses(other, 5) == [204] * 3 + [429] * 2
    parts(other).limits.exchange()
    assert statuses(one, 1) == [204], "it has not heard of the last second"
    parts(one).limits.exchange()
    assert statuses(one, 1) == [429]


def test_processes_overshoot_by_no_more_than_is_said(make_client: MakeClient) -> None:
    """By a tenth of the limit and what comes in a second, from each process but one."""
    limit, rate, processes = 40, 5, 3
    clients = [make_client(views_per_minute_per_network=limit) for _ in range(processes)]
    taken = 0
    for second in range(20):
        for client in clients:
            sent = [f"{FIREFOX} {second} {number}" for number in range(rate)]
            taken += [send(client, agent=agent).status_code for agent in sent].count(204)
            parts(client).limits.exchange()
    assert limit <= taken <= limit + (processes - 1) * (limit // 10 + rate)


def test_without_redis_each_process_goes_by_its_own_counts(
    settings: Settings, engine: Engine, own: OwnRedis
) -> None:
    app = create_app(replace(settings, redis_url=own.server.url, views_per_minute_per_visitor=10))
    client = app.test_client()
    assert statuses(client, 6) == [204] * 6
    own.kill()
    with pytest.raises(RedisError):
        parts(client).limits.exchange()
    assert statuses(client, 5) == [204] * 4 + [429]
    own.start()
    parts(client).limits.exchange()
    assert statuses(client, 1) == [429]
    parts(client).engine.dispose()
    parts(client).redis.close()


def test_what_an_exchange_may_have_told_is_not_told_twice(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a visitor within the limit would be refused after Redis had been slow."""
    one, other = (counting(settings, redis, views_per_minute_per_visitor=10) for _ in range(2))
    admit(one, 6)
    real = scripts.run

    def unheard(*arguments: Any) -> None:
        real(*arguments)
        raise RedisError("the answer did not come")

    with monkeypatch.context() as patch:
        patch.setattr(scripts, "run", unheard)
        with pytest.raises(RedisError):
            one.exchange()
    one.exchange()
    admit(other, 1)
    other.exchange()
    admit(other, 3)
    with pytest.raises(Limited):
        admit(other, 1)


def test_what_redis_is_told_is_nobodys_and_ends(
    make_client: MakeClient, redis: Redis, settings: Settings, clock: FrozenDateTimeFactory
) -> None:
    client = make_client(views_per_minute_per_visitor=2, views_per_minute_per_network=2)
    told = []
    for day in range(2):
        clock.move_to(NOW + timedelta(days=day))
        send(client)
        send(client, **bearer(settings, "user", "ann-the-user"))
        parts(client).limits.exchange()
        (key,) = limit_keys(redis)
        assert 0 < int(str(redis.ttl(key))) <= 120
        fields: dict[bytes, bytes] = redis.hgetall(key)  # type: ignore[assignment]
        assert sorted(fields.values()) == [b"1", b"1", b"2"]
        assert {len(name) for name in fields} == {8}
        told.append(set(fields))
        assert not [word for word in (b"203.0", b"Firefox", b"ann-the") if word in b"".join(fields)]
        redis.delete(key)
    assert not told[0] & told[1], "the next day's hashes are others"
    stored = {event.visitor.to_bytes(8, "big", signed=True) for event in queued(redis) if event.visitor}
    assert not stored & (told[0] | told[1]), "they cannot be held against what is stored"


def test_few_views_are_told_to_nobody(make_client: MakeClient, redis: Redis) -> None:
    client = make_client(views_per_minute_per_visitor=50)
    statuses(client, 4)
    parts(client).limits.exchange()
    assert limit_keys(redis) == []
    statuses(client, 1)
    parts(client).limits.exchange()
    (key,) = limit_keys(redis)
    assert list(redis.hvals(key)) == [b"5"]


def test_a_flood_of_made_up_visitors_takes_bounded_memory_and_hides_nobody(
    settings: Settings, redis: Redis
) -> None:
    counted = counting(settings, redis, views_per_minute_per_visitor=5)
    admit(counted, 4)
    for number in range(3 * limits.MOST_COUNTED):
        counted.admit(Viewer(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "", None, None), NOW)
        if number % 20_000 == 0:
            counted.exchange()
    (counts,) = counted._counts
    assert len(counts._own) <= limits.MOST_COUNTED
    assert len(counts._told) <= limits.MOST_COUNTED
    admit(counted, 1)
    with pytest.raises(Limited):
        admit(counted, 1)


def test_without_a_salt_a_process_counts_for_itself(settings: Settings, redis: Redis) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the visitor keys of the day cannot be read now")

    counted = Limits(redis, replace(settings, views_per_minute_per_visitor=2), away)
    admit(counted, 2)
    counted.exchange()
    with pytest.raises(Limited):
        admit(counted, 1)
    other = Limits(redis, replace(settings, views_per_minute_per_visitor=2), away)
    admit(other, 1)
    other.exchange()
    admit(other, 1)


def test_a_clock_that_is_set_back_locks_nobody_out(settings: Settings, redis: Redis) -> None:
    counted = counting(settings, redis, views_per_minute_per_visitor=1)
    counted.admit(viewer(), NOW + timedelta(hours=1))
    counted.admit(viewer(), NOW)


def test_the_lane_refuses_in_the_same_words_as_flask(
    settings: Settings, engine: Engine, redis: Redis
) -> None:
    answers = []
    for kind in (FlaskClient, ServedClient):
        app = create_app(
            replace(settings, views_per_minute_per_visitor=1, cors_origins=frozenset({"https://a.example"}))
        )
        app.extensions[KEY].salts.for_days((), utc_now())
        app.test_client_class = kind
        client = app.test_client()
        send(client, Origin="https://a.example")
        refused = send(client, Origin="https://a.example")
        answers.append(
            (
                refused.status_code,
                {name.lower(): value for name, value in refused.headers},
                json.loads(refused.data),
            )
        )
        parts(client).engine.dispose()
        parts(client).redis.close()
    assert answers[0] == answers[1]
    assert answers[0][1]["access-control-expose-headers"] == "X-View-Outcome, Retry-After"


def counting(settings: Settings, redis: Redis, **values: Any) -> Limits:
    """The limits of a process of its own, under keys as everybody has them."""
    return Limits(
        redis, replace(settings, **values), lambda days, _: {day: day_key(b"", b"") for day in days}
    )


def viewer() -> Viewer:
    return Viewer(ADDRESS, FIREFOX, None, None)


def admit(counted: Limits, times: int) -> None:
    for _ in range(times):
        counted.admit(viewer(), NOW)


def limit_keys(redis: Redis) -> list[bytes]:
    return list(redis.scan_iter(f"{keys.TAG}:limits:*"))
