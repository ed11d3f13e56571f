"""From the bytes of a request to a JSON object; whatever they are, the answer is an object or a 4xx."""

import json

from flask import request

from footfall.errors import Invalid, TooLarge, UnsupportedMediaType

# navigator.sendBeacon sends text as text/plain
MEDIA_TYPES = frozenset({"application/json", "text/plain"})


def json_object(limit_bytes: int, *, required: bool = True) -> dict[str, object]:
    """The request's body; an empty object for none, where none is required.

    Raises `Invalid`, `TooLarge` or `UnsupportedMediaType`.
    """
    if request.mimetype not in MEDIA_TYPES and (required or request.mimetype):
        raise UnsupportedMediaType("the body must be application/json or text/plain")
    data = _read(limit_bytes)
    return parse(data) if data or required else {}


def parse(data: bytes) -> dict[str, object]:
    """The JSON object in UTF-8 that `data` is. Raises `Invalid`."""
    if not data:
        raise Invalid("body", "is empty")
    try:
        value: object = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Invalid("body", "is not UTF-8") from None
    except RecursionError:
        raise Invalid("body", "is nested too deeply") from None
    except ValueError:
        raise Invalid("body", "is not JSON") from None
    if not isinstance(value, dict):
        raise Invalid("body", "must be a JSON object")
    return value


def _read(limit_bytes: int) -> bytes:
    """The whole body, chunked ones too. One byte over the limit is read to see that it is over.

    Without that byte, Werkzeug would hand out the first `limit_bytes` of an endless chunked body as if
    they were all of it.
    """
    request.max_content_length = limit_bytes + 1
    data = request.get_data(cache=False)
    if len(data) > limit_bytes:
        raise TooLarge(f"the body must be at most {limit_bytes} bytes")
    return data
