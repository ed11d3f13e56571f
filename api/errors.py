"""Which exception is which status: the only place that knows. Every error is JSON, but for pages'."""

import logging
import traceback

from flask import Flask, Response, g, jsonify
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from api import pages
from footfall.errors import (
    FootfallError,
    Invalid,
    Limited,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    SchemaError,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)

log = logging.getLogger(__name__)

STATUS: dict[type[FootfallError], int] = {
    Invalid: 400,
    Limited: 429,
    NotAuthenticated: 401,
    NotAllowed: 403,
    NotFound: 404,
    SchemaError: 503,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    Unavailable: 503,
}
STORE_AWAY = (
    OperationalError,
    InterfaceError,
    PoolTimeoutError,
    RedisConnectionError,
    RedisTimeoutError,
)


def install(app: Flask) -> None:
    """Answer every error of `app` in JSON, or as a page where a page was asked for."""
    app.register_error_handler(FootfallError, _expected)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(RequestEntityTooLarge, _too_large)
    for kind in STORE_AWAY:
        app.register_error_handler(kind, _store_away)
    app.register_error_handler(Exception, _unexpected)


def _answer(status: int, text: str, code: str) -> Response:
    g.refused_for = code
    if pages.is_page():
        return pages.error(status, text)
    # some doors promise their own words for a failure that is ours
    failure = g.get("failure") if status >= 500 else None
    response = jsonify(error=failure or text, code=code)
    response.status_code = status
    return response


def _expected(error: FootfallError) -> Response:
    status = STATUS.get(type(error))
    if status is None:
        return _unexpected(error)
    response = _answer(status, str(error), error.code)
    if isinstance(error, Unavailable | Limited):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _too_large(_: RequestEntityTooLarge) -> Response:
    return _expected(TooLarge("the body is too large"))


def _http(error: HTTPException) -> Response:
    """Werkzeug's own (no such route, wrong method), with its headers but not its HTML."""
    answer = _answer(error.code or 500, error.name.lower(), error.name.lower().replace(" ", "_"))
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            answer.headers[name] = value
    return answer


def _store_away(error: Exception) -> Response:
    log.warning("a store does not answer", extra={"exception": type(error).__name__})
    return _expected(Unavailable("a store does not answer now"))


def _unexpected(error: Exception) -> Response:
    """A bug. The log says where; the message stays out of it, since it may quote what was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    log.error(
        "unexpected error",
        extra={
            "exception": f"{type(error).__module__}.{type(error).__qualname__}",
            "where": " < ".join(f"{one.filename}:{one.lineno}:{one.name}" for one in reversed(frames)),
        },
    )
    return _answer(500, "this is a bug of the server; its log says more", "internal")
