"""The dashboard and its login over HTTP: who gets in, with what, and what the answers let a browser do."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, update
from werkzeug.test import TestResponse

from api.app import create_app
from api.callers import COOKIE
from api.parts import KEY
from footfall import access
from footfall.clock import utc_now
from footfall.schema import Entity
from footfall.settings import Settings
from tests.factory import SECRET, make_event, make_settings, store
from tests.integration.api import API_KEY, API_KEY_HASH, bearer
from tests.unit import mmdb

SITE = "/mod-dashboard"
PAGES = (SITE, "/mod-dashboard/book/b1", "/mod-dashboard/page?path=/a/b", "/login", "/mod-dashboard/none/1")
NASTY = "/<script>alert(1)</script>"
FORM_OF_OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def client(settings: Settings, engine: Engine, redis: Redis) -> Iterator[FlaskClient]:
    """A client of an app with one book, Ann's, viewed once, and some pages."""
    now = datetime.now(UTC)
    book = make_event(settings, now, entity_type="book", external_id="b1")
    odd = [
        make_event(settings, now, entity_type="story", external_id="of/a series"),
        make_event(settings, now, external_id="(other)"),
        make_event(settings, now, external_id=NASTY, referrer_domain="<b>x</b>", country="DE"),
    ]
    pages = [make_event(settings, now, external_id="/a/b", visitor=visitor) for visitor in (1, 2)]
    store(engine, redis, settings, [book, *odd, *pages])
    with engine.begin() as connection:
        connection.execute(update(Entity).where(Entity.external_id == "b1").values(owner_id="ann"))
    yield from clients(settings)


def clients(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    yield app.test_client()
    app.extensions[KEY].engine.dispose()
    app.extensions[KEY].redis.close()


def token(role: str, subject: str = "mo", lifetime: timedelta = timedelta(hours=1)) -> str:
    return access.make_token(make_settings(), subject, role, utc_now(), lifetime)


def log_in(client: FlaskClient, secret: str, **form: str) -> TestResponse:
    return client.post("/login", data={"token": secret, **form}, headers=FORM_OF_OURS)


def max_age(response: TestResponse) -> int:
    cookie = response.headers["Set-Cookie"]
    return int(cookie.split("Max-Age=")[1].split(";")[0])


def test_the_anonymous_are_sent_to_the_login_and_come_back(client: FlaskClient) -> None:
    sent = client.get(f"{SITE}?range=30d&audience=authenticated")
    assert (sent.status_code, sent.location) == (
        303,
        "/login?next=/mod-dashboard?range%3D30d%26audience%3Dauthenticated",
    )
    form = client.get(sent.location)
    assert 'name="next" value="/mod-dashboard?range=30d&amp;audience=authenticated"' in form.text
    back = log_in(client, token("moderator"), next=f"{SITE}?range=30d")
    assert (back.status_code, back.location) == (303, f"{SITE}?range=30d")
    assert client.get(back.location).status_code == 200
    assert client.get("/login").location == SITE


def test_the_cookie_is_for_reading_by_this_site_only(client: FlaskClient) -> None:
    cookie = log_in(client, token("moderator")).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    secure = client.post("/login", data={"token": token("moderator")}, base_url="https://localhost")
    assert "Secure" in secure.headers["Set-Cookie"].split("; ")


def test_a_trusted_proxy_says_that_it_is_https(settings: Settings, client: FlaskClient) -> None:
    told = {"X-Forwarded-Proto": "https"}
    form = {"token": token("moderator")}
    assert "Secure" not in client.post("/login", data=form, headers=told).headers["Set-Cookie"]
    database, redis = settings.database_url, settings.redis_url
    behind = make_settings(DATABASE_URL=database, REDIS_URL=redis, FOOTFALL_TRUSTED_PROXIES="1")
    for other in clients(behind):
        assert "Secure" in other.post("/login", data=form, headers=told).headers["Set-Cookie"]


def test_the_cookie_ends_with_the_token_and_within_a_week(client: FlaskClient) -> None:
    assert 3_590 <= max_age(log_in(client, token("moderator"))) <= 3_600
    assert max_age(log_in(client, token("moderator", lifetime=timedelta(days=30)))) == 7 * 86_400
    endless = jwt.encode({"sub": "mo", "roles": ["moderator"]}, SECRET, algorithm="HS256")
    assert max_age(log_in(client, endless)) == 7 * 86_400
    beyond_floats = jwt.encode(
        {"sub": "mo", "roles": ["moderator"], "exp": 10**400}, SECRET, algorithm="HS256"
    )
    assert max_age(log_in(client, beyond_floats)) == 7 * 86_400


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("", "a token is needed"),
        ("nonsense", "does not verify"),
        (token("moderator", lifetime=timedelta(seconds=-1)), "has expired"),
        ("ffk_unknown", "the API key is not known here"),
        ("x" * 4_000, "too long"),
    ],
)
def test_a_wrong_token_gets_the_form_again(client: FlaskClient, secret: str, told: str) -> None:
    response = log_in(client, secret, next=f"{SITE}?range=30d")
    assert response.status_code == 401
    assert told in response.text
    assert "Set-Cookie" not in response.headers
    assert "range=30d" in response.text
    assert not secret or secret not in response.text


def test_an_api_key_is_not_for_people(settings: Settings, client: FlaskClient) -> None:
    known = make_settings(
        DATABASE_URL=settings.database_url, REDIS_URL=settings.redis_url, FOOTFALL_API_KEY_HASHES=API_KEY_HASH
    )
    for other in clients(known):
        response = log_in(other, API_KEY)
        assert (response.status_code, "for servers" in response.text) == (401, True)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/api/health",
        "/mod-dashboardish",
        "/mod-dashboard@evil.example",
        "/mod-dashboard\r\nX: y",
        "javascript:alert(1)",
        "\t//evil.example/mod-dashboard",
        "",
    ],
)
def test_a_login_never_leads_elsewhere(client: FlaskClient, elsewhere: str) -> None:
    assert log_in(client, token("moderator"), next=elsewhere).location == SITE


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_form_neither_logs_in_nor_out(client: FlaskClient, headers: dict[str, str]) -> None:
    for url in ("/login", "/logout"):
        response = client.post(url, data={"token": token("moderator")}, headers=headers)
        assert response.status_code == 403
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "none"}])
def test_logging_out_forgets_the_cookie(client: FlaskClient, headers: dict[str, str]) -> None:
    log_in(client, token("moderator"))
    out = client.post("/logout", headers=headers)
    assert (out.status_code, out.location, max_age(out)) == (303, "/login", 0)
    assert client.get_cookie(COOKIE) is None
    assert client.get(SITE).status_code == 303


def test_logging_out_is_no_link(client: FlaskClient) -> None:
    log_in(client, token("moderator"))
    assert client.get("/logout").status_code == 405
    assert client.get(SITE).status_code == 200


def test_no_token_is_taken_from_an_address(client: FlaskClient) -> None:
    for url in ("/login", SITE, "/api/admin/sitewide-stats"):
        client.get(f"{url}?token={token('moderator')}")
        assert client.get_cookie(COOKIE) is None
    assert client.get(f"{SITE}?{COOKIE}={token('moderator')}").status_code == 303


def test_the_cookie_reads_and_nothing_else(client: FlaskClient) -> None:
    log_in(client, token("admin", "ada"))
    for url in (
        "/api/admin/sitewide-stats",
        "/api/stats/realtime",
        "/api/stats/book/b1",
        "/api/admin/export.csv",
    ):
        assert client.get(url).status_code == 200
    assert client.post("/api/views/flush").status_code == 401
    assert client.put("/api/entities/book/b1", json={}).status_code == 401
    assert client.delete("/api/entities/book/b1").status_code == 401
    assert client.post("/api/track/batch", json={"events": []}).status_code == 401


def test_a_header_goes_before_the_cookie(client: FlaskClient, settings: Settings) -> None:
    log_in(client, token("moderator"))
    stranger = bearer(settings, "user", "bob")
    assert client.get("/api/admin/sitewide-stats", headers=stranger).status_code == 403
    assert client.get("/api/admin/sitewide-stats", headers={"Authorization": "Bearer x"}).status_code == 401


def test_tracking_does_not_look_at_the_cookie(client: FlaskClient) -> None:
    client.set_cookie(COOKIE, "nonsense")
    assert client.post("/api/track/page-view", json={"path": "/"}).status_code == 204
    client.set_cookie(COOKIE, token("user", "ann"))
    assert client.post("/api/books/b1/track-view", json={"viewType": "card_view"}).status_code == 401


def test_an_ended_session_is_told_at_the_login(client: FlaskClient) -> None:
    client.set_cookie(COOKIE, token("moderator", lifetime=timedelta(seconds=-5)))
    sent = client.get(SITE)
    assert sent.status_code == 303
    assert "session has ended" in client.get(sent.location).text


def test_who_is_no_moderator_sees_why_in_html(client: FlaskClient) -> None:
    log_in(client, token("user", "bob"))
    for url in (SITE, "/mod-dashboard/book/b1", "/mod-dashboard/book/none", "/mod-dashboard/page?path=/a/b"):
        response = client.get(url)
        assert (response.status_code, response.mimetype) == (403, "text/html")
    foreign, unknown = (client.get(f"/mod-dashboard/book/{book}").data for book in ("b1", "none"))
    assert foreign == unknown


def test_an_owner_sees_what_is_theirs(client: FlaskClient) -> None:
    log_in(client, token("user", "ann"))
    response = client.get("/mod-dashboard/book/b1")
    assert response.status_code == 200
    assert "The whole site" not in response.text


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/mod-dashboard/book/none", 404),
        ("/mod-dashboard/nothing", 404),
        ("/mod-dashboard/page", 400),
        (f"{SITE}?range=8d", 400),
        (f"{SITE}?audience=x", 400),
        (f"{SITE}?type=x", 400),
        (f"{SITE}?q=%00", 400),
    ],
)
def test_errors_of_pages_are_pages(client: FlaskClient, url: str, status: int) -> None:
    log_in(client, token("moderator"))
    response = client.get(url)
    assert (response.status_code, response.mimetype) == (status, "text/html")
    assert client.get("/api/none").mimetype == "application/json"


def test_every_page_has_a_strict_policy_and_is_not_kept(client: FlaskClient) -> None:
    log_in(client, token("moderator"))
    for url in PAGES:
        response = client.get(url)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert " style=" not in response.text
        assert "<script>" not in response.text
        assert "http://" not in response.text.replace("http://localhost/", "").replace(
            "http://www.w3.org", ""
        )


def test_what_visitors_send_is_text(client: FlaskClient) -> None:
    log_in(client, token("moderator"))
    for url in (SITE, f"/mod-dashboard/page?path={NASTY}", f"{SITE}?q={NASTY}"):
        text = client.get(url).text
        assert "<script>alert" not in text
        assert "<b>x" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_odd_names_are_linked_where_they_have_a_page(client: FlaskClient) -> None:
    log_in(client, token("moderator"))
    stories = client.get(f"{SITE}?type=story").text
    assert 'href="/mod-dashboard/story/of/a%20series?' in stories
    assert client.get("/mod-dashboard/story/of/a%20series").status_code == 200
    assert "path=(other)" not in client.get(SITE).text
    assert "path=%28other%29" not in client.get(SITE).text


def test_a_site_without_views_says_how_to_send_one(settings: Settings, engine: Engine, redis: Redis) -> None:
    for client in clients(settings):
        log_in(client, token("moderator"))
        text = client.get(SITE).text
        assert "No views in this range" in text
        assert "curl http://localhost/api/track/page-view" in text
        assert "Nobody is reading anything" in text


def test_cards_compare_with_the_range_before(settings: Settings, engine: Engine, redis: Redis) -> None:
    now = datetime.now(UTC)
    ages = (
        [3] * 3 + [10] * 2 + [7]
    )  # days; the last one is of the day that today is compared with, so of none
    store(engine, redis, settings, [make_event(settings, now - timedelta(days=age)) for age in ages])
    for client in clients(settings):
        log_in(client, token("moderator"))
        for url in (f"{SITE}?range=7d", "/mod-dashboard/page?path=/&range=7d"):
            text = client.get(url).text
            assert text.count("+50 %") == 1
            assert "vs 7 days before" in text


def test_shorter_retention_offers_fewer_ranges(settings: Settings, engine: Engine, redis: Redis) -> None:
    short = make_settings(
        DATABASE_URL=settings.database_url,
        REDIS_URL=settings.redis_url,
        FOOTFALL_RAW_RETENTION_DAYS="3",
        FOOTFALL_DAILY_RETENTION_DAYS="5",
    )
    for client in clients(short):
        log_in(client, token("moderator"))
        text = client.get(SITE).text
        assert "7 days" not in text
        assert client.get(f"{SITE}?range=7d").status_code == 400


def test_stores_that_are_away_are_told_as_a_page(redis_url: str) -> None:
    away = make_settings(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", REDIS_URL=redis_url)
    for client in clients(away):
        log_in(client, token("moderator"))
        response = client.get(SITE)
        assert (response.status_code, response.mimetype) == (503, "text/html")
        assert response.headers["Retry-After"] == "5"
        assert "Try again" in response.text


def test_static_files_are_kept_until_they_change(client: FlaskClient) -> None:
    form = client.get("/login").text
    for name, kind in (
        ("dashboard.css", "text/css"),
        ("dashboard.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        url = next(part for part in form.split('"') if part.startswith(f"/static/{name}?v="))
        response = client.get(url, buffered=True)
        assert (response.status_code, response.mimetype) == (200, kind)
        assert response.headers["Cache-Control"] == "public, max-age=86400"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        again = client.get(url, headers={"If-None-Match": response.headers["ETag"]}, buffered=True)
        assert (again.status_code, again.data) == (304, b"")
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/none.css").status_code == 404


@pytest.mark.parametrize(("name", "is_named"), [("dbip-country.mmdb", True), ("other.mmdb", False)])
def test_whose_countries_they_are_is_said_where_they_are_shown_and_only_for_that_file(
    settings: Settings, client: FlaskClient, tmp_path: Path, name: str, is_named: bool
) -> None:
    mmdb.write(tmp_path / name, "8.8.8.8", {"country_code": "US"})
    link = '<a href="https://db-ip.com" rel="noopener noreferrer">DB-IP</a>'
    for app in clients(replace(settings, country_file=tmp_path / name)):
        log_in(app, token("moderator"))
        for page in (SITE, "/mod-dashboard/book/b1"):
            assert (link in app.get(page).text) is is_named
    log_in(client, token("moderator"))
    assert "db-ip.com" not in client.get(SITE).text
