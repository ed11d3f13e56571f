"""Views of content as the tests send them: browsers and users in front of one process, on either store."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.app import create_app
from api.parts import KEY
from footfall import stream, writer
from footfall.settings import Settings
from tests.factory import EVENTS
from tests.integration.api import ADDRESS, API_KEY_HASH, FIREFOX, SERVICE, bearer

# Tables that say something about an entity; `entities` itself keeps the name, to refuse what comes late
TABLES = (
    "view_events",
    "view_counters",
    "daily_stats",
    "seen_visitors",
    "seen_runs",
    "view_slots",
    "shown_behind",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tracking request was answered."""

    status: int
    outcome: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """One process of the API, and the stores behind it."""

    client: FlaskClient
    settings: Settings
    engine: Engine
    redis: Redis

    def send(
        self,
        url: str,
        body: object = None,
        *,
        user: str | None = None,
        address: str = ADDRESS,
        agent: str = FIREFOX,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """POST as a browser at `address`, signed in as `user` if given."""
        signed = bearer(self.settings, "user", user) if user else {}
        return self.client.post(
            url,
            json=body,
            headers={"User-Agent": agent, **signed, **(headers or {})},
            environ_overrides={"REMOTE_ADDR": address},
        )

    def track(self, url: str, body: object = None, **who: Any) -> Answer:
        """The same, read."""
        response = self.send(url, body, **who)
        return Answer(response.status_code, response.headers.get("X-View-Outcome"), response.json or {})

    def story(self, story: str = "s1", **options: Any) -> tuple[bool, int, str | None]:
        """A view of a story; is it a first view, how many views, the outcome. `id` is the view's."""
        body = {"id": options.pop("id")} if "id" in options else None
        answer = self.track(f"/api/stories/{story}/view", body, **options)
        assert answer.status == 200, answer
        return answer.body["isFirstView"], answer.body["viewCount"], answer.outcome

    def tell(self, entity: str, **body: object) -> dict[str, Any]:
        """PUT what the host site knows of `<type>/<id>`."""
        response = self.client.put(f"/api/entities/{entity}", json=body, headers=SERVICE)
        assert response.status_code == 200, response.data
        answer: dict[str, Any] = response.json or {}
        return answer

    def erase(self, entity: str) -> int:
        """DELETE `<type>/<id>`; the status."""
        return self.client.delete(f"/api/entities/{entity}", headers=SERVICE).status_code

    def batch(self, *events: Mapping[str, object]) -> dict[str, Any]:
        """A server's batch, each event by a browser of its own unless it says otherwise."""
        described = [
            {"ip": f"198.51.100.{n % 250}", "user_agent": FIREFOX, **event} for n, event in enumerate(events)
        ]
        response = self.client.post("/api/track/batch", json={"events": described}, headers=SERVICE)
        assert response.status_code == 200, response.data
        answer: dict[str, Any] = response.json or {}
        return answer

    def write(self) -> writer.Written:
        """Write what is queued, as the next tick would."""
        return writer.drain(self.engine, self.redis, self.settings, "test")

    def shown(self, book: str) -> dict[str, int]:
        """What is shown of a book, by view type."""
        response = self.client.get(f"/api/books/{book}/stats")
        assert response.status_code == 200, response.data
        answer: dict[str, int] = response.json or {}
        return answer

    def rows(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def counters(self) -> dict[tuple[str, str, str], int]:
        """{(type, id, view type): count} of all counters."""
        found = self.rows(
            "SELECT entity_type, external_id, view_type, count"
            " FROM view_counters c JOIN entities e ON e.id = c.entity_id"
        )
        return {(kind, name, view_type): count for kind, name, view_type, count in found}

    def outcomes(self) -> list[str]:
        """The outcomes of all stored events, in alphabetical order."""
        return [outcome for (outcome,) in self.rows(f"SELECT outcome FROM {EVENTS} AS v ORDER BY 1")]

    def left_of(self, entity_type: str, external_id: str) -> dict[str, int]:
        """How many rows each table still has of an entity; those that have none do not appear."""
        found = {
            table: self.rows(
                f"SELECT count(*) FROM {table} WHERE entity_id IN"
                " (SELECT id FROM entities WHERE entity_type = :type AND external_id = :id)",
                type=entity_type,
                id=external_id,
            )[0][0]
            for table in TABLES
        }
        return {table: count for table, count in found.items() if count}

    def tallies(self) -> dict[str, int]:
        """The ledger's tallies of all days in Redis."""
        totals: dict[str, int] = {}
        for name, amount in stream.ledger(self.redis).items():
            tally = name.partition(":")[2]
            totals[tally] = totals.get(tally, 0) + amount
        return totals


Open = Callable[..., Site]  # of settings to replace


@contextmanager
def site_on(settings: Settings, engine: Engine, redis: Redis, **changes: Any) -> Iterator[Site]:
    """A process with some settings replaced."""
    changed = replace(settings, api_key_hashes=frozenset({API_KEY_HASH}), **changes)
    app = create_app(changed)
    try:
        yield Site(app.test_client(), changed, engine, redis)
    finally:
        app.extensions[KEY].engine.dispose()
        app.extensions[KEY].redis.close()
