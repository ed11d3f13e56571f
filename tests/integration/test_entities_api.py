"""What the host site tells of its entities, and what is left of one that it deletes."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from freezegun import freeze_time
from redis import Redis

from footfall import counts, keys, rollup
from footfall.clock import site_day
from footfall.ids import uuid7
from tests.integration.api import SERVICE, bearer
from tests.integration.content import Open, Site

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
VIEW = "/api/track/view"

pytestmark = pytest.mark.usefixtures("clock")

EMPTY: dict[str, object] = {
    "entity_type": "story",
    "entity_id": "s1",
    "owner_id": None,
    "title": None,
    "parent": None,
    "engagement": {"reactions": {}, "comments": None},
}


# PUT


def test_an_entity_is_what_was_told_of_it(site: Site) -> None:
    assert site.tell("story/s1") == EMPTY
    told = {
        "owner_id": "ann",
        "title": "Ein Märchen 🐸",
        "parent": {"entity_type": "book", "entity_id": "b1"},
        "engagement": {"reactions": {"👍": 3, "🐸": 0}, "comments": 7},
    }
    assert site.tell("story/s1", **told, unknown=[1]) == {**EMPTY, **told}
    assert site.tell("story/s1") == {**EMPTY, **told}


def test_only_what_a_request_names_is_changed_and_null_takes_it_back(site: Site) -> None:
    parent = {"entity_type": "book", "entity_id": "b1"}
    site.tell("story/s1", owner_id="ann", title="A", parent=parent, engagement={"reactions": {"👍": 1}})
    assert site.tell("story/s1", title="B")["owner_id"] == "ann"
    assert site.tell("story/s1", engagement={"comments": 2})["engagement"] == {
        "reactions": {"👍": 1},
        "comments": 2,
    }
    assert site.tell("story/s1", engagement={"reactions": {"🐸": 9}})["engagement"]["reactions"] == {"🐸": 9}
    left = site.tell("story/s1", owner_id=None, title=None, parent=None, engagement=None)
    assert left == {**EMPTY, "engagement": {"reactions": {"🐸": 9}, "comments": 2}}


def test_an_entity_told_of_before_its_first_view_is_the_one_that_is_viewed(site: Site) -> None:
    site.tell("story/s1", owner_id="ann")
    assert site.story() == (True, 1, "counted")
    site.write()
    site.tell("story/s1", title="later")
    names = site.rows("SELECT external_id, owner_id, title FROM entities WHERE entity_type = 'story'")
    assert names == [("s1", "ann", "later")]


def test_a_page_is_told_of_by_its_path(site: Site) -> None:
    told = site.client.put(
        "/api/entities/page", query_string={"path": "/a/b?q#f"}, json={"title": "A"}, headers=SERVICE
    )
    assert (told.status_code, told.json and told.json["entity_id"]) == (200, "/a/b")
    missing = site.client.put("/api/entities/page", json={}, headers=SERVICE)
    assert (missing.status_code, missing.json and missing.json["error"]) == (400, "path: is required")


BAD = {
    "owner_id of a number": ({"owner_id": 42}, "owner_id"),
    "empty owner_id": ({"owner_id": ""}, "owner_id"),
    "long owner_id": ({"owner_id": "x" * 256}, "owner_id"),
    "title with a NUL": ({"title": "\0"}, "title"),
    "title with a surrogate": ({"title": "\ud800"}, "title"),
    "long title": ({"title": "é" * 501}, "title"),
    "title of a list": ({"title": []}, "title"),
    "parent of a text": ({"parent": "b1"}, "parent"),
    "parent without an id": ({"parent": {"entity_type": "book"}}, "entity_id"),
    "parent without a type": ({"parent": {"entity_id": "b1"}}, "entity_type"),
    "parent of no type": ({"parent": {"entity_type": "site", "entity_id": "x"}}, "parent.entity_type"),
    "parent's bad id": ({"parent": {"entity_type": "page", "entity_id": "x"}}, "parent.entity_id"),
    "engagement of a list": ({"engagement": []}, "engagement"),
    "reactions of a list": ({"engagement": {"reactions": []}}, "engagement.reactions"),
    "reactions below 0": ({"engagement": {"reactions": {"👍": -1}}}, "engagement.reactions"),
    "reactions of true": ({"engagement": {"reactions": {"👍": True}}}, "engagement.reactions"),
    "a long emoji": ({"engagement": {"reactions": {"x" * 65: 1}}}, "engagement.reactions"),
    "a control character as emoji": ({"engagement": {"reactions": {"\n": 1}}}, "engagement.reactions"),
    "201 reactions": ({"engagement": {"reactions": {str(n): 1 for n in range(201)}}}, "engagement.reactions"),
    "comments of a text": ({"engagement": {"comments": "7"}}, "engagement.comments"),
    "comments of half": ({"engagement": {"comments": 0.5}}, "engagement.comments"),
    "more comments than fit": ({"engagement": {"comments": 2_000_000_001}}, "engagement.comments"),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD)
def test_what_cannot_be_true_of_an_entity_is_refused_by_name(
    site: Site, body: dict[str, object], field: str
) -> None:
    site.tell("story/s1", owner_id="ann")
    answer = site.client.put("/api/entities/story/s1", json={"title": "new", **body}, headers=SERVICE)
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"].startswith(f"{field}: ")
    assert site.tell("story/s1") == {**EMPTY, "owner_id": "ann"}


@pytest.mark.parametrize("name", ["site/site", "nothing/1", "story/" + "x" * 256, "story/%00"])
def test_only_entities_that_can_be_viewed_are_told_of(site: Site, name: str) -> None:
    for method in ("PUT", "DELETE"):
        answer = site.client.open(f"/api/entities/{name}", method=method, json={}, headers=SERVICE)
        assert answer.status_code == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("url", ["/api/entities/story/s1", "/api/entities/page?path=/a"])
def test_only_servers_tell_of_entities(site: Site, method: str, url: str) -> None:
    assert site.client.open(url, method=method, json={}).status_code == 401
    for role in ("user", "moderator", "admin"):
        answer = site.client.open(url, method=method, json={}, headers=bearer(site.settings, role))
        assert (answer.status_code, answer.json and answer.json["code"]) == (403, "not_allowed")
    assert site.rows("SELECT count(*) FROM entities WHERE entity_type <> 'site'") == [(0,)]
    answer = site.client.put(url, json={}, headers=bearer(site.settings, "service"))
    assert answer.status_code == 200


def test_the_owner_reads_the_numbers_and_the_engagement(site: Site) -> None:
    site.tell(
        "blog_post/p1", owner_id="ann", title="A", engagement={"reactions": {"👍": 2, "🐸": 1}, "comments": 4}
    )
    site.track(VIEW, {"entity_type": "blog_post", "entity_id": "p1"}, user="bob")
    site.track(VIEW, {"entity_type": "blog_post", "entity_id": "p1"}, user="ann")
    site.write()
    url = "/api/stats/blog_post/p1"
    answer = site.client.get(url, headers=bearer(site.settings, "user", "ann"))
    assert answer.status_code == 200
    assert answer.json is not None
    found = {name: answer.json[name] for name in ("title", "total_views", "all_time_views", "not_counted")}
    assert found == {
        "title": "A",
        "total_views": 1,
        "all_time_views": 1,
        "not_counted": {"bot": 0, "own": 1, "repeat": 0},
    }
    assert (answer.json["total_reactions"], answer.json["total_comments"]) == (3, 4)
    assert answer.json["reactions_by_emoji"] == {"👍": 2, "🐸": 1}
    assert site.client.get(url, headers=bearer(site.settings, "user", "bob")).status_code == 403


# Parents


def test_row_9_a_chapters_view_tells_the_total_of_its_story(either: Site) -> None:
    url = "/api/chapters/c1/view"
    assert "storyViewCount" not in either.track(url).body
    either.tell("chapter/c1", parent={"entity_type": "story", "entity_id": "s1"})
    either.story()
    either.story(user="bob")
    answer = either.track(url, user="ann")
    assert answer.body == {"isFirstView": True, "viewCount": 2, "storyViewCount": 2}
    either.tell("chapter/c1", parent=None)
    assert "storyViewCount" not in either.track(url).body


def test_a_chapter_of_a_deleted_story_has_no_story(site: Site) -> None:
    told = site.tell("chapter/c1", parent={"entity_type": "story", "entity_id": "s1"})
    assert told["parent"] == {"entity_type": "story", "entity_id": "s1"}
    site.story()
    assert site.track("/api/chapters/c1/view").body["storyViewCount"] == 1
    assert site.erase("story/s1") == 204
    assert "storyViewCount" not in site.track("/api/chapters/c1/view", user="ann").body
    assert site.tell("chapter/c1")["parent"] is None


# DELETE


def keys_in(redis: Redis) -> set[bytes]:
    """The names of all keys but those of the whole system."""
    kept = {keys.STREAM, keys.LEDGER, keys.RUN, keys.PROBE}
    return set(cast("list[bytes]", redis.keys("*"))) - {name.encode() for name in kept}


def fill(site: Site) -> None:
    """Views of a story of all outcomes, with and without ids, on two days, written and rolled up."""
    site.tell("story/s1", owner_id="ann", title="A", engagement={"comments": 1})
    site.story(id=str(uuid7(NOW)))
    site.story(id=str(uuid4()))
    site.story(user="bob")
    site.story(user="ann", id=str(uuid4()))
    site.story(agent="Googlebot/2.1")
    events: list[dict[str, object]] = [
        {"entity_type": "story", "entity_id": "s1", "occurred_at": (NOW - timedelta(days=1)).isoformat()}
    ]
    site.batch(*events)
    site.write()
    rollup.roll_up(site.engine, NOW.date() - timedelta(days=1), NOW)
    rollup.roll_up(site.engine, NOW.date(), NOW)


def test_deleting_an_entity_leaves_nothing_that_was_counted_of_it(either: Site) -> None:
    fill(either)
    either.tell("post/p1", title="another")
    either.track(VIEW, {"entity_type": "post", "entity_id": "p1"})
    either.write()
    others = keys_in(either.redis)
    fill_kinds = {"view_events", "view_counters", "daily_stats", "view_slots"}
    assert fill_kinds <= set(either.left_of("story", "s1"))
    assert either.erase("story/s1") == 204
    assert either.left_of("story", "s1") == {}
    assert keys_in(either.redis) < others or not others
    assert len(keys_in(either.redis)) <= 1, "only the post's count is left"
    left = either.rows(
        "SELECT owner_id, title, parent_id, reactions, comments FROM entities WHERE entity_type = 'story'"
    )
    assert left == [(None,) * 5]
    assert either.counters() == {("post", "p1", "intentional"): 1}
    assert either.story(user="ann")[1] <= 1
    moderator = bearer(either.settings, "moderator", "mo")
    assert either.client.get("/api/stats/story/s1", headers=moderator).status_code == 404


def test_what_was_still_queued_of_a_deleted_entity_is_dropped_and_tallied(site: Site) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    site.story(id=ids[0])
    site.write()
    site.story(user="bob", id=ids[1])
    site.story(user="cat")
    assert site.erase("story/s1") == 204
    site.story(user="dan", id=ids[2])
    written = site.write()
    assert dict(written.fates) == {"erased": 3}
    assert site.tallies()["erased"] == 3
    assert site.left_of("story", "s1") == {}
    assert keys_in(site.redis) == set()


def test_an_entity_whose_first_view_is_still_queued_can_be_deleted(site: Site) -> None:
    site.story()
    assert site.erase("story/s1") == 204
    assert dict(site.write().fates) == {"erased": 1}
    assert site.left_of("story", "s1") == {}
    assert keys_in(site.redis) == set()


def test_a_deleted_entity_that_is_still_viewed_without_redis_stays_empty(open_site: Open) -> None:
    site = open_site(redis_enabled=False)
    site.story()
    assert site.erase("story/s1") == 204
    assert site.story(id=str(uuid4()))[1] == 0
    assert site.left_of("story", "s1") == {}
    assert site.shown("s1") == {}


def test_without_redis_a_site_that_does_not_use_it_deletes_all_the_same(open_site: Open) -> None:
    site = open_site(redis_enabled=False, redis_url="redis://127.0.0.1:1")
    site.story()
    assert site.erase("story/s1") == 204
    assert site.left_of("story", "s1") == {}


def test_a_deletion_without_the_redis_that_is_used_is_refused_whole(open_site: Open) -> None:
    open_site(redis_enabled=False).story()
    site = open_site(redis_url="redis://127.0.0.1:1")
    assert site.erase("story/s1") == 503
    assert site.left_of("story", "s1") != {}


def test_an_entity_told_of_again_after_its_deletion_begins_anew(either: Site) -> None:
    fill(either)
    assert either.erase("story/s1") == 204
    assert either.tell("story/s1", title="new") == {**EMPTY, "title": "new"}
    assert either.story() == (True, 1, "counted")
    assert either.story() == (False, 1, "repeat")
    either.write()
    assert either.counters() == {("story", "s1", "intentional"): 1}
    assert either.erase("story/s1") == 204
    assert either.erase("story/s1") == 204, "it may be asked for again"


def test_what_was_never_known_cannot_be_deleted(site: Site) -> None:
    assert site.erase("story/s1") == 404
    assert site.rows("SELECT count(*) FROM entities WHERE entity_type <> 'site'") == [(0,)]


def test_days_of_a_deleted_entity_are_rolled_up_again_and_agree(site: Site) -> None:
    for path in ("/a", "/b", "/b"):
        site.send("/api/track/page-view", {"path": path})
    site.write()
    tomorrow = NOW + timedelta(days=1)
    rollup.roll_up_closed_days(site.engine, site_day(tomorrow, UTC), tomorrow)
    assert site.client.delete("/api/entities/page?path=/b", headers=SERVICE).status_code == 204
    with freeze_time(tomorrow):
        assert views_of_site(site) == 1, "read before the next rollup"
        again = rollup.roll_up_closed_days(site.engine, site_day(tomorrow, UTC), tomorrow)
        assert [one.day for one in again] == [NOW.date()]
        assert views_of_site(site) == 1
    assert site.rows("SELECT count(*) FROM daily_stats") == [(2,)], "the other page, and the site"


def views_of_site(site: Site) -> int:
    answer = site.client.get(
        "/api/admin/sitewide-stats?refresh=true&days=2", headers=bearer(site.settings, "moderator")
    )
    assert answer.json is not None
    views: int = answer.json["total_page_views"]
    return views


def test_a_batch_that_is_written_while_its_entity_is_deleted_brings_nothing_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion comes between the commit and the raising of what is shown."""
    site.story()
    site.write()
    site.story(user="bob")
    raise_touched: Any = counts.raise_touched

    def deleted_first(*arguments: Any) -> None:
        assert site.erase("story/s1") == 204
        raise_touched(*arguments)

    monkeypatch.setattr("footfall.counts.raise_touched", deleted_first)
    site.write()
    assert site.left_of("story", "s1") == {}
    assert keys_in(site.redis) == set()
