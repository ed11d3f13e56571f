"""The doors: each row of mission.md that a door serves, by its number in the test's name."""

import base64
import hmac
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from footfall import rollup, writer
from footfall.clock import utc_now
from footfall.content_types import CONTENT_TYPES, ContentType, Door
from footfall.settings import Settings
from tests.factory import EVENTS, SECRET
from tests.integration.api import ADDRESS, FIREFOX, SERVICE, bearer, queued
from tests.integration.content import Answer, Open, Site

VIEW = "/api/track/view"
BOOK = "/api/books/b1/track-view"
VIEWS = "/api/views"
NOWHERE = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"
NO_REDIS = "redis://127.0.0.1:1"


def card_view(site: Site, user: str = "ann", view_type: str = "card_view") -> Answer:
    """A book's view by a signed-in user."""
    return site.track(BOOK, {"viewType": view_type}, user=user)


def course(number: int = 1, kind: str = "course") -> dict[str, object]:
    return {"contentId": f"c{number}", "contentType": kind}


def count_of(site: Site, body: dict[str, object]) -> int:
    """What GET /api/views says to anybody."""
    answer = site.client.get(VIEWS, query_string=body)
    assert answer.status_code == 200
    assert answer.json is not None
    assert set(answer.json) == {"count"}
    return int(answer.json["count"])


# Books: rows 1 to 8


def test_row_1_a_books_view_with_its_type_succeeds(either: Site) -> None:
    assert card_view(either) == Answer(200, "counted", {"success": True})
    either.write()
    assert either.counters() == {("book", "b1", "card_view"): 1}


def test_row_2_new_view_types_need_no_schema_change(either: Site) -> None:
    """The view types of S0 and ones that nobody has thought of, by the value alone."""
    tables = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name NOT LIKE 'view_events_%' ORDER BY 1, 2"
    )
    before = either.rows(tables)
    for view_type in ("card_view", "reader_open", "audio_start", "x" * 40, "0"):
        assert card_view(either, view_type=view_type).status == 200
    either.write()
    assert either.shown("b1") == dict.fromkeys(("card_view", "reader_open", "audio_start", "x" * 40, "0"), 1)
    assert either.rows(tables) == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "viewType"),
        ({"viewType": None}, "viewType"),
        ({"viewType": 1}, "viewType"),
        ({"viewType": ""}, "viewType"),
        ({"viewType": "Card View"}, "viewType"),
        ({"viewType": "x" * 41}, "viewType"),
        ({"viewType": "card_view\n"}, "viewType"),
        ({"viewType": "card_view", "id": "7"}, "id"),
        ({"view_type": "card_view"}, "viewType"),
    ],
)
def test_row_3_a_wrong_field_is_400_by_its_name(site: Site, body: dict[str, object], field: str) -> None:
    answer = site.track(BOOK, body, user="ann")
    assert (answer.status, answer.outcome, answer.body["code"]) == (400, None, "invalid")
    assert answer.body["error"].startswith(f"{field}: ")
    assert queued(site.redis) == []


@pytest.mark.parametrize("book", ["x" * 256, "%00", "%C2%85"])
def test_row_3_a_book_that_cannot_be_is_400(site: Site, book: str) -> None:
    answer = site.track(f"/api/books/{book}/track-view", {"viewType": "card_view"}, user="ann")
    assert (answer.status, answer.body["error"].partition(":")[0]) == (400, "entity_id")
    assert site.client.get(f"/api/books/{book}/stats").status_code == 400


def test_row_3_what_is_no_json_is_400_and_no_body_is_named(site: Site) -> None:
    headers = bearer(site.settings, "user")
    for data, error in (
        (b"{", "body: is not JSON"),
        (b"[]", "body: must be a JSON object"),
        (b"", "body: is empty"),
    ):
        answer = site.client.post(BOOK, data=data, content_type="application/json", headers=headers)
        assert (answer.status_code, answer.json) == (400, {"error": error, "code": "invalid"})
    answer = site.client.post(BOOK, data=b"x" * 70_000, content_type="application/json", headers=headers)
    assert answer.status_code == 413


def test_row_3_when_no_store_takes_the_view_the_error_is_the_promised_text(open_site: Open) -> None:
    site = open_site(redis_url=NO_REDIS, database_url=NOWHERE)
    answer = site.send(BOOK, {"viewType": "card_view"}, user="ann")
    assert answer.status_code == 503
    assert answer.json == {"error": "Failed to track book view", "code": "unavailable"}
    assert int(answer.headers["Retry-After"]) > 0
    other = site.send("/api/stories/s1/view")
    assert other.status_code == 503
    assert other.json is not None
    assert "book" not in other.json["error"]


def test_row_3_a_bug_is_500_with_the_promised_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise KeyError(f"secret {ADDRESS}")

    monkeypatch.setattr("footfall.intake.content_view", break_down)
    answer = card_view(site)
    assert (answer.status, answer.body) == (500, {"error": "Failed to track book view", "code": "internal"})
    other = site.track("/api/stories/s1/view")
    assert (other.status, other.body["code"]) == (500, "internal")
    assert "secret" not in json.dumps([answer.body, other.body])


def test_row_4_a_books_view_needs_a_signed_in_user(site: Site) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, SERVICE):
        answer = site.send(BOOK, {"viewType": "card_view"}, headers=headers)
        assert (answer.status_code, answer.json and answer.json["code"]) == (401, "not_authenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    body = {"entity_type": "book", "entity_id": "b1"}
    assert site.send(VIEW, body).status_code == 401
    assert queued(site.redis) == []
    assert card_view(site).status == 200


def test_row_4_the_setting_lifts_it(open_site: Open) -> None:
    site = open_site(require_sign_in=False)
    assert site.track(BOOK, {"viewType": "card_view"}) == Answer(200, "counted", {"success": True})
    assert (
        site.send(BOOK, {"viewType": "card_view"}, headers={"Authorization": "Bearer x"}).status_code == 401
    )


def test_row_5_the_first_view_makes_a_counter_and_later_ones_raise_it(either: Site) -> None:
    for view_type, times in (("card_view", 3), ("reader_open", 1)):
        for _ in range(times):
            card_view(either, view_type=view_type)
            either.write()
    found = either.rows("SELECT view_type, count FROM view_counters ORDER BY 1")
    assert found == [("card_view", 3), ("reader_open", 1)]


def test_row_6_views_at_once_are_all_counted_in_one_row(either: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: card_view(either, f"user-{number}"), range(160)))
    assert {answer.status for answer in answers} == {200}
    either.write()
    assert either.rows("SELECT view_type, count FROM view_counters") == [("card_view", 160)]
    assert either.shown("b1") == {"card_view": 160}
    assert either.rows("SELECT count(*) FROM view_events") == [(160,)]


def test_row_7_a_counter_says_when_it_was_last_viewed(either: Site) -> None:
    before = utc_now()
    card_view(either)
    between = utc_now()
    card_view(either)
    either.write()
    ((first, last, created, updated),) = either.rows(
        "SELECT first_viewed_at, last_viewed_at, created_at, updated_at FROM view_counters"
    )
    assert before <= first <= between <= last <= updated
    assert before <= created <= updated


def test_row_8_the_pair_is_unique_by_a_named_constraint(site: Site) -> None:
    found = site.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname = 'view_counters_entity_id_view_type_unique'"
    )
    assert found == [("UNIQUE (entity_id, view_type)",)]


def test_a_books_stats_are_its_views_by_type_for_everybody(either: Site) -> None:
    assert either.shown("b1") == {}
    for view_type in ("card_view", "card_view", "reader_open"):
        card_view(either, view_type=view_type)
    either.track(BOOK, {"viewType": "card_view"}, user="ann", agent="Googlebot/2.1")
    assert either.shown("b1") == {"card_view": 2, "reader_open": 1}
    either.write()
    assert either.shown("b1") == {"card_view": 2, "reader_open": 1}
    assert either.shown("b2") == {}


# Stories and chapters: rows 9 to 15


def test_row_9_stories_and_chapters_are_two_levels_of_content(either: Site) -> None:
    for url in ("/api/stories/x/view", "/api/chapters/x/view"):
        assert either.track(url).body == {"isFirstView": True, "viewCount": 1}
    either.write()
    assert either.counters() == {("story", "x", "intentional"): 1, ("chapter", "x", "intentional"): 1}


def test_row_10_the_answer_says_whether_it_was_a_first_view_and_how_many_there_are(either: Site) -> None:
    assert either.story() == (True, 1, "counted")
    assert either.story() == (False, 1, "repeat")
    assert either.story(user="ann") == (True, 2, "counted")


def test_row_12_through_redis_a_view_is_counted_at_once_and_a_row_after_the_tick(site: Site) -> None:
    site.story()
    site.story(user="ann")
    assert site.rows("SELECT count(*) FROM view_events") == [(0,)]
    assert site.story(user="bob")[1] == 3
    site.write()
    assert site.rows("SELECT count(*) FROM view_events") == [(3,)]


def test_row_13_the_background_writer_brings_counts_to_the_database(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import celeryconfig
    from worker import tasks

    assert celeryconfig.beat_schedule["write-events"]["task"] == "footfall.write_events"
    site.story()
    monkeypatch.setattr(tasks, "stores", lambda: tasks.Stores(settings, site.engine, site.redis))
    tasks.write_events()
    assert site.counters() == {("story", "s1", "intentional"): 1}


@pytest.mark.parametrize("how", [{"redis_enabled": False}, {"redis_url": NO_REDIS}], ids=["off", "away"])
def test_row_14_without_redis_views_are_rows_and_counts_at_once_and_a_warning(
    open_site: Open, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 31 and 59 too: a site without Redis counts in the database alone."""
    site = open_site(**{"redis_url": NO_REDIS, **how})
    for number in range(3):
        assert site.story(user=f"user-{number}") == (True, number + 1, "counted")
    assert site.story(user="user-0") == (False, 3, "repeat")
    assert site.rows("SELECT count(*) FROM view_events") == [(4,)]
    assert site.counters() == {("story", "s1", "intentional"): 3}
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING and "database" in one.message]
    assert len(warnings) == 1


def test_row_14_without_redis_counts_are_refused_for_a_moment_and_then_the_databases(
    open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_site(redis_url=NO_REDIS)
    assert site.track(VIEWS, course()).body == {"success": True, "count": 1}
    answer = site.client.get(VIEWS, query_string=course())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    monkeypatch.setattr("footfall.acceptance.COUNTS_REFUSED_SECONDS", 0.0)
    assert count_of(site, course()) == 1


def test_row_14_a_view_that_was_taken_is_answered_even_if_other_counts_are_not_to_be_had(
    open_site: Open,
) -> None:
    site = open_site(redis_url=NO_REDIS)
    open_site().tell("chapter/c1", parent={"entity_type": "story", "entity_id": "s1"})
    assert site.track("/api/chapters/c1/view").body == {"isFirstView": True, "viewCount": 1}
    for views in range(2):
        answer = site.track(VIEW, {"entity_type": "page", "entity_id": "/a"})
        assert (answer.status, answer.body["view_count"]) == (200, views)
    assert site.rows("SELECT count(*) FROM view_events") == [(3,)]


def test_row_15_a_view_is_its_viewers_and_nobody_elses(site: Site) -> None:
    site.story()
    site.story(user="ann")
    site.send("/api/stories/s1/view", headers=SERVICE, agent=FIREFOX + " server")
    anonymous, ann, server = queued(site.redis)
    assert [one.authenticated for one in (anonymous, ann, server)] == [False, True, False]
    assert len({one.visitor for one in (anonymous, ann, server)}) == 3
    site.story(user="ann", address="198.51.100.1")
    assert queued(site.redis)[-1].outcome == "counted", "the envelope is made before the atomic step"
    site.write()
    assert site.outcomes() == ["counted", "counted", "counted", "repeat"]


def test_a_story_takes_a_view_without_a_body_and_with_a_referrer(site: Site) -> None:
    plain = site.client.post("/api/stories/s1/view", headers={"User-Agent": FIREFOX})
    assert plain.status_code == 200
    site.track("/api/stories/s2/view", {"referrer": "https://news.example.com/x", "view_type": "listing"})
    event = queued(site.redis)[-1]
    assert (event.referrer_domain, event.view_type) == ("news.example.com", "listing")
    assert site.send("/api/stories/s1/view", [1]).status_code == 400
    beacon = site.client.post(
        "/api/stories/s3/view", data=json.dumps({"id": str(uuid4())}), content_type="text/plain"
    )
    assert beacon.status_code == 200


# Anything by its type: rows 18 to 24


def test_row_18_the_path_that_the_client_names_is_what_was_viewed(either: Site) -> None:
    body = {"entity_type": "page", "entity_id": "/a/b?q=1#f"}
    assert either.track(VIEW, body).body["view_count"] == 0, "of pages, what is written so far"
    either.write()
    assert either.track(VIEW, body).body["view_count"] == 1, "of the path as it is kept"
    either.write()
    assert either.counters() == {("page", "/a/b", "intentional"): 2}


def test_row_19_the_authors_view_is_no_view(either: Site) -> None:
    either.tell("blog_post/p1", owner_id="ann")
    body = {"entity_type": "blog_post", "entity_id": "p1"}
    assert either.track(VIEW, body, user="ann").body == {
        "counted": False,
        "outcome": "own",
        "first_view": False,
        "view_count": 0,
    }
    assert either.track(VIEW, body, user="bob").body["view_count"] == 1


def test_row_20_a_server_records_a_list_at_once(either: Site) -> None:
    events = [{"entity_type": "blog_post", "entity_id": f"p{n}", "view_type": "listing"} for n in range(25)]
    answer = either.batch(*events)
    assert answer == {"accepted": 25, "outcomes": {"counted": 25}, "errors": []}
    either.write()
    assert either.counters() == {("blog_post", f"p{n}", "listing"): 1 for n in range(25)}


def test_row_21_a_posts_view_types_and_the_sources_are_those_of_the_document(site: Site) -> None:
    post = {"entity_type": "post", "entity_id": "p"}
    for view_type in ("intentional", "listing", "search", "widget"):
        assert site.track(VIEW, {**post, "view_type": view_type}).status == 200
    for source in ("web", "api", "widget", "player"):
        assert site.track(VIEW, {**post, "view_source": source}).status == 200
    for field, value in (("view_type", "card_view"), ("view_source", "elsewhere")):
        refused = site.track(VIEW, {**post, field: value})
        assert (refused.status, refused.body["error"].partition(":")[0]) == (400, field)
    site.write()
    assert site.rows(f"SELECT view_source, count(*) FROM {EVENTS} AS v GROUP BY 1 ORDER BY 1") == [
        ("api", 1),
        ("player", 1),
        ("web", 5),
        ("widget", 1),
    ]


def test_row_24_an_event_says_where_it_came_from_and_not_who(open_site: Open) -> None:
    site = open_site(country_header="CF-IPCountry")
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"
    body = {
        "entity_type": "post",
        "entity_id": "p",
        "view_source": "player",
        "referrer": "https://a.example/x",
    }
    site.track(VIEW, body, user="ann", agent=agent, headers={"CF-IPCountry": "DE"})
    site.write()
    ((country, device, source, view_type, referrer, authenticated, visitor),) = site.rows(
        "SELECT country, device, view_source, view_type, referrer_domain, authenticated, visitor"
        f" FROM {EVENTS} AS v"
    )
    assert (country, device, source, view_type) == ("DE", "mobile", "player", "intentional")
    assert (referrer, authenticated) == ("a.example", True)
    assert isinstance(visitor, int)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "entity_type"),
        ({"entity_type": "book"}, "entity_id"),
        ({"entity_type": "site", "entity_id": "site"}, "entity_type"),
        ({"entity_type": ["post"], "entity_id": "p"}, "entity_type"),
        ({"entity_type": "post", "entity_id": ""}, "entity_id"),
        ({"entity_type": "post", "entity_id": 7}, "entity_id"),
        ({"entity_type": "page", "entity_id": "no-slash"}, "entity_id"),
        ({"entity_type": "post", "entity_id": "p", "id": "x"}, "id"),
        ({"entity_type": "post", "entity_id": "p", "referrer": 1}, "referrer"),
        ({"entity_type": "resource", "entity_id": "p", "view_type": "A"}, "view_type"),
    ],
)
def test_a_wrong_field_of_any_view_is_400_by_its_name(
    site: Site, body: dict[str, object], field: str
) -> None:
    answer = site.track(VIEW, body)
    assert (answer.status, answer.outcome, answer.body["code"]) == (400, None, "invalid")
    assert answer.body["error"].startswith(f"{field}: ")


# Resources and courses: rows 25 to 30


def test_row_25_and_26_a_view_of_a_resource_is_answered_with_the_count_that_all_may_read(
    either: Site,
) -> None:
    assert count_of(either, course()) == 0
    assert either.track(VIEWS, course()) == Answer(200, "counted", {"success": True, "count": 1})
    assert either.track(VIEWS, course()).body["count"] == 2
    assert count_of(either, course()) == 2
    either.write()
    assert count_of(either, course()) == 2
    assert count_of(either, course(2)) == 0


def test_row_26_no_get_is_a_view(either: Site) -> None:
    for _ in range(3):
        count_of(either, course())
        either.shown("b1")
    either.write()
    assert either.rows("SELECT count(*) FROM view_events") == [(0,)]
    for url in (VIEW, BOOK, "/api/stories/s1/view", "/api/chapters/c1/view"):
        assert either.client.get(url).status_code == 405


def test_row_26_a_count_is_of_all_view_types(either: Site) -> None:
    either.track(VIEWS, course())
    either.track(VIEW, {"entity_type": "course", "entity_id": "c1", "view_type": "preview"})
    assert count_of(either, course()) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"contentType": "course"}, "contentId"),
        ({"contentId": "c1"}, "contentType"),
        ({"contentId": "c1", "contentType": "book"}, "contentType"),
        ({"contentId": "c1", "contentType": "page"}, "contentType"),
        ({"contentId": "", "contentType": "course"}, "contentId"),
        ({"contentId": "x" * 256, "contentType": "course"}, "contentId"),
    ],
)
def test_row_25_and_26_a_wrong_field_is_400_by_its_name(
    site: Site, body: dict[str, object], field: str
) -> None:
    for answer in (site.send(VIEWS, body), site.client.get(VIEWS, query_string=body)):
        assert (answer.status_code, answer.json and answer.json["code"]) == (400, "invalid")
        assert answer.json is not None
        assert answer.json["error"].startswith(f"{field}: ")


def test_row_28_the_key_is_type_and_id_with_a_total_and_a_row_a_day(either: Site) -> None:
    either.track(VIEWS, course(1, "resource"))
    for _ in range(2):
        either.track(VIEWS, course(1))
    either.write()
    assert (count_of(either, course(1, "resource")), count_of(either, course(1))) == (1, 2)
    now = utc_now()
    rollup.roll_up(either.engine, now.date(), now)
    daily = either.rows(
        "SELECT e.entity_type, external_id, views FROM daily_stats JOIN entities e ON e.id = entity_id"
        " WHERE e.entity_type <> 'site' ORDER BY 1"
    )
    assert daily == [("course", "c1", 2), ("resource", "c1", 1)]


def test_row_29_increments_at_once_are_all_counted_and_each_is_told_another_count(site: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: site.track(VIEWS, course()).body["count"], range(120)))
    assert sorted(counts) == list(range(1, 121))
    site.write()
    assert count_of(site, course()) == 120


def test_row_30_counts_are_never_0_again_while_they_are_flushed(site: Site) -> None:
    for number in range(1, 6):
        site.track(VIEWS, course())
        flushed = site.client.post(f"{VIEWS}/flush", headers=bearer(site.settings, "admin"))
        assert flushed.json == {"success": True, "flushed": 1}
        assert count_of(site, course()) == number


# A type of one's own


PODCAST = ContentType(
    "podcast",
    has_window=True,
    counts_own_views=False,
    door=Door("/podcasts/<entity_id>/listen", "first_view"),
)


def test_a_new_type_is_one_entry(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """With a window, an owner and a door of its own, through queue, writer, rollup and stats."""
    monkeypatch.setitem(CONTENT_TYPES, PODCAST.name, PODCAST)
    site, without = open_site(), open_site(redis_enabled=False)
    url = "/api/podcasts/episode-1/listen"
    site.tell("podcast/episode-1", owner_id="ann", title="One")
    assert site.track(url).body == {"isFirstView": True, "viewCount": 1}
    assert site.track(url) == Answer(200, "repeat", {"isFirstView": False, "viewCount": 1})
    assert site.track(url, user="ann").outcome == "own"
    site.write()
    assert without.track(url).outcome == "repeat"
    assert without.track(url, user="bob").body == {"isFirstView": True, "viewCount": 2}
    site.batch({"entity_type": "podcast", "entity_id": "episode-1"})
    site.write()
    now = utc_now()
    assert rollup.roll_up(site.engine, now.date(), now) is not None
    stats = site.client.get("/api/stats/podcast/episode-1", headers=bearer(settings, "user", "ann")).json
    assert stats is not None
    assert {name: stats[name] for name in ("title", "total_views", "all_time_views", "not_counted")} == {
        "title": "One",
        "total_views": 3,
        "all_time_views": 3,
        "not_counted": {"bot": 0, "own": 1, "repeat": 2},
    }
    assert site.erase("podcast/episode-1") == 204
    assert site.left_of("podcast", "episode-1") == {}


def test_without_the_entry_there_is_no_such_type(site: Site) -> None:
    assert site.send("/api/podcasts/episode-1/listen").status_code == 404
    assert site.track(VIEW, {"entity_type": "podcast", "entity_id": "x"}).status == 400


# Tokens


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_RSA = rsa.generate_private_key(65537, 2048)
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "HS256": (SECRET, {}),
    "RS256": (RSA, {"jwt_secret": None, "jwt_public_key": _pem(RSA)}),
    "ES256": (EC, {"jwt_secret": None, "jwt_public_key": _pem(EC)}),
}


def signed(key: Any, algorithm: str, **claims: object) -> dict[str, str]:
    """The header of somebody who is an admin for the next hour, unless the claims say otherwise."""
    end = datetime.now(UTC) + timedelta(hours=1)
    whole = {"sub": "ann", "roles": ["admin"], "exp": int(end.timestamp()), **claims}
    return {"Authorization": f"Bearer {jwt.encode(whole, key, algorithm=algorithm)}"}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_of_each_algorithm_is_taken_where_its_key_is_set(open_site: Open, algorithm: str) -> None:
    key, changes = KEYS[algorithm]
    site = open_site(**changes)
    assert site.send(BOOK, {"viewType": "card_view"}, headers=signed(key, algorithm)).status_code == 200
    assert queued(site.redis)[0].authenticated
    assert site.client.post(f"{VIEWS}/flush", headers=signed(key, algorithm)).status_code == 200
    moderator = signed(key, algorithm, roles=["moderator"])
    assert site.client.post(f"{VIEWS}/flush", headers=moderator).status_code == 403


@pytest.mark.parametrize("configured", KEYS)
def test_a_token_that_does_not_verify_is_401_at_every_door(open_site: Open, configured: str) -> None:
    key, changes = KEYS[configured]
    site = open_site(**changes)
    hour_ago = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    others: dict[str, Any] = {
        "HS256": "another secret, as long as the first one",
        "RS256": OTHER_RSA,
        "ES256": OTHER_EC,
    }
    bad = [signed(other, algorithm) for algorithm, other in others.items()]
    bad += [signed(KEYS[name][0], name) for name in KEYS if name != configured]
    bad += [signed("", "none"), signed(key, configured, exp=hour_ago), signed(key, configured, sub="")]
    if configured == "HS256":
        bad += [by_hand(key, "HS384"), by_hand(key, "HS512"), by_hand(key, "hs256")]
    if configured == "RS256":
        bad += [signed(key, "RS384"), signed(key, "PS256")]
    if "jwt_public_key" in changes:  # which anybody may have, and take for a secret
        bad += [by_hand(changes["jwt_public_key"], algorithm) for algorithm in ("HS256", "HS384", "none")]
    requests: list[tuple[str, str, object]] = [
        ("POST", BOOK, {"viewType": "card_view"}),
        ("POST", VIEW, {"entity_type": "post", "entity_id": "p"}),
        ("POST", "/api/stories/s1/view", {}),
        ("POST", VIEWS, course()),
        ("POST", f"{VIEWS}/flush", {}),
        ("PUT", "/api/entities/book/b1", {}),
        ("DELETE", "/api/entities/book/b1", {}),
    ]
    for headers in bad:
        for method, url, body in requests:
            answer = site.client.open(url, method=method, json=body, headers=headers)
            assert (answer.status_code, answer.json and answer.json["code"]) == (401, "not_authenticated")
            assert headers["Authorization"].partition(" ")[2] not in answer.text
    assert queued(site.redis) == []


def by_hand(secret: str, algorithm: str) -> dict[str, str]:
    """A token such as PyJWT does not make, signed with that secret."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head, body = part(json.dumps({"alg": algorithm}).encode()), part(b'{"sub":"ann","roles":["admin"]}')
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(algorithm, "sha256")
    signature = part(hmac.digest(secret.encode(), head + b"." + body, digest))
    return {"Authorization": f"Bearer {b'.'.join([head, body, signature]).decode()}"}


def test_what_a_view_is_answered_holds_in_the_numbers(either: Site) -> None:
    """From the answers alone one can say what the database will hold."""
    answers = [
        either.track("/api/stories/s1/view", user=f"user-{number % 5}").outcome for number in range(12)
    ]
    either.write()
    assert either.outcomes() == sorted(str(outcome) for outcome in answers)
    assert either.counters() == {("story", "s1", "intentional"): answers.count("counted")}
    assert writer.drain(either.engine, either.redis, either.settings, "test").entries == 0
