"""The API as the integration tests call it: the real app on real servers, without a socket."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

from flask.testing import FlaskClient
from redis import Redis

from footfall import access, stream
from footfall.clock import utc_now
from footfall.event import ViewEvent, decode
from footfall.settings import Settings

API_KEY = "ffk_of_the_tests"
API_KEY_HASH = sha256(API_KEY.encode()).hexdigest()
SERVICE = {"Authorization": f"Bearer {API_KEY}"}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
ADDRESS = "192.0.2.77"

MakeClient = Callable[..., FlaskClient]  # of settings to replace


def queued(redis: Redis) -> list[ViewEvent]:
    """All events in the stream, oldest first."""
    entries = cast("list[Any]", redis.xrange(stream.STREAM_KEY))
    return [
        event
        for _, fields in entries
        for event in decode(fields[stream.FIELD])
        if isinstance(event, ViewEvent)
    ]


def bearer(settings: Settings, role: str, subject: str = "ann") -> dict[str, str]:
    """The header of somebody in that role."""
    return {"Authorization": f"Bearer {access.make_token(settings, subject, role, utc_now())}"}
