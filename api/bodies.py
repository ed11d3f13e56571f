"""From the bytes of a request to a JSON object; whatever they are, the answer is an object or a 4xx."""

import json
from functools import lru_cache

import orjson
from flask import request
from werkzeug.http import parse_options_header

from footfall.errors import Invalid, TooLarge, UnsupportedMediaType

# navigator.sendBeacon sends text as text/plain
MEDIA_TYPES = frozenset({"application/json", "text/plain"})


def json_object(limit_bytes: int, *, required: bool = True) -> dict[str, object]:
    """The request's body; an empty object for none, where none is required.

    Raises `Invalid`, `TooLarge` or `UnsupportedMediaType`.
    """
    if required or request.mimetype:
        require_media_type(request.headers.get("Content-Type", ""))
    data = _read(limit_bytes)
    return parse(data) if data or required else {}


def require_size(data: bytes, limit_bytes: int) -> None:
    """Raises `TooLarge` for a body of more than `limit_bytes`."""
    if len(data) > limit_bytes:
        raise TooLarge(f"the body must be at most {limit_bytes} bytes")


def require_media_type(content_type: str) -> None:
    """Raises `UnsupportedMediaType` for a Content-Type header of what no endpoint reads."""
    if not _is_read(content_type):
        raise UnsupportedMediaType("the body must be application/json or text/plain")


@lru_cache(maxsize=256)  # browsers send a handful
def _is_read(content_type: str) -> bool:
    return parse_options_header(content_type)[0].lower() in MEDIA_TYPES


def parse(data: bytes) -> dict[str, object]:
    """The JSON object in UTF-8 that `data` is. Raises `Invalid`."""
    if not data:
        raise Invalid("body", "is empty")
    value: object
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _parse_slowly(data)
    if not isinstance(value, dict):
        raise Invalid("body", "must be a JSON object")
    return value


def _parse_slowly(data: bytes) -> object:
    """What JSON allows and the fast parser does not (half a surrogate pair), or what is wrong with it."""
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Invalid("body", "is not UTF-8") from None
    except RecursionError:
        raise Invalid("body", "is nested too deeply") from None
    except ValueError:
        raise Invalid("body", "is not JSON") from None


def _read(limit_bytes: int) -> bytes:
    """The whole body, chunked ones too. One byte over the limit is read to see that it is over.

    Without that byte, Werkzeug would hand out the first `limit_bytes` of an endless chunked body as if
    they were all of it.
    """
    request.max_content_length = limit_bytes + 1
    data = request.get_data(cache=False)
    require_size(data, limit_bytes)
    return data
