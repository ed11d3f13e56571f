"""Content types are data: what differs between a page, a book and a story is one entry in one table.

To add a type, add an entry to the table below and restart the API. Nothing else has to change: tables, queue,
rollup and stats take any type, and a `door` gives it an endpoint of its own.
"""

from dataclasses import dataclass
from typing import Literal

Reply = Literal["success", "first_view", "count"]
ANY = None

# What sites call the ways in which a post can be seen
POST_VIEW_TYPES = frozenset({"intentional", "listing", "search", "widget"})


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint under /api in the words of the site that brought it; a thin map of names."""

    path: str  # with <entity_id>, or without when the body names type and id
    reply: Reply
    view_type_field: str | None = None  # the body's name for the view type, which is then required
    failure: str | None = None  # the error's text when no store takes the view
    stats_path: str | None = None  # public: {view type: views}
    parent_type: str | None = None  # also answers `<type>ViewCount` of a parent that the host site has told


@dataclass(frozen=True, slots=True)
class ContentType:
    """A kind of thing that is viewed."""

    name: str
    external_id_is_path: bool = False
    has_window: bool = False  # a viewer's repeats within VIEW_DEDUP_TTL_HOURS are no views
    counts_own_views: bool = True  # of the owner, where the host site has told who that is
    needs_sign_in: bool = False  # unless FOOTFALL_REQUIRE_SIGN_IN is false
    view_types: frozenset[str] | None = ANY
    door: Door | None = None


PAGE = ContentType("page", external_id_is_path=True)

# What happens on the site besides views. Only the host's servers tell of it, so it is no row of the table.
SITE_EVENT = ContentType("site_event")
SITE_EVENTS = ("signup", "upload", "api_call", "error")
OTHER_VIEW_TYPE = "other"  # of what comes over the cap of an entity's view types

_TABLE = (
    PAGE,
    ContentType("post", counts_own_views=False, view_types=POST_VIEW_TYPES),
    ContentType("blog_post", counts_own_views=False, view_types=POST_VIEW_TYPES),
    ContentType(
        "book",
        needs_sign_in=True,
        door=Door(
            "/books/<entity_id>/track-view",
            reply="success",
            view_type_field="viewType",
            failure="Failed to track book view",
            stats_path="/books/<entity_id>/stats",
        ),
    ),
    ContentType(
        "story",
        has_window=True,
        counts_own_views=False,
        door=Door("/stories/<entity_id>/view", reply="first_view"),
    ),
    ContentType(
        "chapter",
        has_window=True,
        counts_own_views=False,
        door=Door("/chapters/<entity_id>/view", reply="first_view", parent_type="story"),
    ),
    ContentType("resource", door=Door("/views", reply="count")),
    ContentType("course", door=Door("/views", reply="count")),
)

CONTENT_TYPES: dict[str, ContentType] = {content_type.name: content_type for content_type in _TABLE}
