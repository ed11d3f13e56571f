"""Appending from the event loop: what Redis says, what it does not say, and what it says too late."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine, text

from api.app import create_app
from api.asgi import Application
from api.hot_lane import PATH
from api.parts import KEY
from footfall import breaker, loop_redis, scripts, stream, writer
from footfall.clock import utc_now
from footfall.event import ViewEvent, fields_of
from footfall.ids import uuid7
from footfall.loop_redis import LoopRedis
from footfall.settings import Settings
from tests.factory import make_event
from tests.integration.api import FIREFOX, queued
from tests.integration.own_redis import OwnRedis
from tests.waiting import wait_for_growth, wait_until
from tests.wire import Wire, converse, request

OF_TLS = "rediss://localhost/0"


@pytest.fixture
def client(own: OwnRedis) -> Iterator[Redis]:
    """Another client of the Redis that is tried."""
    made = Redis.from_url(own.server.url)
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for an answer instead of five."""
    monkeypatch.setattr(loop_redis, "ANSWER_SECONDS", 0.5)


def put(redis: LoopRedis, *events: ViewEvent) -> None:
    async def once() -> None:
        try:
            await stream.put_from_loop(redis, [fields_of(one) for one in events])
        finally:
            redis.close()
            await asyncio.sleep(0)

    asyncio.run(once())


def queued_ids(client: Redis) -> list[UUID]:
    return [one.id for one in queued(client)]


def event(settings: Settings) -> ViewEvent:
    now = utc_now()
    return make_event(settings, now, id=uuid7(now))


def test_events_are_appended_and_tallied_also_by_a_redis_that_knows_no_script_yet(
    own: OwnRedis, client: Redis, settings: Settings
) -> None:
    redis = LoopRedis(own.server.url)
    events = [event(settings) for _ in range(3)]
    for known in (False, True):
        if not known:
            client.script_flush()
        put(redis, *events)
    assert queued_ids(client) == [one.id for one in events] * 2
    assert stream.ledger(client) == {f"{events[0].day}:accepted": 6}


def test_events_of_several_days_are_tallied_by_their_days(
    own: OwnRedis, client: Redis, settings: Settings
) -> None:
    now = utc_now()
    events = [make_event(settings, now - timedelta(days=back)) for back in (0, 1, 1)]
    put(LoopRedis(own.server.url), *events)
    stream.put(client, events[1:])
    assert stream.ledger(client) == {f"{events[0].day}:accepted": 1, f"{events[1].day}:accepted": 4}


def test_it_signs_in_and_selects_the_database(own: OwnRedis, client: Redis, settings: Settings) -> None:
    client.config_set("requirepass", "p@ss/word")
    url = own.server.url.partition("?")[0].replace("unix://", "unix://:p%40ss%2Fword@") + "?db=3"
    one = event(settings)
    put(LoopRedis(url), one)
    there = Redis.from_url(url)
    assert queued_ids(there) == [one.id]
    there.close()
    with pytest.raises(RedisError):
        put(LoopRedis(own.server.url), one)


def test_by_tcp_too_and_tls_is_for_others(own: OwnRedis, client: Redis, settings: Settings) -> None:
    one = event(settings)

    async def relay(reader: asyncio.StreamReader, sender: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(own.server.socket)
        to_redis.write(await reader.read(10_000))
        sender.write(await from_redis.read(10_000))
        for each in (to_redis, sender):
            each.close()
            await each.wait_closed()

    async def talk() -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            redis = LoopRedis(f"redis://127.0.0.1:{port}/0")
            await stream.put_from_loop(redis, [fields_of(one)])
            redis.close()
            await asyncio.sleep(0)

    client.script_load(scripts._text("put"))
    asyncio.run(talk())
    assert queued_ids(client) == [one.id]
    assert LoopRedis(own.server.url).can_connect
    assert not LoopRedis(OF_TLS).can_connect


def test_what_redis_refuses_is_an_error_and_the_next_is_taken(
    own: OwnRedis, client: Redis, settings: Settings
) -> None:
    redis = LoopRedis(own.server.url)
    one = event(settings)
    client.config_set("maxmemory", "1")
    with pytest.raises(ResponseError, match="OOM"):
        put(redis, one)
    client.config_set("maxmemory", "0")
    put(redis, one)
    assert queued_ids(client) == [one.id]


def test_a_late_answer_is_nobody_elses(own: OwnRedis, client: Redis, settings: Settings, quick: None) -> None:
    """Redis is paused with a command in its ear; what it says afterwards is for nobody."""
    redis = LoopRedis(own.server.url)
    first, second, third = (event(settings) for _ in range(3))

    async def talk() -> None:
        await stream.put_from_loop(redis, [fields_of(first)])
        with own.paused(), pytest.raises(RedisError):
            await stream.put_from_loop(redis, [fields_of(second)])
        client.config_set("maxmemory", "1")
        with pytest.raises(RedisError):  # and not OK, which is the answer to the second
            await stream.put_from_loop(redis, [fields_of(third)])
        redis.close()
        await asyncio.sleep(0)

    asyncio.run(talk())
    assert third.id not in queued_ids(client)


def test_a_redis_that_was_started_anew_is_connected_to_at_once(
    own: OwnRedis, settings: Settings, quick: None
) -> None:
    redis = LoopRedis(own.server.url)

    async def talk() -> None:
        await stream.put_from_loop(redis, [fields_of(event(settings))])
        own.kill()
        await asyncio.to_thread(own.start)
        await stream.put_from_loop(redis, [fields_of(event(settings))])
        own.kill()
        with pytest.raises(RedisError):
            await stream.put_from_loop(redis, [fields_of(event(settings))])
        redis.close()
        await asyncio.sleep(0)

    asyncio.run(talk())


@pytest.mark.parametrize("harm", ["paused", "killed", "slow"])
def test_with_redis_harmed_under_load_every_view_answered_is_written_once(
    harm: str,
    own: OwnRedis,
    client: Redis,
    engine: Engine,
    settings: Settings,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.1)
    app = create_app(replace(settings, redis_url=f"{own.server.url}&socket_timeout=0.5"))
    parts = app.extensions[KEY]
    parts.salts.for_days((), utc_now())
    application = Application(app)
    stop = threading.Event()
    answered: list[list[UUID]] = [[] for _ in range(16)]

    async def send(mine: list[UUID]) -> None:
        wire = Wire()
        wire.connect(application)
        while not stop.is_set():
            event_id = uuid7(utc_now())
            body = json.dumps({"path": "/", "id": str(event_id)}).encode()
            headers = [
                (b"content-type", b"text/plain"),
                (b"user-agent", FIREFOX.encode()),
                (b"content-length", str(len(body)).encode()),
            ]
            wire.sent = b""
            wire.connection.data_received(b"".join(request("POST", PATH.encode(), headers, body)))
            (answer,) = await wire.answers("POST")
            assert answer.status == 204
            mine.append(event_id)
            await asyncio.sleep(0)

    async def talk() -> None:
        await asyncio.gather(*(send(mine) for mine in answered))

    def sent() -> int:
        return sum(map(len, answered))

    def past_redis() -> int:
        return int(parts.acceptance.fallback_views)

    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(converse, application, talk())
        try:
            for _ in range(3):
                wait_for_growth(sent, by=200)
                if harm == "paused":
                    with own.paused():
                        wait_for_growth(past_redis, by=1)
                elif harm == "killed":
                    own.kill()
                    wait_for_growth(past_redis, by=1)
                    own.start()
                else:
                    client.client_pause(300)
                wait_for_growth(sent, by=200)
                wait_until(lambda: client.xlen(stream.STREAM_KEY))
        finally:
            stop.set()
        sender.result()
    writer.drain(engine, client, settings, "test")
    with engine.connect() as connection:
        stored = list(connection.scalars(text("SELECT id FROM view_events")))
    assert sorted(stored) == sorted(one for mine in answered for one in mine)
    assert client.xlen(stream.STREAM_KEY) == 0
    parts.engine.dispose()
    parts.redis.close()
