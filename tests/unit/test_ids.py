"""Ids carry their moment."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from footfall.event import EPOCH
from footfall.ids import milliseconds_of, uuid7

NOW = datetime(2026, 11, 20, 8, 0, 0, 123456, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_7_with_its_moment() -> None:
    event_id = uuid7(NOW)
    assert event_id.version == 7
    assert event_id.variant == uuid4().variant
    milliseconds = milliseconds_of(event_id)
    assert milliseconds is not None
    assert EPOCH + timedelta(milliseconds=milliseconds) == NOW.replace(microsecond=123000)


@given(st.integers(0, 2**128 - 1))
def test_a_moment_is_in_version_7_of_the_rfcs_variant_only(number: int) -> None:
    event_id = UUID(int=number)
    has_moment = event_id.version == 7  # None in other variants
    assert milliseconds_of(event_id) == (number >> 80 if has_moment else None)
    seventh = UUID(int=number & ~(0xF << 76 | 0b11 << 62) | 7 << 76 | 0b10 << 62)
    assert milliseconds_of(seventh) == number >> 80


def test_ids_of_one_moment_differ_and_those_of_later_ones_are_higher() -> None:
    assert len({uuid7(NOW) for _ in range(1000)}) == 1000
    moments = [NOW + timedelta(microseconds=step) for step in range(0, 5000, 7)]
    ids = [uuid7(moment) for moment in moments]
    assert ids == sorted(ids)


def test_other_uuids_carry_no_moment() -> None:
    assert milliseconds_of(uuid4()) is None
    assert milliseconds_of(UUID(int=0)) is None
    assert milliseconds_of(UUID("017f22e2-79b0-7cc3-18c4-dc0c0c07398f")) is None  # Apollo's variant
    assert milliseconds_of(UUID("017f22e2-79b0-7cc3-d8c4-dc0c0c07398f")) is None  # Microsoft's
    # the example of RFC 9562, A.6
    assert milliseconds_of(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")) == 1645557742000
