"""The envelope: what goes in comes out, and what cannot be read says why."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall.event import DEVICES, OUTCOMES, UNKNOWN_COUNTRY, Unreadable, ViewEvent, decode, encode

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
events = st.builds(
    ViewEvent,
    id=st.uuids(),
    occurred_at=st.datetimes(datetime(2015, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    day=st.dates(date(2015, 1, 1), date(2040, 1, 1)),
    entity_type=texts,
    external_id=texts,
    view_type=texts,
    view_source=texts,
    outcome=st.sampled_from(sorted(OUTCOMES)),
    device=st.sampled_from(sorted(DEVICES)),
    country=st.none() | texts.filter(lambda country: country != UNKNOWN_COUNTRY),  # which is read as None
    referrer_domain=st.none() | texts,
    visitor=st.none() | st.integers(-(2**63), 2**63 - 1),
    authenticated=st.booleans(),
    slot=st.none(),
    slot_ends_at=st.none(),
)


@given(st.lists(events, min_size=1, max_size=5))
def test_a_group_comes_out_as_it_went_in(group: list[ViewEvent]) -> None:
    assert decode(encode(group)) == group


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_unreadable(payload: bytes) -> None:
    with suppress(Unreadable):
        assert all(isinstance(one, ViewEvent | Unreadable) for one in decode(payload))


@given(events, st.integers(0, 12), st.none() | st.integers() | st.lists(st.integers()) | st.floats())
def test_a_wrong_field_never_spoils_the_group(event: ViewEvent, position: int, value: object) -> None:
    version, rows = json.loads(encode([event, event]))
    rows[0][position] = value
    _, second = decode(json.dumps([version, rows]).encode())
    assert second == event


WRONG: dict[int, list[object]] = {
    0: [None, 7, "", "0" * 31, "0" * 33, "0" * 30 + " 0", "0" * 30 + " 00", "g" * 32],
    1: [None, True, 1.5, "1", 10**18, -(10**17)],
    2: [None, 20260310, "", "2026-13-01"],
    11: [True, 1.5, "1", 2**63, -(2**63) - 1],
    12: [None, 0, 1, "true"],
    **{place: [None, 7, True, "\x00"] for place in (3, 4, 5, 6, 7, 8)},
    **{place: [7, True, "\x00"] for place in (9, 10)},
    13: ["0", None],
    14: [None, 1.5, 10**18],
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place in WRONG for value in WRONG[place]])
def test_an_event_with_a_wrong_field_is_unreadable_and_the_others_are_not(place: int, value: object) -> None:
    moment = datetime(2026, 3, 10, tzinfo=UTC)
    event = ViewEvent(
        UUID(int=1), moment, moment.date(), "page", "/", "a", "b", "bot", "other", "DE", "x", 7, True
    )
    slotted = event._replace(slot=b"1" * 16, slot_ends_at=moment)
    version, rows = json.loads(encode([slotted, slotted, event]))
    rows[0][place] = value
    first, *others = decode(json.dumps([version, rows]).encode())
    assert others == [slotted, event]
    assert isinstance(first, Unreadable)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"[1]", b"[1,[]]", b'[1,"x"]', b"[2,[[]]]", b"null", b"\xff", b"[" * 100_000],
)
def test_what_is_no_envelope_says_so(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(payload)


def test_an_event_is_small_on_the_wire() -> None:
    moment = datetime(2026, 3, 10, tzinfo=UTC) + timedelta(microseconds=1)
    event = ViewEvent(
        id=UUID(int=1),
        occurred_at=moment,
        day=moment.date(),
        entity_type="page",
        external_id="/blog/a-page-of-usual-length",
        view_type="intentional",
        view_source="web",
        outcome="counted",
        device="desktop",
        country="DE",
        referrer_domain="www.example.org",
        visitor=2**62,
        authenticated=False,
    )
    assert len(encode([event])) < 250
