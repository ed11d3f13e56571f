"""The reading and operating endpoints: who may ask, for what, and in which words they are refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, update

from api.app import create_app
from api.parts import KEY
from footfall.schema import Entity
from footfall.settings import Settings
from tests.factory import make_event, make_settings, store
from tests.integration.api import SERVICE, bearer

SITEWIDE = "/api/admin/sitewide-stats"
BOOK = "/api/stats/book/b1"


@pytest.fixture
def client(settings: Settings, engine: Engine, redis: Redis) -> Iterator[FlaskClient]:
    """A client of an app with one book, Ann's, viewed once, and one page, viewed twice."""
    now = datetime.now(UTC)
    book = make_event(settings, now, entity_type="book", external_id="b1")
    pages = [make_event(settings, now, external_id="/a/b", visitor=visitor) for visitor in (1, 2)]
    store(engine, redis, settings, [book, *pages])
    with engine.begin() as connection:
        connection.execute(update(Entity).where(Entity.external_id == "b1").values(owner_id="ann"))
    app = create_app(settings)
    yield app.test_client()
    app.extensions[KEY].engine.dispose()
    app.extensions[KEY].redis.close()


def test_the_owner_and_moderators_read_an_entity(client: FlaskClient, settings: Settings) -> None:
    for role, subject in (("user", "ann"), ("moderator", "mo"), ("admin", "ada")):
        response = client.get(BOOK, headers=bearer(settings, role, subject))
        assert response.status_code == 200
        assert response.json is not None
        assert response.json["total_views"] == 1
        assert len(response.json["daily_views"]) == 30


def test_a_page_is_named_by_its_path(client: FlaskClient, settings: Settings) -> None:
    response = client.get("/api/stats/page?path=/a/b%3Fq&days=2", headers=bearer(settings, "moderator"))
    assert response.status_code == 200
    assert response.json is not None
    assert (response.json["total_views"], response.json["visitor_days"]) == (2, 2)
    assert len(response.json["daily_views"]) == 2


def test_others_learn_nothing_of_what_exists(client: FlaskClient, settings: Settings) -> None:
    stranger = bearer(settings, "user", "bob")
    answers = [
        client.get(url, headers=stranger)
        for url in (BOOK, "/api/stats/book/none", "/api/stats/page?path=/a/b", "/api/stats/nothing/1")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.data for answer in answers}) == 1


def test_moderators_are_told_what_is_unknown(client: FlaskClient, settings: Settings) -> None:
    for url in ("/api/stats/book/none", "/api/stats/page?path=/none", "/api/stats/site/site"):
        response = client.get(url, headers=bearer(settings, "moderator"))
        assert (response.status_code, response.json and response.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("url", [BOOK, SITEWIDE, "/api/stats/page?path=/a/b"])
def test_the_anonymous_are_401(client: FlaskClient, url: str) -> None:
    assert client.get(url).status_code == 401


@pytest.mark.parametrize("days", ["0", "31", "-1", "x", "", "1.5", "٣"])
@pytest.mark.parametrize("url", [BOOK + "?", SITEWIDE + "?", "/api/stats/page?path=/a/b&"])
def test_days_are_within_what_is_kept(client: FlaskClient, settings: Settings, url: str, days: str) -> None:
    response = client.get(f"{url}days={days}", headers=bearer(settings, "moderator"))
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"].startswith("days: ")


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("/api/stats/page", "path"),
        ("/api/stats/page?path=a", "path"),
        ("/api/stats/page?path=/%00", "path"),
        ("/api/stats/book/%00", "entity_id"),
        (f"/api/stats/book/{'x' * 256}", "entity_id"),
    ],
)
def test_a_name_that_cannot_be_is_400(client: FlaskClient, settings: Settings, url: str, field: str) -> None:
    response = client.get(url, headers=bearer(settings, "moderator"))
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"].startswith(f"{field}: ")


def test_the_whole_site_is_for_moderators(client: FlaskClient, settings: Settings) -> None:
    response = client.get(SITEWIDE, headers=bearer(settings, "moderator"))
    assert response.status_code == 200
    assert response.json is not None
    assert (response.json["total_page_views"], response.json["visitor_days"]) == (2, 2)
    for headers in (bearer(settings, "user"), bearer(settings, "service")):
        assert client.get(SITEWIDE, headers=headers).status_code == 403


def test_an_unknown_api_key_is_401(client: FlaskClient) -> None:
    assert client.get(SITEWIDE, headers=SERVICE).status_code == 401


def test_health_needs_no_store() -> None:
    response = create_app(make_settings()).test_client().get("/api/health")
    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_readiness_shows_every_check_and_the_countries(client: FlaskClient) -> None:
    response = client.get("/api/health/ready")
    assert response.json is not None
    assert response.status_code == (200 if response.json["ready"] else 503)
    assert {"database", "redis", "schema", "queue", "rollup", "countries"} <= set(response.json["checks"])
    assert response.json["checks"]["database"]["ok"]
    assert response.json["checks"]["countries"]["source"] == "none"


def test_readiness_is_503_without_the_stores_and_names_a_bad_country_file(tmp_path: Path) -> None:
    settings = make_settings(
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", FOOTFALL_COUNTRY_FILE=str(tmp_path / "none")
    )
    response = create_app(settings).test_client().get("/api/health/ready")
    assert response.status_code == 503
    assert response.json is not None
    checks = response.json["checks"]
    assert not checks["database"]["ok"]
    assert not checks["redis"]["ok"]
    assert "cannot be opened" in checks["countries"]["problem"]
