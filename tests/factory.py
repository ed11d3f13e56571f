"""What tests make: settings, events, and days of views that went the real way."""

import random
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from uuid import UUID

from redis import Redis
from sqlalchemy import Engine

from footfall import stream, writer
from footfall.clock import site_day
from footfall.event import ViewEvent
from footfall.settings import Settings

PEPPER = "pepper of the tests, long enough to be one"
SECRET = "secret of the tests, long enough to be one"
# Raw events with what their kind says of them, in place of `view_events`
EVENTS = """(
    SELECT v.*, outcome, device, view_type, view_source, nullif(country, 'ZZ') AS country
    FROM view_events AS v JOIN event_kinds AS kind ON kind.id = v.kind_id
)"""


def make_settings(**values: str) -> Settings:
    """Settings from environment variables, with what is required filled in."""
    required = {
        "DATABASE_URL": "postgresql://nobody@/nothing",
        "REDIS_URL": "redis://127.0.0.1:1",
        "FOOTFALL_PEPPER": PEPPER,
        "FOOTFALL_JWT_SECRET": SECRET,
    }
    return Settings.from_mapping(required | values)


def make_event(settings: Settings, occurred_at: datetime, **values: Any) -> ViewEvent:
    """One counted view of a page; `values` say what is different."""
    plain: dict[str, Any] = {
        "id": UUID(int=random.getrandbits(128)),
        "occurred_at": occurred_at,
        "day": site_day(occurred_at, settings.time_zone),
        "entity_type": "page",
        "external_id": "/",
        "view_type": "intentional",
        "view_source": "web",
        "outcome": "counted",
        "device": "desktop",
        "country": None,
        "referrer_domain": None,
        "visitor": 1,
        "authenticated": False,
    }
    return ViewEvent(**(plain | values))


def store(engine: Engine, redis: Redis, settings: Settings, events: Iterable[ViewEvent]) -> writer.Written:
    """Put events through the queue and the writer, as a worker would."""
    stream.put(redis, list(events))
    return writer.drain(engine, redis, settings, consumer="test")


def day(text: str) -> date:
    """A date from its ISO form."""
    return date.fromisoformat(text)
