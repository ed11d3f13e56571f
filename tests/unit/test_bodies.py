"""Bodies: an object, or `Invalid` about the body; nothing else comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import bodies
from footfall.errors import Invalid


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"{", "is not JSON"),
        (b'{"path": "/"} x', "is not JSON"),
        (b'{"path": "\xff"}', "is not UTF-8"),
        ('{"path": "/"}'.encode("utf-16"), "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b'{"path":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b"9" * 10_000, "is not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"/"', "must be a JSON object"),
        (b"NaN", "must be a JSON object"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(Invalid, match=f"^body: {problem}$"):
        bodies.parse(data)


def test_an_object_is_read_and_the_last_of_equal_names_counts() -> None:
    assert bodies.parse(b'{"path": "/a", "path": "/b", "x": [1]}') == {"path": "/b", "x": [1]}


@given(st.binary() | st.text().map(str.encode))
def test_whatever_is_sent_it_is_an_object_or_invalid(data: bytes) -> None:
    try:
        found: object = bodies.parse(data)
    except Invalid:
        return
    assert isinstance(found, dict)
