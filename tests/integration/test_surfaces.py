"""Every surface gives the number that a plain count of the sent events gives, whatever happened meanwhile."""

import csv
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from freezegun import freeze_time
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Engine, text

from api.app import create_app
from api.parts import KEY
from footfall import counts, ranking, retention, rollup, verify, writer
from footfall.acceptance import Acceptance
from footfall.clock import site_day
from footfall.entities import Name
from footfall.event import View, ViewEvent
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.factory import make_event
from tests.integration.api import bearer
from tests.integration.conftest import empty
from tests.integration.plain_count import PlainCount

Step = tuple[str, int, int]  # what, how much, seed of its randomness

ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "Asia/Kathmandu")]
STARTS = [
    datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC),
    datetime(2026, 3, 29, 22, 10, tzinfo=UTC),  # the clocks of Berlin went forward on the day that ends
    datetime(2026, 10, 25, 23, 30, tzinfo=UTC),  # and back
    datetime(2026, 1, 3, 18, 20, tzinfo=UTC),  # just after midnight in Kathmandu
]
# More than the lists of the answers hold, so that their ends are seen too
PAGES = [("page", f"/{n}") for n in range(24)]
CONTENT = [("book", "b1"), ("book", "b2"), ("post", "p"), ("blog_post", "p"), ("course", "c")]
RETRIES = timedelta(hours=24)
SITE_EVENTS = [("site_event", kind) for kind in ("signup", "upload", "api_call", "error")]
VIEW_TYPES = ["intentional", "listing", "reader_open"]
COUNTRIES = [None, *["DE", "FR", "NP", "US", "GB", "IN", "BR", "JP", "KE", "CA", "SE", "PL"]]
REFERRERS = [None, *(f"{n}.example.org" for n in range(12))]
OUTCOMES = ["counted"] * 5 + ["own", "repeat", "bot"]
DEVICES = ["desktop", "mobile", "tablet", "player", "other"]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("views"), st.sampled_from([40, 2]), st.integers(0, 9)),
        st.tuples(st.just("views not written yet"), st.sampled_from([1, 5]), st.integers(0, 9)),
        st.tuples(st.just("views without redis"), st.sampled_from([1, 5]), st.integers(0, 9)),
        st.tuples(st.just("again"), st.sampled_from([1, 20]), st.integers(0, 9)),
        st.tuples(st.just("pass"), st.sampled_from([1, 7, 25, 49]), st.integers(0, 9)),
        st.tuples(st.just("write"), st.just(0), st.just(0)),
        st.tuples(st.just("roll up"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("roll up closed days"), st.just(0), st.just(0)),
        st.tuples(st.just("roll forward"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("catch up"), st.just(0), st.just(0)),
        st.tuples(st.just("drop expired"), st.just(0), st.just(0)),
        st.tuples(st.just("verify"), st.just(0), st.just(0)),
        st.tuples(st.just("look"), st.integers(1, 10), st.integers(0, 9)),
    ),
    min_size=8,  # shorter stories tell nothing: days have to pass with something in them
    max_size=16,
)


class World:
    """The system, and beside it the plain list of what was sent."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis, client: FlaskClient) -> None:
        self.settings, self.engine, self.redis, self.client = settings, engine, redis, client
        self.door = Acceptance(engine, redis, settings)
        self.other_door = Acceptance(engine, redis, replace(settings, redis_enabled=False))
        self.kept: dict[UUID, ViewEvent] = {}  # what is stored, or was until its day was dropped
        self.queued: list[ViewEvent] = []
        self.sent: list[tuple[ViewEvent, datetime]] = []  # through Redis, and when
        self.ledger: Counter[tuple[date, str]] = Counter()
        self.shown: defaultdict[Name, Counter[str]] = defaultdict(Counter)  # when it was last looked at
        self.sealed: date = date.min

    @property
    def plain(self) -> PlainCount:
        """The plain count of what readers see now: what is written; what is queued comes a second later."""
        return PlainCount(list(self.kept.values()), self.now, self.settings.time_zone)

    def step(self, step: Step, now: datetime) -> None:
        """Let one thing happen."""
        self.now = now
        what, amount, seed = step
        chance = random.Random(f"{step} {now}")
        if what.startswith("views"):
            self._send(what, [self._event(chance) for _ in range(amount)])
            if what == "views":
                self._write()
        elif what == "again":
            self._send(what, chance.sample(self._recent(), min(amount, len(self._recent()))))
        elif what == "write":
            self._write()
        elif what == "roll up":
            rollup.roll_up(self.engine, self._today() - timedelta(days=amount), now)
        elif what == "roll up closed days":
            rollup.roll_up_closed_days(self.engine, self._today(), now, recheck=True)
        elif what == "roll forward":
            rollup.roll_forward(self.engine, self._today() - timedelta(days=amount), now)
        elif what == "catch up":
            rollup.catch_up(self.engine, self._today(), now)
        elif what == "drop expired":
            self._drop_expired()
        elif what == "verify":
            self._verify()
        elif what == "look":
            self.look(min(amount, self.settings.daily_retention_days), chance)

    def _recent(self) -> list[ViewEvent]:
        """What an id is still answered for as it was the first time."""
        return list({event.id: event for event, at in self.sent if self.now - at < RETRIES}.values())

    def _today(self) -> date:
        return site_day(self.now, self.settings.time_zone)

    def _event(self, chance: random.Random) -> ViewEvent:
        kind, external_id = chance.choice([*PAGES, *CONTENT * 3, *SITE_EVENTS])
        # the door refuses what is too late for its day; some pages come all the same, as from a long queue
        at = self._moment(chance, 6 if kind == "page" else self.settings.raw_retention_days - 1)
        return make_event(
            self.settings,
            at,
            id=uuid7(at),
            entity_type=kind,
            external_id=external_id,
            view_type=chance.choice(VIEW_TYPES),
            view_source=chance.choice(["web", "api", "widget"]),
            outcome=chance.choice(OUTCOMES),
            device=chance.choice(DEVICES),
            country=chance.choice(COUNTRIES),
            referrer_domain=chance.choice(REFERRERS),
            visitor=chance.choice([None, *range(-3, 4)]),
            authenticated=chance.random() < 0.4,
        )

    def _moment(self, chance: random.Random, days: int) -> datetime:
        """Now, in the last hours, at the very border of two days, or late by up to `days` days."""
        day = self._today() - timedelta(days=chance.randrange(days))
        midnight = datetime.combine(day, time(), self.settings.time_zone).astimezone(UTC)
        near = timedelta(microseconds=chance.choice([-1, 0, 1]))
        at: datetime = chance.choice(
            [
                self.now,
                self.now - timedelta(seconds=chance.uniform(0, 400)),
                self.now - timedelta(hours=chance.uniform(0, 24)),
                midnight + near,
                self.now - timedelta(days=chance.uniform(0, days)),
            ]
        )
        return min(at, self.now)

    def _send(self, what: str, events: list[ViewEvent]) -> None:
        door = self.other_door if what == "views without redis" else self.door
        taken = door.take([View(event, has_clients_id=True) for event in events], self.now)
        new = [event for event, one in zip(events, taken, strict=True) if one.status == "taken"]
        self.ledger.update((event.day, "accepted") for event in new)
        if door is self.door:
            self.queued += new
            self.sent += [(event, self.now) for event in new]
        else:
            self._stored(new)

    def _write(self) -> None:
        writer.drain(self.engine, self.redis, self.settings, "test")
        self._stored(self.queued)
        self.queued = []

    def _stored(self, events: list[ViewEvent]) -> None:
        for event in events:
            self.ledger[event.day, "settled"] += 1
            if event.day <= self.sealed:
                self.ledger[event.day, "dead_letters"] += 1
            elif event.id in self.kept:
                self.ledger[event.day, "duplicates"] += 1
            else:
                self.kept[event.id] = event

    def _drop_expired(self) -> None:
        self._write()  # what is queued for a day that goes would be shown, and never be stored
        sealed = retention.drop_expired(self.engine, self.redis, self.settings, self.now)
        self.sealed = max([self.sealed, *sealed])

    def _verify(self) -> None:
        """Whatever is half done: nothing that is stored contradicts anything else."""
        verdict = verify.audit(self.engine, self.redis, self.settings, self.now)
        assert verdict.differences == []
        assert not verdict.not_looked_at or self.queued, verdict.not_looked_at

    def look(self, days: int, chance: random.Random) -> None:
        """Compare every surface with the plain count, over `days` days."""
        self._look_at_entities(days, chance)
        self._compare(f"/api/admin/sitewide-stats?days={days}", self.plain.sitewide(days))
        self._look_at_the_sites_export(days)
        for period in ("day", "week", "month", "all"):
            kind = chance.choice(["page", "book", "post"])
            self._look_at_top(kind, period, None, 20)
            self._look_at_top(kind, period, chance.choice(VIEW_TYPES[:2]), chance.choice([1, 20, 100]))
        self._look_at_counters()
        self._look_at_ledger(days)
        self._verify()

    def _look_at_entities(self, days: int, chance: random.Random) -> None:
        plain = self.plain
        known = sorted({event.name for event in plain.events if event.entity_type != "site_event"})
        for name in chance.sample(known, min(8, len(known))):
            own = [event for event in plain.events if event.name == name]
            self._compare(f"{_url(name)}days={days}", plain.entity(name, days))
            assert self._csv(f"{_url(name, '/export.csv')}days={days}") == plain.export(own, days), name

    def _look_at_the_sites_export(self, days: int) -> None:
        pages = [event for event in self.plain.events if event.entity_type == "page"]
        assert self._csv(f"/api/admin/export.csv?days={days}") == self.plain.export(pages, days)

    def _look_at_top(self, kind: str, period: str, view_type: str | None, limit: int) -> None:
        most = self.settings.daily_retention_days
        asked = f"&view_type={view_type}" if view_type else ""
        items = self.plain.top(kind, period, view_type, limit, most)
        self._compare(f"/api/stats/top?type={kind}&period={period}&limit={limit}{asked}", {"items": items})

    def _look_at_counters(self) -> None:
        with self.engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT entity_type, external_id, view_type, count FROM view_counters"
                    " JOIN entities ON id = entity_id"
                )
            ).all()
        stored: dict[tuple[str, str], dict[str, int]] = {}
        for kind, external_id, view_type, count in rows:
            stored.setdefault((kind, external_id), {})[view_type] = count
        assert stored == self.plain.counters()
        self._look_at_shown_counts()

    def _look_at_shown_counts(self) -> None:
        """Never above what was accepted, never falling; with an empty queue exactly what is stored."""
        counts.raise_behind(self.engine, self.redis)
        queued = {event.id: event for event in self.queued}
        everything = PlainCount([*(self.kept | queued).values()], self.now, self.settings.time_zone)
        accepted = everything.counters()
        for name in CONTENT:
            shown = Counter(self.door.shown(name))
            assert self.shown[name] <= shown <= Counter(accepted.get(name)), name
            assert self.queued or shown == Counter(accepted.get(name)), name
            self.shown[name] = shown
        for book in ("b1", "b2"):
            assert self.client.get(f"/api/books/{book}/stats").json == self.shown["book", book]

    def _look_at_ledger(self, days: int) -> None:
        outcomes = Counter((event.day, event.outcome) for event in self.plain.events)
        for row in self._get(f"/api/admin/ledger?days={days}")["days"]:
            day = date.fromisoformat(row["date"])
            for tally in ("accepted", "settled", "duplicates", "dead_letters"):
                assert row[tally] == self.ledger[day, tally], (day, tally)
            assert row["rows"] == {
                outcome: outcomes[day, cast(Any, outcome)] for outcome in ("counted", "bot", "own", "repeat")
            }
            assert row["queued"] == sum(event.day == day for event in self.queued)
            assert row["balanced"] == (row["queued"] == 0), row

    def look_at_realtime(self) -> None:
        """It keeps its answer for seconds, so it is looked at once."""
        self._compare("/api/stats/realtime", self.plain.realtime())

    def _compare(self, url: str, expected: dict[str, Any]) -> None:
        answer = self._get(f"{url}&refresh=true" if "?" in url else url)
        for name, value in expected.items():
            # as text: the order is part of a ranking
            assert json.dumps(answer[name]) == json.dumps(value), (url, name)

    def _get(self, url: str) -> Any:
        response = self.client.get(url, headers=bearer(self.settings, "moderator"))
        assert response.status_code == 200, (url, response.data)
        return response.json

    def _csv(self, url: str) -> list[list[str]]:
        response = self.client.get(url, headers=bearer(self.settings, "moderator"))
        assert response.status_code == 200, (url, response.data)
        return list(csv.reader(io.StringIO(response.text)))


@pytest.mark.timeout(600)  # much for a busy machine; a quiet one takes half a minute
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes longer than looking at the steps
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    zone=st.sampled_from(ZONES), start=st.sampled_from(STARTS), retention_days=st.integers(2, 7), steps=STEPS
)
def test_every_surface_says_what_a_plain_count_says(
    postgres: tuple[Settings, Engine, Redis],
    zone: ZoneInfo,
    start: datetime,
    retention_days: int,
    steps: list[Step],
) -> None:
    made, engine, redis = postgres
    site = replace(made, time_zone=zone, raw_retention_days=retention_days, daily_retention_days=10)
    with freeze_time(start) as clock, world_of(site, engine, redis) as world:
        for step in [("views", 40, 0), *steps]:
            if step[0] == "pass":
                clock.tick(timedelta(hours=step[1], seconds=step[2]))
            world.step(step, datetime.now(UTC))
        world.step(("write", 0, 0), datetime.now(UTC))
        world.look(10, random.Random(0))
        world.look_at_realtime()


@pytest.fixture
def postgres(
    settings: Settings, engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, Engine, Redis]:
    """The servers, which each example empties."""
    # Redis stamps its entries by the real clock
    monkeypatch.setattr(retention, "OLDEST_ENTRY", timedelta(days=100_000))
    monkeypatch.setattr(verify, "WRITTEN_SECONDS", 0)  # nobody writes but a step
    monkeypatch.setattr(ranking, "HEAD", 1)  # with more there would be nobody outside the heads
    return settings, engine, redis


@contextmanager
def world_of(settings: Settings, engine: Engine, redis: Redis) -> Iterator[World]:
    """An empty system."""
    empty(engine)
    redis.flushall()
    app = create_app(settings)
    try:
        yield World(settings, engine, redis, app.test_client())
    finally:
        app.extensions[KEY].engine.dispose()
        app.extensions[KEY].redis.close()


def _url(name: tuple[str, str], suffix: str = "") -> str:
    kind, external_id = name
    return (
        f"/api/stats/page{suffix}?path={external_id}&"
        if kind == "page"
        else f"/api/stats/{kind}/{external_id}{suffix}?"
    )
