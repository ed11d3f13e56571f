"""The script that sites put on their pages. Other sites load it, so it says less about itself than a page."""

from functools import cache

from flask import Blueprint, Response, make_response, redirect, request
from flask.typing import ResponseReturnValue

from api import pages

FILE = "footfall.js"
HOUR, YEAR = 3_600, 31_536_000  # seconds
# A page that keeps the plain URL gets a new version within the hour, and never waits for it
FRESH = f"public, max-age={HOUR}, stale-while-revalidate={24 * HOUR}"
FOR_GOOD = f"public, max-age={YEAR}, immutable"
HEADERS = {
    "Access-Control-Allow-Origin": "*",  # for `crossorigin` with an `integrity`
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Timing-Allow-Origin": "*",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}

blueprint = Blueprint("script", __name__)


@blueprint.get("/footfall.js")
def plain() -> ResponseReturnValue:
    """The script, under the name that never changes; `Content-Location` tells the other one."""
    return _script(FRESH)


@blueprint.get("/footfall.<version>.js")
def versioned(version: str) -> ResponseReturnValue:
    """The script, under a name of its content: for CDNs and for `integrity`."""
    if version == pages.version(FILE):
        return _script(FOR_GOOD)
    # a page that was cached before an upgrade still counts, and asks again the next time
    response = redirect("/footfall.js", 302)
    response.headers.update(HEADERS | {"Cache-Control": "no-cache"})
    return response


def _script(caching: str) -> Response:
    response = make_response(_content())
    response.mimetype = "text/javascript"
    response.set_etag(pages.version(FILE))
    location = f"/footfall.{pages.version(FILE)}.js"
    response.headers.update(HEADERS | {"Cache-Control": caching, "Content-Location": location})
    response.make_conditional(request)
    return response


@cache
def _content() -> bytes:
    return (pages.STATIC / FILE).read_bytes()
