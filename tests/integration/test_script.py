"""The script, the badge and the demo site over HTTP: what a browser, a CDN and another site are told."""

from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import jwt
import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine

from api import pages
from footfall.settings import Settings
from tests.integration.content import Site, site_on

ELSEWHERE = {"Origin": "https://elsewhere.example"}
COURSE = "contentType=course&contentId=c1"


@pytest.fixture
def demo(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Site]:
    """A process with the demo site."""
    with site_on(replace(settings, demo_site=True), engine, redis) as site:
        yield site


def versioned(client: FlaskClient) -> str:
    return client.get("/footfall.js").headers["Content-Location"]


def test_the_script_may_be_loaded_by_any_site_and_cached_by_anybody(site: Site) -> None:
    alone, from_elsewhere = (site.client.get("/footfall.js", headers=headers) for headers in ({}, ELSEWHERE))
    assert alone.status_code == 200
    assert alone.mimetype == "text/javascript"
    assert alone.data == (pages.STATIC / "footfall.js").read_bytes()
    assert dict(alone.headers) | {"Date": ""} == dict(from_elsewhere.headers) | {"Date": ""}
    assert alone.headers["Access-Control-Allow-Origin"] == "*"
    assert alone.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert alone.headers["X-Content-Type-Options"] == "nosniff"
    assert "Vary" not in alone.headers
    assert "Set-Cookie" not in alone.headers
    assert "max-age=3600" in alone.headers["Cache-Control"]


def test_an_unchanged_script_is_not_sent_again(site: Site) -> None:
    first = site.client.get("/footfall.js")
    again = site.client.get("/footfall.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    other = site.client.get("/footfall.js", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


def test_the_versioned_script_never_changes(site: Site) -> None:
    response = site.client.get(versioned(site.client))
    assert response.status_code == 200
    assert response.data == site.client.get("/footfall.js").data
    assert "immutable" in response.headers["Cache-Control"]


def test_a_version_of_before_an_upgrade_leads_to_the_current_script(site: Site) -> None:
    response = site.client.get("/footfall.0123456789.js")
    assert response.status_code == 302
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    followed = site.client.get("/footfall.0123456789.js", follow_redirects=True)
    assert followed.data == site.client.get("/footfall.js").data


@pytest.mark.parametrize("path", ["/footfall.js", "/footfall.0123456789.js"])
def test_the_script_is_only_read(site: Site, path: str) -> None:
    assert site.client.post(path).status_code == 405
    assert site.client.head(path).status_code in (200, 302)


def test_a_badge_shows_the_count_and_counts_nothing(site: Site) -> None:
    for _ in range(3):
        site.track("/api/views", {"contentType": "course", "contentId": "c1"})
    for _ in range(2):
        response = site.client.get(f"/api/views/badge.svg?{COURSE}", headers=ELSEWHERE)
        assert response.status_code == 200
        assert response.mimetype == "image/svg+xml"
        assert texts(response.data) == ["views: 3", "views", "3"]
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'"
    assert "max-age=60" in response.headers["Cache-Control"]


def test_a_badge_is_well_formed_whatever_its_label(site: Site) -> None:
    nasty = '"><script>alert(1)</script>&{width}'
    response = site.client.get(
        "/api/views/badge.svg",
        query_string={"contentType": "course", "contentId": "none yet", "label": nasty},
    )
    assert texts(response.data) == [f"{nasty}: 0", nasty, "0"]
    assert b"<script" not in response.data


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("contentType=book&contentId=b1", "contentType"),
        ("contentType=course", "contentId"),
        (f"{COURSE}&label={'x' * 41}", "label"),
        (f"{COURSE}&label=a%00b", "label"),
    ],
)
def test_a_wrong_badge_says_what_is_wrong(site: Site, query: str, field: str) -> None:
    response = site.client.get(f"/api/views/badge.svg?{query}")
    assert response.status_code == 400
    assert response.json is not None
    assert field in response.json["error"]


@pytest.mark.parametrize("path", ["/demo", "/demo/knots", "/demo/counts", "/demo/token"])
def test_without_the_setting_there_is_no_demo_site(site: Site, path: str) -> None:
    assert site.client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["", "/tides", "/lighthouse", "/knots", "/about"])
def test_the_pages_of_the_demo_site_carry_the_script(demo: Site, path: str) -> None:
    response = demo.client.get(f"/demo{path}")
    assert response.status_code == 200
    assert '<script defer src="/footfall.js"></script>' in response.text
    assert response.headers["Cache-Control"] == "no-cache", "so that going back is going back"
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]


def test_an_unknown_page_of_the_demo_site_is_a_page_that_says_so(demo: Site) -> None:
    response = demo.client.get("/demo/none")
    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_the_demo_site_tells_what_was_counted_on_it(demo: Site) -> None:
    demo.track("/api/track/view", {"entity_type": "course", "entity_id": "demo-knots"})
    demo.send("/api/track/page-view", {"path": "/demo/knots"})
    demo.write()
    counted = demo.client.get("/demo/counts").json
    assert counted == {
        "page /demo": 0,
        "page /demo/tides": 0,
        "page /demo/lighthouse": 0,
        "page /demo/knots": 1,
        "page /demo/about": 0,
        "book demo-tides": 0,
        "story demo-lighthouse": 0,
        "course demo-knots": 1,
    }


def test_the_reader_of_the_demo_site_may_be_counted_and_nothing_else(demo: Site) -> None:
    token = (demo.client.get("/demo/token").json or {})["token"]
    signed = {"Authorization": f"Bearer {token}"}
    book = {"entity_type": "book", "entity_id": "demo-tides", "view_type": "reader_open"}
    assert demo.client.post("/api/track/view", json=book).status_code == 401
    assert demo.client.post("/api/track/view", json=book, headers=signed).status_code == 200
    assert jwt.decode(token, options={"verify_signature": False})["roles"] == []
    for path in ("/api/admin/sitewide-stats", "/api/stats/book/demo-tides", "/api/admin/ledger"):
        assert demo.client.get(path, headers=signed).status_code == 403


def test_where_tokens_are_signed_elsewhere_the_demo_site_has_no_reader(
    settings: Settings, engine: Engine, redis: Redis
) -> None:
    with site_on(replace(settings, demo_site=True, jwt_secret=None), engine, redis) as site:
        assert site.client.get("/demo/token").status_code == 404
        assert "signed-in" not in site.client.get("/demo").text


def texts(svg: bytes) -> list[str]:
    """What is written in a picture."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - of ours, and small
    return [element.text or "" for element in root.iter() if (element.text or "").strip()]
