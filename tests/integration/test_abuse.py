"""What is sent to harm: floods of made-up names, and words meant for SQL, a page, a header, a sheet."""

import csv
import io
import logging
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from api.callers import COOKIE
from footfall import rollup
from footfall.clock import site_day, utc_now
from footfall.content_types import CONTENT_TYPES
from footfall.entities import OVERFLOW_PAGE
from footfall.export import FORMULA_STARTS
from tests.factory import EVENTS
from tests.integration.api import FIREFOX, SERVICE, bearer
from tests.integration.content import Open, Site

FLOOD = 100_000
MEBIBYTE = 2**20
SPAM = (
    "<script>alert(1)",
    "\"><img src=x onerror=alert(1)>",
    "=cmd|' C calc'!A0",
    "@SUM(1+1)*cmd",
    "'; DROP TABLE view_events; --",
    "1' OR '1'='1",
    "{{7*7}}${7*7}#{7*7}<%= 7*7 %>",
    "{0.__class__}%(asctime)s%s%n",
    "javascript:alert(1)",
    "\u202egpj.exe",
    "]]>",
    "\\\"$(id)`id`",
)  # fmt: skip


def resident_bytes() -> int:
    """What this process holds of the memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(site: Site, first: int, last: int) -> None:
    """Views of made-up pages by one server's batches, written at once."""
    for start in range(first, last, 1_000):
        events = [
            {
                "entity_type": "page",
                "entity_id": f"/made-up/{number}",
                "referrer": f"https://spam{number}.example/",
                "ip": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                "user_agent": f"{FIREFOX} {number if number % 20 == 0 else 0}",
            }
            for number in range(start, start + 1_000)
        ]
        answer = site.client.post("/api/track/batch", json={"events": events}, headers=SERVICE)
        assert (answer.json or {})["accepted"] == 1_000
        site.write()


def test_a_flood_of_made_up_pages_fills_neither_tables_nor_memory(open_site: Open) -> None:
    """Only the raw events are as many as the requests, and they go after a week."""
    cap = 500
    site = open_site(new_entities_per_day=cap)
    flood(site, 0, 20_000)
    before = resident_bytes()
    flood(site, 20_000, FLOOD)
    grown = resident_bytes() - before
    assert grown < 32 * MEBIBYTE, f"{grown / MEBIBYTE:.0f} MiB"
    assert site.rows("SELECT count(*) FROM view_events") == [(FLOOD,)]
    pages = site.rows("SELECT count(*) FROM entities WHERE entity_type = 'page'")[0][0]
    assert cap <= pages <= cap + 1
    assert site.rows("SELECT count(*) FROM view_counters")[0][0] <= cap + 2
    now = utc_now()
    rollup.roll_up(site.engine, site_day(now, site.settings.time_zone), now)
    assert site.rows("SELECT count(*) FROM daily_stats")[0][0] <= cap + 2
    (row,) = site.rows(
        "SELECT d.views FROM daily_stats d JOIN entities e ON e.id = d.entity_id WHERE e.external_id = :name",
        name=OVERFLOW_PAGE,
    )
    assert row == (FLOOD - cap,)
    assert site.redis.dbsize() < 20


def test_a_flood_of_made_up_content_is_refused_and_leaves_no_keys(open_site: Open) -> None:
    cap = 20
    site = open_site(new_entities_per_day=cap)
    for number in range(cap):
        site.story(f"real {number}")
    site.write()
    keys = site.redis.dbsize()
    before = resident_bytes()
    for number in range(1_000):
        event_id = f"00000000-0000-4000-8000-{number:012}"
        assert site.track(f"/api/stories/made-up-{number}/view", {"id": event_id}).status == 429
    assert site.redis.dbsize() <= keys
    assert resident_bytes() - before < 16 * MEBIBYTE
    assert site.rows("SELECT count(*) FROM entities WHERE entity_type = 'story'") == [(cap,)]
    assert site.story("real 1", agent=f"{FIREFOX} other")[0], "what is known goes on"


@pytest.fixture
def spammed(site: Site) -> Site:
    """A site in which every text that can be sent is spam."""
    for spam in SPAM:
        story = quote(spam, safe="")
        view = {"entity_type": "story", "entity_id": spam, "referrer": f"https://{spam}/"}
        assert site.send("/api/track/view", view).status_code == 200
        path = {"path": f"/{spam}", "referrer": spam}
        assert site.send("/api/track/page-view", path, headers={"Origin": spam}).status_code == 204
        told = {"title": spam, "owner_id": spam, "engagement": {"reactions": {spam: 1}, "comments": 1}}
        for entity in (f"story/{story}", f"page?path=/{story}"):
            assert site.client.put(f"/api/entities/{entity}", json=told, headers=SERVICE).status_code == 200
        event = {"event_type": "error", "detail": spam, "user_id": spam, "user_agent": spam}
        assert site.client.post("/api/track/event", json=event, headers=SERVICE).status_code == 202
    site.write()
    return site


def test_spam_is_kept_as_text_and_is_nothing_else(spammed: Site) -> None:
    found = {name for (name,) in spammed.rows("SELECT external_id FROM entities")}
    assert {*SPAM, *(f"/{spam}".partition("#")[0].partition("?")[0] for spam in SPAM)} <= found
    assert {title for (title,) in spammed.rows("SELECT title FROM entities WHERE title IS NOT NULL")} == {
        *SPAM
    }
    referrers = spammed.rows("SELECT DISTINCT referrer_domain FROM view_events")
    assert {*referrers} == {(None,), ("javascript",)}, "else no spam is the name of a host"
    classes = spammed.rows(f"SELECT view_type FROM {EVENTS} AS v WHERE view_source = 'api'")
    assert all(set(view_type) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") for (view_type,) in classes)


def test_no_page_shows_spam_as_anything_but_text(spammed: Site) -> None:
    spammed.client.set_cookie(COOKIE, bearer(spammed.settings, "moderator")["Authorization"][7:])
    pages = ["/mod-dashboard", *(f"/mod-dashboard?type={name}" for name in CONTENT_TYPES)]
    for spam in SPAM:
        story = quote(spam, safe="")
        pages += [
            f"/mod-dashboard/story/{story}",
            f"/mod-dashboard/page?path=/{story}",
            f"/mod-dashboard?q={story}",
            f"/mod-dashboard?range={story}",
            f"/mod-dashboard/{story}",
            f"/login?next={story}",
            f"/api/views/badge.svg?contentType=course&contentId=1&label={story[:60]}",
        ]
    for url in pages:
        answer = spammed.client.get(url)
        assert answer.status_code in (200, 303, 400, 404), url
        shown = answer.text
        assert "<script>alert" not in shown, url
        assert "<img src=x" not in shown, url
        assert 'href="javascript:' not in shown, url
        assert "49" not in shown.replace("7*7", "") or "{{7*7}}" not in url, url
        assert "<class" not in shown, url
        if answer.mimetype == "image/svg+xml":
            ET.fromstring(shown)  # noqa: S314 - our own drawing
    assert spammed.rows("SELECT count(*) > 0 FROM view_events") == [(True,)]


def test_json_and_csv_carry_spam_without_becoming_it(spammed: Site) -> None:
    moderator = bearer(spammed.settings, "moderator")
    seen = 0
    for spam in SPAM:
        story = quote(spam, safe="")
        for name in (f"story/{story}", f"page?path=/{story}"):
            answer = spammed.client.get(f"/api/stats/{name}", headers=moderator)
            assert (answer.status_code, answer.mimetype) == (200, "application/json")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert (answer.json or {})["total_views"] == 1
            assert list((answer.json or {})["reactions_by_emoji"]) == [spam]
        export = spammed.client.get(f"/api/stats/story/{story}/export.csv", headers=moderator)
        assert export.headers["Content-Disposition"].startswith('attachment; filename="footfall-')
        assert spam not in export.headers["Content-Disposition"]
        for row in csv.reader(io.StringIO(export.text, newline="")):
            assert not [cell for cell in row if cell.startswith(FORMULA_STARTS)]
            seen += 1
    assert seen > len(SPAM)
    top = spammed.client.get("/api/stats/top?type=story&period=day&limit=50", headers=moderator).json or {}
    assert {item["title"] for item in top["items"]} == {*SPAM}


def test_what_is_sent_in_a_query_is_no_sql(spammed: Site) -> None:
    moderator = bearer(spammed.settings, "moderator")
    before = spammed.rows("SELECT count(*) FROM view_events")
    for spam in SPAM:
        word = quote(spam, safe="")
        for url in (
            f"/api/stats/top?type={word}",
            f"/api/stats/top?type=story&period={word}",
            f"/api/stats/top?type=story&view_type={word}",
            f"/api/stats/top?type=story&limit={word}",
            f"/api/stats/page?path=/none{word}",
            f"/api/stats/story/1?days={word}",
            f"/api/admin/sitewide-stats?days={word}",
            f"/api/admin/ledger?days={word}",
            f"/api/books/{word}/stats",
            f"/api/views?contentId={word}&contentType={word}",
        ):
            assert spammed.client.get(url, headers=moderator).status_code in (200, 400, 404), url
    assert spammed.rows("SELECT count(*) FROM view_events") == before


def test_logs_repeat_nothing_that_was_sent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    forged = "made-up\nERROR forged line"
    for spam in (*SPAM, forged):
        site.send(
            "/api/track/page-view", {"path": f"/{spam}", "referrer": spam}, agent=spam.replace("\n", " ")
        )
        site.send("/api/track/view", {"entity_type": spam, "entity_id": spam})
        site.send("/api/track/page-view", {"path": spam}, headers={"Authorization": f"Bearer {spam[:7]}"})
    site.write()
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert not [spam for spam in (*SPAM, forged) if spam in logged]


@pytest.mark.parametrize("made_up", ["a%0d%0aX-Made-Up:%201", "a%0aX-Made-Up:%201", "a%00", "a%c2%85b"])
def test_no_name_becomes_a_header(site: Site, made_up: str) -> None:
    assert site.send(f"/api/stories/{made_up}/view").status_code == 400
    site.client.set_cookie(COOKIE, bearer(site.settings, "moderator")["Authorization"][7:])
    for url in (
        f"/mod-dashboard/story/{made_up}",
        f"/mod-dashboard?q={made_up}",
        f"/login?next=/mod-dashboard{made_up}",
        f"/api/stats/story/{made_up}/export.csv",
        f"/footfall.{made_up}.js",
        f"/static/{made_up}",
    ):
        answer = site.client.get(url)
        assert "X-Made-Up" not in answer.headers, url
        assert not [value for value in answer.headers.values() if "\n" in value or "\r" in value], url
    site.client.delete_cookie(COOKIE)
    sent = site.client.get(f"/mod-dashboard/story/{made_up}")
    assert "\n" not in sent.headers.get("Location", "")


def test_every_answer_says_that_it_is_what_it_says(open_site: Open) -> None:
    """Also errors, preflights, and what has no body."""
    site = open_site(demo_site=True)
    rules = [rule for rule in site.client.application.url_map.iter_rules() if "{" not in rule.rule]
    for rule in rules:
        url = rule.rule.replace("<path:", "<").replace("<", "").replace(">", "")
        for method in sorted((rule.methods or set()) - {"HEAD"}):
            answer = site.client.open(url, method=method)
            assert answer.headers["X-Content-Type-Options"] == "nosniff", (method, url)
            if answer.mimetype == "text/html" and answer.status_code not in (301, 302, 303, 308):
                policy = answer.headers["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in policy, (method, url)
                assert "base-uri 'none'" in policy
                assert "form-action 'self'" in policy
                assert "unsafe" not in policy


def test_a_stranger_learns_nothing_from_errors(site: Site, engine: Engine, redis: Redis) -> None:
    """No versions, no paths of files, no SQL."""
    for url in (
        "/api/none",
        "/mod-dashboard/none",
        "/api/stats/story/1?days=x",
        "/metrics",
        "/static/../app.py",
    ):
        answer = site.client.get(url)
        told = answer.text + str(answer.headers)
        assert not [
            word for word in ("Traceback", "/footfall/", "SELECT", "Werkzeug", "Python/") if word in told
        ]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert redis.ping()
