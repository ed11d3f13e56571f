"""Single values: kept as they came, or refused by name."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall import fields
from footfall.content_types import PAGE
from footfall.errors import Invalid


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("/", "/"),
        ("/a/b.html?utm=x#top", "/a/b.html"),
        ("/a#b?c", "/a"),
        ("/a?b#c", "/a"),
        ("//double//slash/", "//double//slash/"),
        ("/caf%C3%A9/%2f/%zz", "/caf%C3%A9/%2f/%zz"),
        ("/Ünicode and blanks", "/Ünicode and blanks"),
        ("/" + "x" * 2047, "/" + "x" * 2047),
        ("/a?" + "x" * 16_000, "/a"),
        ("/a?\x00", "/a"),
    ],
)
def test_a_path_is_kept_byte_for_byte_without_query_and_fragment(sent: str, kept: str) -> None:
    assert fields.path(sent, "path") == kept


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "a",
        "?a",
        "#/a",
        "https://example.com/a",
        "/" + "x" * 2048,
        "/" + "ü" * 1024,
        "/a?" + "x" * 17_000,
        "/\x00",
        "/\x1f",
        "/\x7f",
        "/\x9f",
        "/a\nb",
        "/\ud800",
        "/\udfff...",
    ],
)
def test_a_bad_path_is_refused_by_the_fields_name(sent: str) -> None:
    with pytest.raises(Invalid, match="^path: "):
        fields.path(sent, "path")


@given(
    st.text(st.characters(exclude_categories=()))
    | st.text(st.characters(exclude_categories=())).map("/".__add__)
)
def test_an_accepted_path_fits_every_store(sent: str) -> None:
    try:
        kept = fields.path(sent, "path")
    except Invalid:
        return
    assert kept.startswith("/")
    assert sent.startswith(kept)
    assert len(kept.encode()) <= 2048
    assert not set(kept) & set("?#\0")


@pytest.mark.parametrize("sent", ["", "x" * 256, "ü" * 128, "a\x00", "a\tb", "\ud800"])
def test_a_bad_id_is_refused(sent: str) -> None:
    with pytest.raises(Invalid, match="^entity_id: "):
        fields.identifier(sent, "entity_id")


def test_an_id_is_kept_as_it_came() -> None:
    assert fields.identifier(" A/ü?1 ", "entity_id") == " A/ü?1 "


@pytest.mark.parametrize("sent", ["", "Card", "card view", "x" * 41, "card\n", "ａ"])
def test_a_bad_view_type_is_refused(sent: str) -> None:
    with pytest.raises(Invalid, match="^view_type: "):
        fields.view_type(PAGE, sent, "view_type")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        " 017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398ff",
        "017f22e2-79b0-7cc3-98c4dc0c0c07-398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07_98f",  # int() takes it, and the next two
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398٣",
        "+17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398ｆ",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2\u201079b0\u20107cc3\u201098c4\u2010dc0c0c07398f",
    ],
)
@pytest.mark.parametrize("read", [fields.uuid, fields.uuid_digits])
def test_an_id_of_an_event_is_a_uuid_in_its_usual_spelling(
    read: Callable[[str, str], object], sent: str
) -> None:
    with pytest.raises(Invalid, match="^id: "):
        read(sent, "id")


@given(st.uuids(), st.booleans())
def test_an_id_is_the_same_in_capitals(event_id: UUID, is_upper: bool) -> None:
    sent = str(event_id).upper() if is_upper else str(event_id)
    assert fields.uuid(sent, "id") == event_id
    assert fields.uuid_digits(sent, "id") == event_id.hex


@pytest.mark.parametrize(
    "sent", ["", "soon", "2026-11-20", "2026-11-20T08:00:00", "1700000000", "\ud800", "9" * 99]
)
def test_a_moment_has_an_offset(sent: str) -> None:
    with pytest.raises(Invalid, match="^occurred_at: "):
        fields.moment(sent, "occurred_at")


@pytest.mark.parametrize(
    "sent", ["2026-11-20T08:00:00Z", "2026-11-20T08:00:00+00:00", "2026-11-20T09:30:00+01:30"]
)
def test_a_moment_is_read_with_its_offset(sent: str) -> None:
    assert fields.moment(sent, "occurred_at") == datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.mark.parametrize("sent", ["", "0", "31", "-1", "1.5", "٣", "1_0", " 7", "1e1", "9" * 5000])
def test_a_number_is_whole_and_within_its_bounds(sent: str) -> None:
    with pytest.raises(Invalid, match="^days: must be a whole number from 1 to 30"):
        fields.whole_number(sent, "days", 1, 30)
