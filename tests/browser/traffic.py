"""Some days of views as a site's server tells of them: the same ones in every run, but for their dates."""

import random
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, insert, select, update

from footfall.clock import utc_now
from footfall.schema import Entity, Gap, ViewEventRow
from tests.functional.instance import Instance
from tests.waiting import wait_until

DAYS = 5  # back; a batch takes no older views
VIEWS = 900
NOW_VIEWS = 12  # of the last minutes
NASTY = "/<script>alert(1)</script>&\"'"
LONG = "/guides/" + "very-" * 24 + "long"
PATHS = ("/", "/about", "/guides/tides", LONG, NASTY, "/ä/ö", "/news", "/shop")
POST, TITLE, OWNER = "storm", "What the <storm> left", "ann"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
PHONE = "Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0"
USER_AGENTS = (FIREFOX, FIREFOX, PHONE, "curl/8.14.1")
COUNTRIES = ("DE", "DE", "US", "FR", None)
REFERRERS = (None, None, "https://search.example/?q=1", "https://news.example/")
SITE_EVENTS = (("signup", None), ("signup", None), ("upload", None), ("error", "payment declined"))


def send(instance: Instance) -> None:
    """Send everything and wait until it is written; one post has an owner, and one day a gap."""
    now = utc_now()
    chance = random.Random(4)
    events = [_view(chance, now - timedelta(days=DAYS * chance.random())) for _ in range(VIEWS)]
    events += [_view(chance, now - timedelta(seconds=10 * n), FIREFOX) for n in range(NOW_VIEWS)]
    service = {"Authorization": f"Bearer {instance.api_key}"}
    answer = instance.post("/api/track/batch", {"events": events}, service)
    assert (answer.status, answer.json["errors"]) == (200, [])
    for event_type, detail in SITE_EVENTS:
        told = instance.post("/api/track/event", {"event_type": event_type, "detail": detail}, service)
        assert told.status == 202
    engine = instance.engine()
    try:
        wait_until(lambda: _written(engine) >= len(events) + len(SITE_EVENTS), "everything to be written")
        _describe(engine, now)
    finally:
        engine.dispose()


def _view(chance: random.Random, occurred_at: datetime, user_agent: str | None = None) -> dict[str, Any]:
    person = chance.randrange(150)
    view: dict[str, Any] = {
        "entity_type": "page",
        "entity_id": PATHS[min(int(chance.expovariate(0.5)), len(PATHS) - 1)],
        "ip": f"192.0.2.{person}",
        "user_agent": user_agent or chance.choice(USER_AGENTS),
        "user_id": f"user-{person}" if person < 40 else None,
        "country": chance.choice(COUNTRIES),
        "referrer": chance.choice(REFERRERS),
        "occurred_at": occurred_at.isoformat(),
    }
    if user_agent is None and chance.random() < 0.2:
        view_type = chance.choice(("intentional", "listing", "widget"))
        view |= {"entity_type": "blog_post", "entity_id": POST, "view_type": view_type}
    return view


def _written(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(ViewEventRow)) or 0


def _describe(engine: Engine, now: datetime) -> None:
    is_post = (Entity.entity_type == "blog_post") & (Entity.external_id == POST)
    told = {"owner_id": OWNER, "title": TITLE, "reactions": {"👍": 3, "🦀": 9}, "comments": 2}
    started_at = now - timedelta(days=2)
    gap = {"started_at": started_at, "ended_at": started_at + timedelta(minutes=20)}
    with engine.begin() as connection:
        connection.execute(update(Entity).where(is_post).values(**told))
        connection.execute(insert(Gap).values(**gap))
