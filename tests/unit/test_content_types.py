"""The table of content types: what each says, and what an entry may say."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from footfall import fields
from footfall.content_types import CONTENT_TYPES, ContentType
from footfall.errors import Invalid

TYPES = list(CONTENT_TYPES.values())


def names(wanted: str) -> set[str]:
    """The types whose flag of that name is set."""
    return {one.name for one in TYPES if getattr(one, wanted)}


def test_the_types_differ_in_what_the_documents_say() -> None:
    assert set(CONTENT_TYPES) == {
        *("page", "post", "blog_post", "book"),
        *("story", "chapter", "resource", "course"),
    }
    assert names("has_window") == {"story", "chapter"}
    assert set(CONTENT_TYPES) - names("counts_own_views") == {"post", "blog_post", "story", "chapter"}
    assert names("needs_sign_in") == {"book"}
    assert names("external_id_is_path") == {"page"}
    assert names("view_types") == {"post", "blog_post"}


@pytest.mark.parametrize("content_type", TYPES, ids=lambda one: one.name)
def test_an_entry_fits_the_columns_and_stands_under_its_name(content_type: ContentType) -> None:
    assert CONTENT_TYPES[content_type.name] is content_type
    assert re.fullmatch("[a-z][a-z0-9_]{0,39}", content_type.name)
    for view_type in content_type.view_types or ():
        assert fields.view_type(content_type, view_type, "view_type") == view_type


def test_doors_do_not_stand_in_each_others_way() -> None:
    doors = [one.door for one in TYPES if one.door]
    named_by_path = [door.path for door in doors if "<entity_id>" in door.path]
    stats = [door.stats_path for door in doors if door.stats_path]
    assert max(Counter([*named_by_path, *stats]).values()) == 1
    assert {door.path for door in doors if "<entity_id>" not in door.path} == {"/views"}
    assert all(path.startswith("/") and path.count("<") == 1 for path in [*named_by_path, *stats])


def test_a_type_with_a_list_takes_what_is_on_it_and_one_without_takes_any() -> None:
    post, book = CONTENT_TYPES["post"], CONTENT_TYPES["book"]
    assert fields.view_type(book, "whatever_2", "viewType") == "whatever_2"
    assert fields.view_type(replace(post, view_types=frozenset({"a"})), "a", "view_type") == "a"
    for content_type, value in ((post, "whatever_2"), (book, "Whatever"), (book, ""), (book, "x" * 41)):
        with pytest.raises(Invalid, match="^view_type: "):
            fields.view_type(content_type, value, "view_type")
