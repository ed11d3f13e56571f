"""The checks of single values that come from outside. Every failure names its field."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from footfall.content_types import CONTENT_TYPES, ContentType
from footfall.errors import Invalid

MAX_PATH_BYTES = 2048  # a longer one does not fit an index
MAX_URL_CHARACTERS = 16_384  # of a path with its query and fragment, before these are cut off
MAX_ID_BYTES = 255
MAX_MOMENT_CHARACTERS = 64
# C0, DEL and C1 controls; halves of surrogate pairs, which have no UTF-8 and PostgreSQL cannot hold
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# without a repeated group, which costs twice as much
UUID_TEXT = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
VIEW_TYPE = re.compile(r"[a-z0-9_]{1,40}")
VIEW_SOURCES = frozenset({"web", "api", "widget", "player"})
NO_DETAIL = "none"
WHOLE_NUMBER = re.compile(r"[0-9]{1,6}")

Body = Mapping[str, object]


def optional_text(body: Body, field: str) -> str | None:
    """The field's text; None when it is absent or null."""
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise Invalid(field, "must be a string")
    return value


def text(body: Body, field: str) -> str:
    """The field's text, which has to be there."""
    value = optional_text(body, field)
    if value is None:
        raise Invalid(field, "is required")
    return value


def optional_object(body: Body, field: str, name: str | None = None) -> Body | None:
    """The field's object; None when it is absent or null. `name` is what errors call it."""
    value = body.get(field)
    if value is not None and not isinstance(value, dict):
        raise Invalid(name or field, "must be an object")
    return value


def line(value: str, field: str, most_bytes: int) -> str:
    """A text without control characters, as it came."""
    _check_text(value, field, most_bytes)
    return value


def path(value: str, field: str) -> str:
    """A page's path: `value` without query and fragment, the rest as it came."""
    if len(value) > MAX_URL_CHARACTERS:
        raise Invalid(field, f"must be at most {MAX_URL_CHARACTERS} characters")
    kept = value.partition("#")[0].partition("?")[0]
    if not kept.startswith("/"):
        raise Invalid(field, "must start with /")
    _check_text(kept, field, MAX_PATH_BYTES)
    return kept


def identifier(value: str, field: str) -> str:
    """The host site's id of something, as it came."""
    if not value:
        raise Invalid(field, "must not be empty")
    _check_text(value, field, MAX_ID_BYTES)
    return value


def external_id(content_type: ContentType, value: str, field: str) -> str:
    """The host site's name of an entity of that type."""
    return path(value, field) if content_type.external_id_is_path else identifier(value, field)


def content_type(value: str, field: str) -> ContentType:
    """The content type of that name."""
    found = CONTENT_TYPES.get(value)
    if found is None:
        raise Invalid(field, f"must be one of {', '.join(CONTENT_TYPES)}")
    return found


def view_type(content_type: ContentType, value: str, field: str) -> str:
    """The kind of view, in the host site's words; one of the type's where it has a list."""
    if not VIEW_TYPE.fullmatch(value):
        raise Invalid(field, "must be 1 to 40 of a-z, 0-9 and _")
    if content_type.view_types is not None and value not in content_type.view_types:
        raise Invalid(field, f"must be one of {', '.join(sorted(content_type.view_types))}")
    return value


def detail_class(value: str) -> str:
    """A free text as a view type: lower case, everything else folded to _, cut off."""
    return re.sub(r"[^a-z0-9]+", "_", value.lower())[:40].strip("_") or NO_DETAIL


def view_source(value: str, field: str) -> str:
    """What showed the thing."""
    if value not in VIEW_SOURCES:
        raise Invalid(field, f"must be one of {', '.join(sorted(VIEW_SOURCES))}")
    return value


def one_of(value: str, field: str, known: Collection[str]) -> str:
    """One of the words that are known."""
    if value not in known:
        raise Invalid(field, f"must be one of {', '.join(known)}")
    return value


def uuid(value: str, field: str) -> UUID:
    """A UUID of any version in its usual spelling."""
    return UUID(int=int(uuid_digits(value, field), 16))


def uuid_digits(value: str, field: str) -> str:
    """The 32 hexadecimal digits of a UUID, in lower case; checked as `uuid` does, and cheaper."""
    if not UUID_TEXT.fullmatch(value):
        raise Invalid(field, "must be a UUID")
    return value.replace("-", "").lower()


def moment(value: str, field: str) -> datetime:
    """An ISO 8601 moment with its offset."""
    problem = "must be an ISO 8601 date and time with an offset"
    if len(value) > MAX_MOMENT_CHARACTERS:
        raise Invalid(field, problem)
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid(field, problem) from None
    if parsed.utcoffset() is None:
        raise Invalid(field, problem)
    return parsed


def whole_number(value: str, field: str, least: int, most: int) -> int:
    """A number from `least` to `most` in decimal digits."""
    if not WHOLE_NUMBER.fullmatch(value) or not least <= int(value) <= most:
        raise Invalid(field, f"must be a whole number from {least} to {most}")
    return int(value)


def _check_text(value: str, field: str, most_bytes: int) -> None:
    if value.isascii() and value.isprintable() and len(value) <= most_bytes:
        return  # nearly always, and the cheapest way to see it
    if UNPRINTABLE.search(value):
        raise Invalid(field, "must not contain control characters or lone surrogates")
    if len(value.encode()) > most_bytes:
        raise Invalid(field, f"must be at most {most_bytes} bytes")
