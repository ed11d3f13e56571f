"""The other reading endpoints: aliases, top lists, what happens now, exports, the ledger, days with gaps."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import Engine, delete, select, update

from footfall import export, liveness, rollup, stream
from footfall.definitions import COUNTS
from footfall.event import View
from footfall.ids import uuid7
from footfall.schema import Gap
from footfall.schema import Site as SiteRow
from footfall.settings import Settings
from tests.factory import make_event, store
from tests.integration.api import SERVICE, bearer
from tests.integration.content import Site, site_on

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
TODAY = NOW.date()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EVENT = "/api/track/event"


@pytest.fixture
def clean(engine: Engine) -> Iterator[None]:
    """Forget the signs of life, which other tests do not expect."""
    yield
    with engine.begin() as connection:
        connection.execute(delete(Gap))
        connection.execute(update(SiteRow).values(last_alive_at=None))


@pytest.fixture
def site(settings: Settings, engine: Engine, redis: Redis, clean: None) -> Iterator[Site]:
    """A process at a time that stands still."""
    with freeze_time(NOW), site_on(settings, engine, redis) as site:
        yield site


def view(site: Site, name: str, at: datetime = NOW, times: int = 1, **values: Any) -> None:
    """Store views of `<type>/<id>` or of a path, each by a visitor of its own unless told otherwise."""
    kind, external_id = ("page", name) if name.startswith("/") else name.split("/", 1)
    plain = {"entity_type": kind, "external_id": external_id, **values}
    events = [make_event(site.settings, at, **{"visitor": n, **plain}) for n in range(times)]
    store(site.engine, site.redis, site.settings, events)


def read(site: Site, url: str) -> Any:
    """A moderator's answer."""
    response = site.client.get(url, headers=bearer(site.settings, "moderator"))
    assert response.status_code == 200, response.data
    return response.json


def rows_of(site: Site, url: str) -> list[list[str]]:
    """The rows of an export, the header among them."""
    response = site.client.get(url, headers=bearer(site.settings, "moderator"))
    assert response.status_code == 200, response.data
    return list(csv.reader(io.StringIO(response.text, newline="")))


def assert_400(site: Site, url: str, field: str) -> None:
    """A moderator's question is refused for that field."""
    response = site.client.get(url, headers=bearer(site.settings, "moderator"))
    assert response.status_code == 400, url
    assert response.json is not None
    assert response.json["error"].startswith(f"{field}: "), url


# Aliases


@pytest.mark.parametrize(("alias", "kind"), [("blog-post", "blog_post"), ("post", "post")])
def test_a_posts_stats_have_an_address_of_their_own(site: Site, alias: str, kind: str) -> None:
    view(site, f"{kind}/p1", times=3)
    for days in ("", "?days=2"):
        answer = read(site, f"/api/{alias}/p1/stats{days}")
        assert answer == read(site, f"/api/stats/{kind}/p1{days}")
        assert answer["total_views"] == 3
    assert read(site, f"/api/{alias}/p1/stats")["entity_type"] == kind


@pytest.mark.parametrize("alias", ["blog-post", "post"])
def test_an_alias_is_as_closed_as_what_it_stands_for(site: Site, alias: str) -> None:
    site.tell(f"{alias.replace('-', '_')}/p1", owner_id="ann")
    url = f"/api/{alias}/p1/stats"
    assert site.client.get(url).status_code == 401
    assert site.client.get(url, headers=bearer(site.settings, "user", "bob")).status_code == 403
    assert site.client.get(url, headers=bearer(site.settings, "user", "ann")).status_code == 200
    none = f"/api/{alias}/none/stats"
    assert site.client.get(none, headers=bearer(site.settings, "user", "bob")).status_code == 403
    assert site.client.get(none, headers=bearer(site.settings, "moderator")).status_code == 404


# Who may


MODERATORS_ONLY = [
    "/api/stats/top",
    "/api/stats/realtime",
    "/api/admin/sitewide-stats",
    "/api/admin/export.csv",
    "/api/admin/ledger",
]
OWNERS_TOO = ["/api/stats/book/b1", "/api/stats/book/b1/export.csv", "/api/stats/page/export.csv?path=/a"]


@pytest.mark.parametrize("url", MODERATORS_ONLY)
def test_the_whole_site_is_for_moderators(site: Site, url: str) -> None:
    statuses = {
        role: site.client.get(url, headers=bearer(site.settings, role)).status_code
        for role in ("user", "service", "moderator", "admin")
    }
    assert statuses == {"user": 403, "service": 403, "moderator": 200, "admin": 200}
    assert site.client.get(url, headers=SERVICE).status_code == 403
    anonymous = site.client.get(url)
    assert (anonymous.status_code, anonymous.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("url", OWNERS_TOO)
def test_an_entity_is_for_its_owner_and_moderators(site: Site, url: str) -> None:
    for name in ("book/b1", "page?path=/a"):
        site.tell(name, owner_id="ann")
    asked = {
        role: site.client.get(url, headers=bearer(site.settings, role, subject)).status_code
        for role, subject in (("user", "ann"), ("service", "bob"), ("moderator", "mo"), ("admin", "ada"))
    }
    assert asked == {"user": 200, "service": 403, "moderator": 200, "admin": 200}
    assert site.client.get(url, headers=bearer(site.settings, "user", "bob")).status_code == 403
    assert site.client.get(url).status_code == 401
    site.tell("book/b1", owner_id=None)
    site.tell("page?path=/a", owner_id=None)
    assert site.client.get(url, headers=bearer(site.settings, "user", "ann")).status_code == 403


def test_who_may_not_ask_is_told_so_before_what_is_wrong_with_the_question(site: Site) -> None:
    for url in [*MODERATORS_ONLY, *OWNERS_TOO]:
        asked = f"{url}{'&' if '?' in url else '?'}days=x&period=x&type=x&limit=x"
        assert site.client.get(asked).status_code == 401, url


@pytest.mark.parametrize("url", ["/api/stats/book/b1/export.csv", "/api/stats/nothing/1/export.csv"])
def test_an_export_says_no_more_of_what_exists_than_the_figures(site: Site, url: str) -> None:
    assert site.client.get(url, headers=bearer(site.settings, "moderator")).status_code == 404
    foreign = site.client.get(url, headers=bearer(site.settings, "user", "bob"))
    assert (foreign.status_code, foreign.json and foreign.json["code"]) == (403, "not_allowed")


# What may be asked


WRONG = [
    ("type=nothing", "type"),
    ("type=site", "type"),
    ("type=site_event", "type"),
    ("period=year", "period"),
    ("period=", "period"),
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("limit=1.0", "limit"),
    ("limit=-1", "limit"),
    ("type=book&view_type=A", "view_type"),
    ("type=book&view_type=", "view_type"),
    ("type=post&view_type=reader_open", "view_type"),
]


def test_a_wrong_question_for_a_top_list_is_400_by_its_name(site: Site) -> None:
    for query, field in WRONG:
        assert_400(site, f"/api/stats/top?{query}", field)


@pytest.mark.parametrize(
    "url",
    [
        "/api/admin/ledger?",
        "/api/admin/export.csv?",
        "/api/stats/book/b1/export.csv?",
        "/api/stats/page/export.csv?path=/a&",
        "/api/post/p1/stats?",
        "/api/blog-post/p1/stats?",
    ],
)
def test_days_are_within_what_is_kept(site: Site, url: str) -> None:
    for days in ("0", "31", "x", "", "-1", "1e1", "00000001"):
        assert_400(site, f"{url}days={days}", "days")


def test_no_more_days_can_be_asked_for_than_the_setting_keeps(
    settings: Settings, engine: Engine, redis: Redis
) -> None:
    with site_on(settings, engine, redis, daily_retention_days=9) as site:
        assert len(read(site, "/api/admin/sitewide-stats")["daily_views"]) == 9, "the default is cut too"
        headers = bearer(site.settings, "moderator")
        assert site.client.get("/api/admin/sitewide-stats?days=10", headers=headers).status_code == 400
        assert len(read(site, "/api/admin/ledger")["days"]) == 7


# Top lists


def names(answer: Any) -> list[tuple[str, int, int | None]]:
    """Each item's id, views and visitor days."""
    return [(item["entity_id"], item["views"], item["visitor_days"]) for item in answer["items"]]


@pytest.fixture
def books(site: Site) -> Site:
    """Books viewed today, days ago and weeks ago, some of it rolled up."""
    site.tell("book/b1", title="Tides")
    view(site, "book/b1", times=3)
    view(site, "book/b2", NOW - 2 * DAY, times=5, view_type="card_view")
    view(site, "book/b2", NOW - 2 * DAY, view_type="reader_open")
    view(site, "book/b3", NOW - 12 * DAY, times=9)
    view(site, "book/b0", times=3)
    view(site, "course/c1", times=99)
    view(site, "book/b4", times=7, outcome="bot")
    rollup.roll_up_closed_days(site.engine, TODAY, NOW)
    return site


TOP = "/api/stats/top?type=book"


def test_the_most_viewed_of_a_period_come_first_and_equals_by_name(books: Site) -> None:
    today = [("b0", 3, 3), ("b1", 3, 3)]
    assert names(read(books, f"{TOP}&period=day")) == today
    assert names(read(books, f"{TOP}&period=week")) == [("b2", 6, 5), *today]
    assert names(read(books, f"{TOP}&period=month")) == [("b3", 9, 9), ("b2", 6, 5), *today]
    ever = [("b3", 9, None), ("b2", 6, None), ("b0", 3, None), ("b1", 3, None)]
    assert names(read(books, f"{TOP}&period=all")) == ever
    assert names(read(books, f"{TOP}&period=month&limit=2")) == [("b3", 9, 9), ("b2", 6, 5)]


def test_a_top_list_is_of_one_view_type_where_one_is_asked_for(books: Site) -> None:
    for period in ("week", "month", "all"):
        asked = read(books, f"{TOP}&period={period}&view_type=card_view")
        assert names(asked) == [("b2", 5, None)]
    assert names(read(books, f"{TOP}&period=day&view_type=card_view")) == []


def test_a_top_list_names_titles_and_is_of_pages_and_a_week_by_default(books: Site) -> None:
    assert read(books, f"{TOP}&period=day")["items"][1]["title"] == "Tides"
    view(books, "/a")
    view(books, "/b", NOW - 7 * DAY)
    assert names(read(books, "/api/stats/top?refresh=true")) == [("/a", 1, 1)]


def test_a_deleted_entity_is_in_no_top_list(books: Site) -> None:
    books.erase("book/b3")
    for period in ("month", "all"):
        assert "b3" not in [name for name, _, _ in names(read(books, f"{TOP}&period={period}"))]


# Now


def test_now_is_the_last_half_hour_by_the_minute_and_who_is_here(site: Site) -> None:
    view(site, "/a", times=2)
    view(site, "/a", NOW - timedelta(minutes=4), visitor=1)
    view(site, "/b", NOW - timedelta(minutes=4), visitor=None)
    view(site, "/c", NOW - timedelta(minutes=6), visitor=7)
    view(site, "/old", NOW - timedelta(minutes=31))
    view(site, "/a", outcome="bot")
    view(site, "book/b1")
    answer = read(site, "/api/stats/realtime")
    minutes = {one["minute"]: one["views"] for one in answer["views_by_minute"]}
    assert list(minutes) == [
        (NOW.replace(second=0) - timedelta(minutes=back)).isoformat() for back in range(29, -1, -1)
    ]
    assert {minute[11:16]: views for minute, views in minutes.items() if views} == {
        "11:54": 1,
        "11:56": 2,
        "12:00": 2,
    }
    assert answer["current_visitors"] == 2
    assert answer["top_pages"] == {"/a": 3, "/b": 1}
    assert answer["computed_at"] == NOW.isoformat()


def test_now_is_computed_every_five_seconds_at_most(site: Site) -> None:
    with freeze_time(NOW) as clock:
        assert read(site, "/api/stats/realtime")["current_visitors"] == 0
        view(site, "/a")
        clock.tick(timedelta(seconds=4))
        assert read(site, "/api/stats/realtime")["current_visitors"] == 0
        clock.tick(timedelta(seconds=2))
        assert read(site, "/api/stats/realtime")["current_visitors"] == 1


def test_now_reaches_over_midnight(settings: Settings, engine: Engine, redis: Redis) -> None:
    midnight = datetime(2026, 3, 10, 18, 15, tzinfo=UTC)  # in Kathmandu
    zone = ZoneInfo("Asia/Kathmandu")
    with (
        freeze_time(midnight + timedelta(minutes=2)),
        site_on(settings, engine, redis, time_zone=zone) as site,
    ):
        view(site, "/a", midnight - timedelta(minutes=1))
        view(site, "/a", midnight + timedelta(minutes=1))
        answer = read(site, "/api/stats/realtime")
        assert answer["top_pages"] == {"/a": 2}
        assert sum(one["views"] for one in answer["views_by_minute"]) == 2


# Exports


def test_an_export_has_a_row_a_day_with_the_figures_of_the_stats(site: Site) -> None:
    view(site, "book/b1", times=2)
    view(site, "book/b1", NOW - 2 * DAY, times=3, authenticated=True)
    view(site, "book/b1", NOW - 2 * DAY, visitor=0, outcome="repeat")
    rollup.roll_up_closed_days(site.engine, TODAY, NOW)
    header, *rows = rows_of(site, "/api/stats/book/b1/export.csv?days=4")
    assert header == ["date", *COUNTS, "gap"]
    assert rows == [
        ["2026-03-07", "0", "0", "0", "0", "0", "0", "0", "false"],
        ["2026-03-08", "3", "3", "3", "3", "0", "0", "1", "false"],
        ["2026-03-09", "0", "0", "0", "0", "0", "0", "0", "false"],
        ["2026-03-10", "2", "2", "0", "0", "0", "0", "0", "false"],
    ]
    assert len(rows_of(site, "/api/stats/book/b1/export.csv")) == 1 + 30


def test_the_sites_export_counts_pages_and_a_pages_its_own(site: Site) -> None:
    view(site, "/a", times=2)
    view(site, "/b", times=3)
    view(site, "book/b1", times=7)
    assert rows_of(site, "/api/admin/export.csv?days=1")[1][:3] == ["2026-03-10", "5", "3"]
    assert rows_of(site, "/api/stats/page/export.csv?path=/b&days=1")[1][:3] == ["2026-03-10", "3", "3"]


def test_an_export_is_a_file_that_is_written_row_by_row(site: Site) -> None:
    response = site.client.get("/api/admin/export.csv", headers=bearer(site.settings, "moderator"))
    assert response.mimetype == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="footfall-site-2026-03-10.csv"'
    assert response.is_streamed
    assert "Content-Length" not in response.headers
    assert response.data.count(b"\r\n") == 31


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_taken_for_a_formula(start: str) -> None:
    lines = "".join(export.csv_lines([{"name": f'{start}HYPERLINK("//x")', "views": -1, "gap": True}]))
    assert list(csv.reader(io.StringIO(lines, newline=""))) == [
        ["name", "views", "gap"],
        [f'\'{start}HYPERLINK("//x")', "-1", "true"],
    ]


# The ledger


def ledger(site: Site, days: int = 7) -> dict[str, Any]:
    """{date: row}"""
    return {row["date"]: row for row in read(site, f"/api/admin/ledger?days={days}")["days"]}


def test_a_day_on_which_nothing_happened_balances(site: Site) -> None:
    rows = ledger(site)
    assert list(rows) == [(TODAY - n * DAY).isoformat() for n in range(6, -1, -1)]
    for row in rows.values():
        assert row == {
            "date": row["date"],
            "accepted": 0,
            "settled": 0,
            "rows": {"counted": 0, "bot": 0, "own": 0, "repeat": 0},
            "duplicates": 0,
            "dead_letters": 0,
            "erased": 0,
            "queued": 0,
            "refusals": {},
            "gap": False,
            "balanced": True,
        }


def test_the_ledger_tells_what_became_of_every_view(site: Site) -> None:
    event = make_event(site.settings, NOW, external_id="/a")
    for _ in range(3):
        store(site.engine, site.redis, site.settings, [event])
    for outcome in ("bot", "own", "repeat"):
        view(site, "book/b1", times=2, outcome=outcome)
    view(site, "/a", device="toaster")  # no table takes it
    stream.put(site.redis, [make_event(site.settings, NOW)])
    row = ledger(site)["2026-03-10"]
    assert row["rows"] == {"counted": 1, "bot": 2, "own": 2, "repeat": 2}
    assert {name: row[name] for name in ("accepted", "settled", "queued", "balanced")} == {
        "accepted": 11,
        "settled": 10,
        "queued": 1,
        "balanced": False,
    }
    assert (row["duplicates"], row["dead_letters"]) == (2, 1)
    site.write()
    assert ledger(site)["2026-03-10"]["balanced"]


def test_a_day_that_is_rolled_up_or_written_without_redis_balances_too(site: Site) -> None:
    view(site, "book/b1", NOW - DAY, times=3)
    with site_on(site.settings, site.engine, site.redis, redis_enabled=False) as other:
        other.track("/api/stories/s1/view")
        view(site, "book/b1", times=2)
        site.tell("book/b1")
        site.erase("book/b1")
    rollup.roll_up_closed_days(site.engine, TODAY, NOW)
    rows = ledger(site)
    assert (rows["2026-03-09"]["erased"], rows["2026-03-09"]["rows"]["counted"]) == (3, 0)
    assert (rows["2026-03-10"]["erased"], rows["2026-03-10"]["rows"]["counted"]) == (2, 1)
    assert all(row["balanced"] for row in rows.values())


def test_a_loss_shows_in_the_ledger(site: Site) -> None:
    stream.put(site.redis, [make_event(site.settings, NOW)])
    site.redis.delete(stream.STREAM_KEY)
    site.write()
    row = ledger(site)["2026-03-10"]
    assert (row["queued"], row["balanced"]) == (1, False)


# Site events


def test_a_server_tells_what_else_happened(site: Site) -> None:
    told = [
        {"event_type": "signup"},
        {"event_type": "upload", "detail": "image/PNG"},
        {"event_type": "api_call", "detail": "GET /v1/books", "user_id": "u1"},
        {"event_type": "error", "detail": "Timeout"},
        {"event_type": "error", "detail": "timeout!"},
        {"event_type": "error", "detail": None, "occurred_at": (NOW - DAY).isoformat()},
    ]
    for body in told:
        response = site.client.post(EVENT, json=body, headers=SERVICE)
        assert (response.status_code, response.data) == (202, b"")
        assert response.headers["X-View-Outcome"] == "counted"
    site.write()
    answer = read(site, "/api/admin/sitewide-stats?days=2")
    assert {name: answer[name] for name in answer if name.startswith(("new_", "total_"))} == {
        "total_page_views": 0,
        "total_page_views_authenticated": 0,
        "new_signups": 1,
        "new_posts": 1,
        "total_api_calls": 1,
        "total_errors": 3,
    }
    assert answer["errors_by_type"] == {"timeout": 2, "none": 1}
    assert answer["daily_signups"] == [{"date": "2026-03-09", "count": 0}, {"date": "2026-03-10", "count": 1}]
    assert answer["daily_posts"][1] == {"date": "2026-03-10", "count": 1}


def test_the_same_event_sent_twice_happened_once(site: Site) -> None:
    body = {"event_type": "signup", "id": str(uuid7(NOW))}
    for _ in range(2):
        assert site.client.post(EVENT, json=body, headers=SERVICE).status_code == 202
    site.write()
    assert read(site, "/api/admin/sitewide-stats")["new_signups"] == 1


def test_site_events_are_told_by_servers_only(site: Site) -> None:
    body = {"event_type": "signup"}
    assert site.client.post(EVENT, json=body).status_code == 401
    for role in ("user", "moderator", "admin"):
        headers = bearer(site.settings, role)
        assert site.client.post(EVENT, json=body, headers=headers).status_code == 403
    assert site.client.post(EVENT, json=body, headers=bearer(site.settings, "service")).status_code == 202


WRONG_EVENTS: list[tuple[dict[str, object], str]] = [
    ({}, "event_type"),
    ({"event_type": "party"}, "event_type"),
    ({"event_type": 1}, "event_type"),
    ({"event_type": "error", "detail": 1}, "detail"),
    ({"event_type": "error", "occurred_at": "yesterday"}, "occurred_at"),
    ({"event_type": "error", "occurred_at": "2026-03-01T00:00:00Z"}, "occurred_at"),
    ({"event_type": "error", "ip": "x"}, "ip"),
    ({"event_type": "error", "country": "XYZ"}, "country"),
]


def test_a_wrong_site_event_is_400_by_its_name(site: Site) -> None:
    for body, field in WRONG_EVENTS:
        response = site.client.post(EVENT, json=body, headers=SERVICE)
        assert response.status_code == 400, body
        assert response.json is not None
        assert response.json["error"].startswith(f"{field}: "), body


@pytest.mark.parametrize("redis_enabled", [True, False])
def test_classes_of_details_over_the_cap_are_counted_as_other(
    settings: Settings, engine: Engine, redis: Redis, redis_enabled: bool
) -> None:
    with freeze_time(NOW), site_on(settings, engine, redis, redis_enabled=redis_enabled) as site:
        for n in range(stream.MOST_VIEW_TYPES + 5):
            body = {"event_type": "error", "detail": f"class {n:02}"}
            assert site.client.post(EVENT, json=body, headers=SERVICE).status_code == 202
        for _ in range(2):  # one that is known stays known
            site.client.post(EVENT, json={"event_type": "error", "detail": "class 00"}, headers=SERVICE)
        site.write()
        errors = read(site, "/api/admin/sitewide-stats")["errors_by_type"]
    assert len(errors) == stream.MOST_VIEW_TYPES + 1
    assert (errors["other"], errors["class_00"]) == (5, 3)


# Gaps


def alive(site: Site, *moments: datetime) -> None:
    """Let a process say at each of these moments that it lives."""
    for moment in moments:
        with site.engine.begin() as connection:
            liveness.note_alive(connection, moment)


def gaps(site: Site, days: int = 5) -> dict[str, set[str]]:
    """The days that each surface calls gaps."""
    asked = f"days={days}&refresh=true"
    sitewide = read(site, f"/api/admin/sitewide-stats?{asked}")
    exported = rows_of(site, f"/api/admin/export.csv?days={days}")
    return {
        "all": {day["date"] for day in sitewide["daily_views"] if day["gap"]},
        "signed in": {day["date"] for day in sitewide["daily_views_authenticated"] if day["gap"]},
        "export": {row[0] for row in exported if row[-1] == "true"},
        "ledger": {day for day, row in ledger(site, days).items() if row["gap"]},
    }


def everywhere(*days: str) -> dict[str, set[str]]:
    return dict.fromkeys(("all", "signed in", "export", "ledger"), set(days))


def test_days_before_the_first_sign_of_life_are_no_gaps(site: Site) -> None:
    assert gaps(site) == everywhere()
    alive(site, NOW)
    assert gaps(site) == everywhere()


def test_a_restart_within_ten_minutes_is_no_gap(site: Site) -> None:
    alive(site, *(NOW - n * timedelta(minutes=10) for n in range(12, -1, -1)))
    assert gaps(site) == everywhere()


def test_a_day_in_which_nobody_lived_for_longer_is_a_gap_everywhere(site: Site) -> None:
    at = NOW - 2 * DAY
    alive(site, at, at + timedelta(minutes=10, seconds=1))
    alive(site, *(at + n * timedelta(minutes=10) for n in range(2, 6 * 48)), NOW)
    view(site, "book/b1")
    assert gaps(site) == everywhere("2026-03-08")
    answer = read(site, "/api/stats/book/b1?days=3")
    assert [day["gap"] for day in answer["daily_views"]] == [True, False, False]
    assert [row[-1] for row in rows_of(site, "/api/stats/book/b1/export.csv?days=3")[1:]] == [
        "true",
        "false",
        "false",
    ]


def test_a_gap_over_midnights_is_one_of_every_day_it_touches(site: Site) -> None:
    midnight = datetime(2026, 3, 9, tzinfo=UTC)
    alive(site, midnight - timedelta(minutes=1), midnight + DAY + timedelta(minutes=1))
    alive(site, *(midnight + DAY + n * timedelta(minutes=9) for n in range(1, 81)))
    assert gaps(site) == everywhere("2026-03-08", "2026-03-09", "2026-03-10")


def test_a_gap_that_ends_at_midnight_is_none_of_the_next_day(site: Site) -> None:
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    alive(site, midnight - HOUR, *(midnight + n * timedelta(minutes=9) for n in range(81)))
    assert gaps(site) == everywhere("2026-03-09")


def test_a_gap_that_begins_at_midnight_is_none_of_the_day_before(site: Site) -> None:
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    alive(site, midnight, midnight + HOUR, *(midnight + HOUR + n * timedelta(minutes=9) for n in range(75)))
    assert gaps(site) == everywhere("2026-03-10")


def test_the_present_silence_is_a_gap_until_now(site: Site) -> None:
    alive(site, NOW - timedelta(minutes=10))
    assert gaps(site) == everywhere()
    with freeze_time(NOW + timedelta(seconds=1)):
        assert gaps(site) == everywhere("2026-03-10")


def test_a_silence_since_days_is_a_gap_of_all_of_them(site: Site) -> None:
    alive(site, NOW - 2 * DAY)
    assert gaps(site) == everywhere("2026-03-08", "2026-03-09", "2026-03-10")


def test_gaps_are_of_the_sites_days(settings: Settings, engine: Engine, redis: Redis, clean: None) -> None:
    zone = ZoneInfo("Asia/Kathmandu")  # its 11 March begins at 18:15 UTC
    evening = datetime(2026, 3, 10, 18, 30, tzinfo=UTC)
    with freeze_time(evening + HOUR), site_on(settings, engine, redis, time_zone=zone) as site:
        alive(site, evening, evening + timedelta(minutes=11), evening + HOUR)
        assert gaps(site) == everywhere("2026-03-11")


def test_signs_of_life_of_several_processes_make_one_line(site: Site) -> None:
    alive(site, NOW - HOUR, NOW, NOW - timedelta(seconds=30), NOW - HOUR)
    with site.engine.connect() as connection:
        assert connection.scalar(select(SiteRow.last_alive_at)) == NOW
        assert connection.execute(select(Gap.started_at, Gap.ended_at)).all() == [(NOW - HOUR, NOW)]


# What is there is not what is asked


@contextmanager
def answered_404(site: Site, url: str) -> Iterator[Any]:
    response = site.client.get(url, headers=bearer(site.settings, "moderator"))
    assert response.status_code == 404
    yield response.json


def test_any_page_is_found_by_its_path(site: Site) -> None:
    for path in ("/", "/a b", "/ä", "/a%2Fb", "/=1+1", "/export.csv"):
        view(site, path)
        asked = f"path={quote(path, safe='')}&days=1"
        assert read(site, f"/api/stats/page?{asked}")["entity_id"] == path
        assert rows_of(site, f"/api/stats/page/export.csv?{asked}")[1][1] == "1"


def test_what_was_never_viewed_but_told_of_has_empty_figures(site: Site) -> None:
    site.tell("book/b9", title="New")
    answer = read(site, "/api/stats/book/b9")
    assert (answer["total_views"], answer["all_time_views"], answer["first_view_at"]) == (0, 0, None)
    assert answer["views_by_country"] == {}
    with answered_404(site, "/api/stats/book/b10") as body:
        assert body["code"] == "not_found"


def test_a_first_view_that_is_not_written_yet_is_not_found_yet(site: Site) -> None:
    site.tell("book/b1")
    event = make_event(site.settings, NOW, entity_type="course", external_id="c1")
    stream.take(site.redis, [View(event)], [{}], NOW)
    with answered_404(site, "/api/stats/course/c1"):
        pass
    site.write()
    assert read(site, "/api/stats/course/c1")["total_views"] == 1
