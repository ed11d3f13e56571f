"""From a request to an event: who, what, when, and what must not come through."""

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall import intake
from footfall.clock import day_start
from footfall.errors import Invalid, NotAuthenticated
from footfall.event import DAY_FIELD, EPOCH, View, ViewEvent, decode, encode, fields_of, plain_event
from footfall.ids import uuid7
from footfall.intake import Edge, PageViews, Viewer
from footfall.visitors import day_key, visitor, visitor_of_user
from tests.factory import PEPPER, make_settings

NOW = datetime(2026, 11, 20, 0, 30, tzinfo=UTC)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
VIEWER = Viewer(address="192.0.2.1", user_agent=FIREFOX, user_id=None, country="DE")
SETTINGS = make_settings(FOOTFALL_SITE_DOMAINS="example.org")


def salt(day: date) -> bytes:
    return f"salt of {day}".encode()


def country_of(address: str) -> str | None:
    return "GB" if address == "192.0.2.9" else None


def owner_of(_entity_type: str, external_id: str) -> str | None:
    return "ann" if external_id == "anns" else None


def day_keys(days: Collection[date], _: datetime) -> dict[date, bytes]:
    return {day: day_key(PEPPER.encode(), salt(day)) for day in days}


EDGE = Edge(SETTINGS, day_keys, country_of, owner_of)


def view(viewer: Viewer = VIEWER, edge: Edge = EDGE, **body: object) -> ViewEvent:
    return intake.page_view({"path": "/a", **body}, viewer, NOW, edge)


def reported(**entry: object) -> ViewEvent:
    """The event of a batch with this one entry."""
    found = intake.batch({"events": [{"entity_type": "page", "entity_id": "/a", **entry}]}, NOW, EDGE)
    assert found.errors == []
    return found.views[0].event


def refusal(**entry: object) -> str:
    """What is wrong with this one entry of a batch."""
    found = intake.batch({"events": [{"entity_type": "page", "entity_id": "/a", **entry}]}, NOW, EDGE)
    assert found.views == []
    return str(found.errors[0]["error"])


def test_a_page_view_becomes_an_event() -> None:
    event = view(path="/a?q#f", referrer="https://news.example.com/x", ignored=[1])
    key = day_key(PEPPER.encode(), salt(date(2026, 11, 20)))
    assert event == ViewEvent(
        id=event.id,
        occurred_at=NOW,
        day=date(2026, 11, 20),
        entity_type="page",
        external_id="/a",
        view_type="intentional",
        view_source="web",
        outcome="counted",
        device="desktop",
        country="DE",
        referrer_domain="news.example.com",
        visitor=visitor(key, "192.0.2.1", FIREFOX),
        authenticated=False,
    )
    assert event.id.version == 7


def test_a_signed_in_viewer_is_known_by_the_user_id_alone() -> None:
    key = day_key(PEPPER.encode(), salt(date(2026, 11, 20)))
    for address in ("192.0.2.1", "192.0.2.2", None):
        event = view(VIEWER._replace(user_id="42", address=address))
        assert event.visitor == visitor_of_user(key, "42")
        assert event.authenticated


def test_a_crawlers_event_has_no_visitor_and_no_referrer() -> None:
    for user_agent in ("Googlebot/2.1", "", "-"):
        event = view(VIEWER._replace(user_agent=user_agent), referrer="https://news.example.com/")
        assert (event.outcome, event.visitor, event.referrer_domain) == ("bot", None, None)


def test_who_asks_not_to_be_traced_is_counted_and_no_visitor() -> None:
    for user_id in (None, "42"):
        event = view(VIEWER._replace(keep_no_visitor=True, user_id=user_id))
        assert (event.outcome, event.visitor) == ("counted", None)


def test_no_salt_is_asked_for_where_no_visitor_is_kept() -> None:
    def never(days: Collection[date], _: datetime) -> dict[date, bytes]:
        raise AssertionError(days)

    edge = replace(EDGE, day_keys=never)
    assert view(VIEWER._replace(user_agent="Googlebot/2.1"), edge=edge).outcome == "bot"
    assert view(VIEWER._replace(keep_no_visitor=True), edge=edge).visitor is None
    assert view(VIEWER._replace(address=None), edge=edge).visitor is None


def test_the_sites_own_domain_is_no_referrer() -> None:
    assert view(referrer="https://www.example.org/").referrer_domain is None
    here = VIEWER._replace(own_domains=frozenset({"here.example"}))
    assert view(here, referrer="https://here.example/").referrer_domain is None
    assert view(here, referrer="https://there.example/").referrer_domain == "there.example"


def test_a_version_7_id_decides_the_moment_and_the_day() -> None:
    late_evening = NOW - timedelta(hours=1)
    event = view(id=str(uuid7(late_evening)).upper())
    assert event.occurred_at == late_evening
    assert event.day == date(2026, 11, 19)
    key = day_key(PEPPER.encode(), salt(date(2026, 11, 19)))
    assert event.visitor == visitor(key, "192.0.2.1", FIREFOX)


@pytest.mark.parametrize("ago", [timedelta(hours=24), timedelta(0), timedelta(minutes=-5)])
def test_the_id_decides_up_to_its_limits(ago: timedelta) -> None:
    assert view(id=str(uuid7(NOW - ago))).occurred_at == NOW - ago


@pytest.mark.parametrize(
    "event_id",
    [
        uuid7(NOW - timedelta(hours=24, milliseconds=1)),
        uuid7(NOW + timedelta(minutes=5, milliseconds=1)),
        uuid4(),
        UUID(int=0),
        UUID(int=2**128 - 1),
        UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"),  # in the year 10889
    ],
)
def test_with_any_other_id_the_servers_clock_decides(event_id: UUID) -> None:
    event = view(id=str(event_id))
    assert (event.id, event.occurred_at) == (event_id, NOW)


def test_views_of_one_moment_are_of_their_own_days() -> None:
    moments = [NOW - timedelta(hours=1), NOW, NOW - timedelta(hours=2), NOW + timedelta(minutes=4)]
    bodies = [{"path": f"/{moment}", "id": str(uuid7(moment))} for moment in moments]
    together = PageViews(NOW, EDGE)
    read = [together.read(body, VIEWER) for body in bodies]
    assert [plain_event(one) for one in read] == [
        intake.page_view(body, VIEWER, NOW, EDGE) for body in bodies
    ]
    assert [fields_of(plain_event(one)) for one in read] == read
    assert len({one[DAY_FIELD] for one in read}) == len({plain_event(one).visitor for one in read}) == 2


@given(
    st.datetimes(datetime(2026, 3, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    st.timedeltas(timedelta(minutes=-5), timedelta(hours=24)),
    st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "America/Havana"]),
)
def test_the_day_is_the_sites_whatever_its_clocks_do(now: datetime, ago: timedelta, zone: str) -> None:
    edge = replace(EDGE, settings=make_settings(FOOTFALL_TIME_ZONE=zone))
    event_id = uuid7(now - ago)
    event = intake.page_view({"path": "/a", "id": str(event_id)}, VIEWER, now, edge)
    told = EPOCH + timedelta(milliseconds=event_id.int >> 80)
    assert event.occurred_at in (told, now)  # now, where a part of a millisecond made it too old
    assert event.day == event.occurred_at.astimezone(ZoneInfo(zone)).date()


@pytest.mark.parametrize("today", [date(2026, 3, 8), date(2026, 6, 1), date(2026, 11, 1)])
@pytest.mark.parametrize("side", [timedelta(minutes=-1), timedelta(minutes=1)])
def test_a_day_ends_where_the_next_begins(today: date, side: timedelta) -> None:
    """In New York, where the first of these has 23 hours and the last 25."""
    edge = replace(EDGE, settings=make_settings(FOOTFALL_TIME_ZONE="America/New_York"))
    midnight = day_start(today + timedelta(days=1), ZoneInfo("America/New_York"))
    views = PageViews(midnight + side, edge)
    for after in (timedelta(0), timedelta(minutes=2)):
        told = midnight + after
        for moment, day in ((told, today + timedelta(days=1)), (told - timedelta(minutes=3), today)):
            found = plain_event(views.read({"path": "/a", "id": str(uuid7(moment))}, VIEWER))
            assert (found.occurred_at, found.day) == (moment, day)
    last = midnight - timedelta(milliseconds=1)
    assert plain_event(views.read({"path": "/a", "id": str(uuid7(last))}, VIEWER)).day == today


def test_the_day_is_the_sites() -> None:
    settings = make_settings(FOOTFALL_TIME_ZONE="America/New_York")
    assert view(edge=replace(EDGE, settings=settings)).day == date(2026, 11, 19)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", None),
        ("path", 1),
        ("path", ["/"]),
        ("path", {}),
        ("path", "x"),
        ("path", "/" + "x" * 10_000),
        ("path", "/\ud800"),
        ("path", "/\x00"),
        ("referrer", 1),
        ("referrer", ["https://example.com"]),
        ("id", "no"),
        ("id", 7),
        ("id", "\ud800"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(Invalid, match=f"^{field}: "):
        intake.page_view({"path": "/a", field: value}, VIEWER, NOW, EDGE)


def test_a_browser_does_not_say_how_a_page_was_viewed() -> None:
    event = view(view_type="card_view", view_source=1, occurred_at="2020-01-01T00:00:00Z", country="FR")
    assert (event.view_type, event.view_source) == ("intentional", "web")
    assert (event.occurred_at, event.country) == (NOW, "DE")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["/", "page", "book", "web", "DE", "192.0.2.1", str(uuid4()), str(uuid7(NOW))]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *("path", "referrer", "id", "entity_type", "entity_id", "view_type", "view_source"),
        *("occurred_at", "ip", "user_agent", "user_id", "country"),
    ]
)


@given(st.dictionaries(FIELDS, JSON_VALUES))
def test_whatever_the_body_a_page_view_is_an_event_or_invalid(body: dict[str, Any]) -> None:
    try:
        event = intake.page_view(body, VIEWER, NOW, EDGE)
    except Invalid:
        return
    assert decode(encode([event])) == [event]
    assert plain_event(fields_of(event)) == event


@given(
    st.dictionaries(
        FIELDS,
        JSON_VALUES | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    ).map(lambda entry: {"entity_type": "page", "entity_id": "/a", **entry})
)
def test_whatever_the_entry_a_batch_keeps_it_or_names_what_is_wrong(entry: dict[str, Any]) -> None:
    found = intake.batch({"events": [entry]}, NOW, EDGE)
    assert len(found.views) + len(found.errors) == 1
    events = [view.event for view in found.views]
    assert not events or decode(encode(events)) == events
    json.dumps(found.errors)


@given(JSON_VALUES)
def test_whatever_the_events_a_batch_is_a_batch_or_invalid(events: object) -> None:
    try:
        found = intake.batch({"events": events}, NOW, EDGE)
    except Invalid:
        assert not isinstance(events, list)
        return
    assert isinstance(events, list)
    assert len(found.views) + len(found.errors) == len(events)


def test_a_reported_view_becomes_an_event() -> None:
    event_id = uuid4()
    event = reported(
        id=str(event_id),
        entity_type="book",
        entity_id="book-1",
        view_type="card_view",
        view_source="widget",
        referrer="https://www.example.org/",
        occurred_at="2026-11-19T23:00:00+01:00",
        ip="::ffff:192.0.2.1",
        user_agent=FIREFOX,
        country="de",
    )
    key = day_key(PEPPER.encode(), salt(date(2026, 11, 19)))
    assert event == ViewEvent(
        id=event_id,
        occurred_at=datetime(2026, 11, 19, 22, tzinfo=UTC),
        day=date(2026, 11, 19),
        entity_type="book",
        external_id="book-1",
        view_type="card_view",
        view_source="widget",
        outcome="counted",
        device="desktop",
        country="DE",
        referrer_domain=None,
        visitor=visitor(key, "192.0.2.1", FIREFOX),
        authenticated=False,
    )


def test_a_reported_view_without_a_user_agent_is_a_bots() -> None:
    assert reported(ip="192.0.2.1").outcome == "bot"
    assert reported(ip="192.0.2.1", user_agent="-").outcome == "bot"


def test_a_reported_view_without_an_address_has_no_visitor_unless_signed_in() -> None:
    assert reported(user_agent=FIREFOX).visitor is None
    event = reported(user_agent=FIREFOX, user_id="42")
    assert event.visitor is not None
    assert event.authenticated


def test_the_country_comes_from_the_address_when_it_is_not_told() -> None:
    assert reported(ip="192.0.2.9").country == "GB"
    assert reported(ip="192.0.2.9", country="FR").country == "FR"
    assert reported(country="XX").country is None
    assert reported(country="t1").country is None


def test_null_is_as_good_as_absent() -> None:
    nulls = dict.fromkeys(("id", "occurred_at", "ip", "user_agent", "user_id", "country", "referrer"))
    assert reported(**nulls, view_type=None, view_source=None).view_type == "intentional"


def test_a_path_reported_as_an_entity_is_cut_like_any_path() -> None:
    assert reported(entity_id="/a?b").external_id == "/a"
    assert reported(entity_type="book", entity_id="a?b").external_id == "a?b"


def test_occurred_at_decides_also_against_the_id() -> None:
    event = reported(id=str(uuid7(NOW)), occurred_at="2026-11-18T12:00:00Z")
    assert event.day == date(2026, 11, 18)


def test_a_version_7_id_tells_the_time_of_a_reported_view() -> None:
    moment = NOW - timedelta(days=3)
    assert reported(id=str(uuid7(moment))).occurred_at == moment


def content(entity: tuple[str, str], viewer: Viewer = VIEWER, edge: Edge = EDGE, **body: object) -> View:
    """A viewer's own view of some content."""
    return intake.content_view(body, entity, viewer, NOW, edge)


def test_a_content_view_becomes_an_event_of_what_was_viewed() -> None:
    event_id = uuid7(NOW - timedelta(hours=1))
    seen = content(("post", "p1"), view_type="listing", view_source="widget", id=str(event_id))
    assert (seen.event.entity_type, seen.event.external_id) == ("post", "p1")
    assert (seen.event.view_type, seen.event.view_source) == ("listing", "widget")
    assert (seen.event.id, seen.event.day) == (event_id, date(2026, 11, 19))
    assert seen.has_clients_id
    assert not content(("post", "p1")).has_clients_id


def test_a_book_needs_a_signed_in_user_unless_a_setting_lifts_it() -> None:
    with pytest.raises(NotAuthenticated):
        content(("book", "b1"))
    assert content(("book", "b1"), VIEWER._replace(user_id="42")).event.outcome == "counted"
    open_ = replace(EDGE, settings=make_settings(FOOTFALL_REQUIRE_SIGN_IN="false"))
    assert content(("book", "b1"), edge=open_).event.outcome == "counted"


@pytest.mark.parametrize("kind", ["post", "blog_post", "story", "chapter"])
def test_the_owners_view_is_own_and_takes_no_slot(kind: str) -> None:
    mine = content((kind, "anns"), VIEWER._replace(user_id="ann"))
    assert (mine.event.outcome, mine.event.slot) == ("own", None)
    assert content((kind, "anns"), VIEWER._replace(user_id="bob")).event.outcome == "counted"
    assert content((kind, "anns")).event.outcome == "counted"
    assert content((kind, "bobs"), VIEWER._replace(user_id="ann")).event.outcome == "counted"


@pytest.mark.parametrize("kind", ["page", "book", "resource", "course"])
def test_where_own_views_count_nobody_asks_for_the_owner(kind: str) -> None:
    def never(*name: str) -> str | None:
        raise AssertionError(name)

    viewer = VIEWER._replace(user_id="ann")
    assert content((kind, "/anns"), viewer, replace(EDGE, owner_of=never)).event.outcome == "counted"


def test_a_bot_of_the_owners_is_a_bot() -> None:
    assert content(("story", "anns"), VIEWER._replace(user_id="ann", user_agent="")).event.outcome == "bot"


def test_only_types_with_a_window_have_slots_which_end_with_it() -> None:
    for kind in ("story", "chapter"):
        event = content((kind, "s1")).event
        assert event.slot is not None
        assert event.slot_ends_at == NOW + timedelta(hours=24)
    short = replace(EDGE, settings=make_settings(VIEW_DEDUP_TTL_HOURS="0.5"))
    assert content(("story", "s1"), edge=short).event.slot_ends_at == NOW + timedelta(minutes=30)
    assert content(("post", "p1")).event.slot is None


def test_a_slot_is_of_the_viewer_and_the_entity_and_of_now_whatever_the_ids_time() -> None:
    slot = content(("story", "s1")).event.slot
    yesterdays = content(("story", "s1"), id=str(uuid7(NOW - timedelta(hours=20))))
    assert yesterdays.event.day == date(2026, 11, 19)
    assert yesterdays.event.slot == slot
    others = [
        content(("story", "s2")),
        content(("chapter", "s1")),
        content(("story", "s1"), VIEWER._replace(address="192.0.2.2")),
        content(("story", "s1"), VIEWER._replace(user_agent="Mozilla/5.0 other")),
        content(("story", "s1"), VIEWER._replace(user_id="42")),
    ]
    assert len({slot, *(other.event.slot for other in others)}) == 6


def test_a_slot_has_the_name_that_it_will_have_as_yesterdays() -> None:
    today = content(("story", "s1"))
    tomorrow = intake.content_view({}, ("story", "s1"), VIEWER, NOW + timedelta(days=1), EDGE)
    assert tomorrow.slot_of_yesterday == today.event.slot
    assert tomorrow.event.slot != today.event.slot


def test_who_asks_not_to_be_kept_has_a_slot_and_who_is_nobody_or_a_bot_has_none() -> None:
    kept_out = content(("story", "s1"), VIEWER._replace(keep_no_visitor=True)).event
    assert kept_out.visitor is None
    assert kept_out.slot == content(("story", "s1")).event.slot
    for viewer in (VIEWER._replace(address=None), VIEWER._replace(user_agent="Googlebot/2.1")):
        assert content(("story", "s1"), viewer).event.slot is None
    assert content(("story", "s1"), VIEWER._replace(address=None, user_id="42")).event.slot is not None


def test_a_slot_and_its_end_cross_the_queue() -> None:
    event = content(("story", "s1"), id=str(uuid4())).event
    assert decode(encode([event])) == [event]


def test_a_reported_view_of_a_story_has_the_slot_that_the_viewer_would_have() -> None:
    own = content(("story", "s1")).event
    told = reported(
        entity_type="story",
        entity_id="s1",
        ip="192.0.2.1",
        user_agent=FIREFOX,
        occurred_at=(NOW - timedelta(days=3)).isoformat(),
    )
    assert (told.slot, told.slot_ends_at) == (own.slot, own.slot_ends_at)
    assert told.day == date(2026, 11, 17)


@pytest.mark.parametrize(
    ("entity", "body", "field"),
    [
        (("podcast", "x"), {}, "entity_type"),
        (("site", "site"), {}, "entity_type"),
        (("story", ""), {}, "entity_id"),
        (("story", "x" * 256), {}, "entity_id"),
        (("page", "x"), {}, "entity_id"),
        (("post", "x"), {"view_type": "card_view"}, "view_type"),
        (("resource", "x"), {"view_type": "A"}, "view_type"),
        (("story", "x"), {"view_source": "tv"}, "view_source"),
        (("story", "x"), {"id": 7}, "id"),
    ],
)
def test_a_wrong_field_of_a_content_view_is_named(
    entity: tuple[str, str], body: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid, match=f"^{field}: "):
        intake.content_view(body, entity, VIEWER, NOW, EDGE)


def test_without_id_and_time_a_reported_view_is_of_now() -> None:
    event = reported()
    assert (event.occurred_at, event.id.version) == (NOW, 7)


@pytest.mark.parametrize(
    ("ago", "accepted"),
    [
        (timedelta(days=6), True),
        (timedelta(days=6, milliseconds=1), False),
        (timedelta(minutes=-5), True),
        (timedelta(minutes=-5, milliseconds=-1), False),
    ],
)
def test_a_batch_reaches_back_one_day_less_than_raw_events_are_kept(ago: timedelta, accepted: bool) -> None:
    moment = NOW - ago
    if accepted:
        assert reported(occurred_at=moment.isoformat()).occurred_at == moment
        assert reported(id=str(uuid7(moment))).occurred_at == moment
    else:
        assert refusal(occurred_at=moment.isoformat()).startswith("occurred_at: ")
        assert refusal(id=str(uuid7(moment))).startswith("id: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entity_type", None),
        ("entity_type", "site"),
        ("entity_type", ["page"]),
        ("entity_id", None),
        ("entity_id", 7),
        ("entity_id", "no-slash"),
        ("view_type", "Card View"),
        ("view_type", 1),
        ("view_source", "elsewhere"),
        ("referrer", {}),
        ("occurred_at", "2026-11-20T00:00:00"),
        ("occurred_at", "0001-01-01T00:00:00+14:00"),
        ("occurred_at", "9999-12-31T23:59:59-14:00"),
        ("occurred_at", 1_700_000_000),
        ("ip", "somewhere"),
        ("ip", ""),
        ("ip", 1),
        ("user_agent", 1),
        ("user_id", ""),
        ("user_id", 42),
        ("user_id", "\x00"),
        ("country", "DEU"),
        ("country", ""),
        ("country", 49),
        ("id", "7"),
    ],
)
def test_a_wrong_field_of_a_reported_view_is_named(field: str, value: object) -> None:
    assert refusal(**{field: value}).startswith(f"{field}: ")


def test_a_version_4_id_needs_its_time() -> None:
    assert refusal(id=str(uuid4())).startswith("occurred_at: is required")


def test_one_malformed_event_costs_itself_only() -> None:
    entries: list[object] = [{"entity_type": "page", "entity_id": f"/{number}"} for number in range(998)]
    entries[500:500] = [{"entity_type": "page"}, "not an object"]
    found = intake.batch({"events": entries}, NOW, EDGE)
    assert len(found.views) == 998
    assert found.errors == [
        {"index": 500, "error": "entity_id: is required"},
        {"index": 501, "error": "event: must be an object"},
    ]
    assert {view.event.outcome for view in found.views} == {"bot"}
    assert found.indexes == [
        index for index in range(1000) if index not in {e["index"] for e in found.errors}
    ]


@pytest.mark.parametrize("events", [None, {}, "x", 1, [{}] * 1001])
def test_a_batch_is_a_list_of_at_most_1000(events: object) -> None:
    with pytest.raises(Invalid, match="^events: "):
        intake.batch({"events": events}, NOW, EDGE)
    assert intake.batch({"events": []}, NOW, EDGE).views == []


def test_the_salts_of_all_days_of_a_batch_are_asked_for_at_once() -> None:
    asked: list[set[date]] = []

    def note(days: Collection[date], now: datetime) -> dict[date, bytes]:
        asked.append(set(days))
        return day_keys(days, now)

    entries = [
        {
            "entity_type": "page",
            "entity_id": "/a",
            "ip": "192.0.2.1",
            "user_agent": FIREFOX,
            "occurred_at": (NOW - timedelta(days=back)).isoformat(),
        }
        for back in (0, 1, 2, 1, 0)
    ]
    intake.batch({"events": entries}, NOW, replace(EDGE, day_keys=note))
    assert asked == [{date(2026, 11, 20), date(2026, 11, 19), date(2026, 11, 18)}]
