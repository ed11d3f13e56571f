"""A small site to try Footfall on: pages with client-side routing, a book, a story and a course.

Only with FOOTFALL_DEMO_SITE, because it gives whoever asks a token of a signed-in reader.
"""

from dataclasses import dataclass

from flask import Blueprint, abort
from flask.typing import ResponseReturnValue

from api import pages
from api.parts import parts
from footfall import access
from footfall.clock import utc_now
from footfall.entities import Name

READER = "demo-reader"
FRESH = {"Cache-Control": "no-cache"}  # unlike `no-store` it lets the browser keep the page to go back to

blueprint = Blueprint("demo_site", __name__, url_prefix="/demo")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site; `content` is what can be viewed on it, besides the page."""

    path: str
    title: str
    content: Name | None = None


PAGES = (
    Page("", "Harbour Press"),
    Page("tides", "A book about tides", ("book", "demo-tides")),
    Page("lighthouse", "A story of a lighthouse", ("story", "demo-lighthouse")),
    Page("knots", "A course in knots", ("course", "demo-knots")),
    Page("about", "About us"),
)
BY_PATH = {page.path: page for page in PAGES}


@blueprint.get("", defaults={"path": ""})
@blueprint.get("/<path>")
def page(path: str) -> ResponseReturnValue:
    """A page, whole: links work without JavaScript too."""
    shown = BY_PATH.get(path)
    if shown is None:
        abort(404)
    response = pages.render("demo.html", page=shown, pages=PAGES, has_reader=_has_reader())
    response.headers.update(FRESH)
    return response


@blueprint.get("/counts")
def counts() -> ResponseReturnValue:
    """What has been counted on this site so far: {name: views}."""
    content = [page.content for page in PAGES if page.content is not None]
    names = [("page", f"/demo/{page.path}".rstrip("/")) for page in PAGES] + content
    shown = {f"{kind} {name}": sum(parts().acceptance.shown((kind, name)).values()) for kind, name in names}
    return shown, FRESH


@blueprint.get("/token")
def token() -> ResponseReturnValue:
    """A token of a reader without a role, as a site gives its own users."""
    if not _has_reader():
        abort(404)
    return {"token": access.make_token(parts().settings, READER, "user", utc_now())}


def _has_reader() -> bool:
    return parts().settings.jwt_secret is not None
