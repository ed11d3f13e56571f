"""The endpoints of content views: one for all types, and each type's own, which only map names."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, g, request
from flask.typing import ResponseReturnValue

from api import bodies, callers
from api.parts import parts
from footfall import access, fields, flush, intake
from footfall.clock import utc_now
from footfall.content_types import CONTENT_TYPES, PAGE, ContentType, Door
from footfall.entities import Name
from footfall.errors import Invalid, Unavailable
from footfall.fields import Body
from footfall.stream import Taken

VIEW_BYTES = 64 * 1024
COUNTED_TYPES_DOOR = "/views"  # names type and id in its body

blueprint = Blueprint("doors", __name__)


def install(app: Flask) -> None:
    """Give every content type with a door of its own its endpoints."""
    for content_type in CONTENT_TYPES.values():
        door = content_type.door
        if door is None:
            continue
        if door.path != COUNTED_TYPES_DOOR:
            _add(app, "POST", door.path, partial(_track, content_type, door))
        if door.stats_path is not None:
            _add(app, "GET", door.stats_path, partial(_shown, content_type))


@blueprint.post("/track/view")
def view() -> ResponseReturnValue:
    """One view of anything, told by the browser that shows it."""
    body = bodies.json_object(VIEW_BYTES)
    name = (fields.text(body, "entity_type"), fields.text(body, "entity_id"))
    written = _written_views(name)
    taken = _take(body, name)
    return _answer(
        taken,
        counted=taken.outcome == "counted",
        outcome=taken.outcome,
        first_view=taken.outcome == "counted",
        view_count=taken.views if written is None else written,
    )


@blueprint.post(COUNTED_TYPES_DOOR)
def views() -> ResponseReturnValue:
    """A view of a resource or a course, answered with its count."""
    body = bodies.json_object(VIEW_BYTES)
    name = _counted_name(fields.text(body, "contentType"), fields.text(body, "contentId"))
    taken = _take({"id": body.get("id"), "referrer": body.get("referrer")}, name)
    return _answer(taken, success=True, count=taken.views)


@blueprint.get(COUNTED_TYPES_DOOR)
def count() -> ResponseReturnValue:
    """The count of a resource or a course."""
    content_type, content_id = (fields.text(request.args, name) for name in ("contentType", "contentId"))
    return {"count": count_of(content_type, content_id)}


@blueprint.post(f"{COUNTED_TYPES_DOOR}/flush")
def flush_queue() -> ResponseReturnValue:
    """Write what is queued now."""
    access.require(callers.caller(utc_now()), "admin")
    here = parts()
    flushed = flush.flush(here.engine, here.redis, here.settings, here.consumer)
    return {"success": True, "flushed": flushed}


def _track(content_type: ContentType, door: Door, entity_id: str) -> ResponseReturnValue:
    g.failure = door.failure
    body = bodies.json_object(VIEW_BYTES, required=door.view_type_field is not None)
    if door.view_type_field is not None:
        body = {**body, "view_type": _view_type(body, content_type, door.view_type_field)}
    name = (content_type.name, entity_id)
    taken = _take(body, name)
    if door.reply == "success":
        return _answer(taken, success=True)
    if door.reply == "count":
        return _answer(taken, success=True, count=taken.views)
    of_parent = _parent_count(name, door.parent_type) if door.parent_type else {}
    return _answer(taken, isFirstView=taken.outcome == "counted", viewCount=taken.views, **of_parent)


def _view_type(body: Body, content_type: ContentType, field: str) -> str:
    return fields.view_type(content_type, fields.text(body, field), field)


def _take(body: Body, name: Name) -> Taken:
    now = utc_now()
    viewer = callers.viewer(callers.caller(now))
    here = parts()
    seen = intake.content_view(body, name, viewer, now, here.edge)
    here.limits.admit(viewer, now)
    return here.group_commit.take(seen, now)


def _written_views(name: Name) -> int | None:
    """A page's views; it has no live count. Asked first: once a view is taken, nothing may fail."""
    if name[0] != PAGE.name:
        return None
    return _total((PAGE.name, fields.path(name[1], "entity_id")))


def _parent_count(name: Name, parent_type: str) -> dict[str, int]:
    """`{"storyViewCount": n}` for a chapter whose story the host site has told, if that can be said now."""
    parent = parts().facts.parent_of(name)
    if parent is None or parent[0] != parent_type:
        return {}
    try:
        return {f"{parent_type}ViewCount": _total(parent)}
    except Unavailable:
        return {}  # the view is taken all the same


def _shown(content_type: ContentType, entity_id: str) -> ResponseReturnValue:
    name = (content_type.name, fields.external_id(content_type, entity_id, "entity_id"))
    return dict(parts().acceptance.shown(name))


def _counted_name(content_type: str, content_id: str) -> Name:
    known = [one.name for one in CONTENT_TYPES.values() if one.door and one.door.path == COUNTED_TYPES_DOOR]
    if content_type not in known:
        raise Invalid("contentType", f"must be one of {', '.join(known)}")
    return content_type, fields.identifier(content_id, "contentId")


def count_of(content_type: str, content_id: str) -> int:
    """What is shown of a resource or a course. Raises `Invalid` for other types."""
    return _total(_counted_name(content_type, content_id))


def _total(name: Name) -> int:
    return sum(parts().acceptance.shown(name).values())


def _answer(taken: Taken, **body: Any) -> ResponseReturnValue:
    return body, HTTPStatus.OK, {"X-View-Outcome": taken.outcome}


def _add(app: Flask, method: str, path: str, function: Callable[..., ResponseReturnValue]) -> None:
    app.add_url_rule(f"/api{path}", f"{method} {path}", function, methods=[method])
