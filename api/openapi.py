"""The whole contract as OpenAPI 3.1, at /api/openapi.json. Tests hold the routes and the running app to it.

What one table says already (content types and their doors, the checks of fields) is taken from there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from flask import Blueprint
from flask.typing import ResponseReturnValue

from api.badge import MOST_LABEL
from api.callers import COOKIE
from api.doors import COUNTED_TYPES_DOOR
from api.parts import parts
from api.reading import DEFAULT_DAYS, LEDGER_DAYS, MOST_TOP, TOP_LIMIT
from api.schemas import CONTENT_TYPE, IDENTIFIER, OUTCOME, PATH, SCHEMAS, VIEW_TYPE, Schema, record, ref
from footfall.answers import PERIODS
from footfall.content_types import CONTENT_TYPES, PAGE, ContentType, Door
from footfall.settings import Settings

Role = Literal["user", "signed in", "reader", "moderator", "admin", "service"]

# What a request needs, and how it may say so. The cookie authorises reading only.
TOKEN: Schema = {"token": []}
ANYBODY: list[Schema] = [{}]
SECURITY: Mapping[Role, list[Schema]] = {
    "user": [{}, TOKEN],
    "signed in": [TOKEN],
    "reader": [TOKEN, {"session": []}],
    "moderator": [TOKEN, {"session": []}],
    "admin": [TOKEN],
    "service": [TOKEN, {"key": []}],
}
WHO: Mapping[Role, str] = {
    "user": "Anonymous, or signed in with a token.",
    "signed in": "Signed in with a token, whatever the role but `service`.",
    "reader": "For the entity's owner, moderators and admins; others learn nothing of what exists.",
    "moderator": "For moderators and admins.",
    "admin": "For admins.",
    "service": "For servers of the host site.",
}
SECURITY_SCHEMES: Schema = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Made by the host site, or by `footfall token`: HS256, RS256, ES256.",
    },
    "key": {"type": "http", "scheme": "bearer", "description": "An API key (ffk_...): the role `service`."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "Of the dashboard's login."},
}
ERRORS: Mapping[int, str] = {
    400: "A field is wrong or missing; the error names it.",
    401: "The credentials are missing, or do not verify.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    413: "The body is too large.",
    415: "The body is of a type that is not read.",
    429: "Too many; come again after Retry-After.",
    500: "A bug.",
    503: "No store can take or give this now; come again after Retry-After.",
}
READING = (400, 401, 403, 503)
TAKING = (400, 401, 413, 415, 503)

blueprint = Blueprint("openapi", __name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; `path` is as Flask has it, without /api."""

    method: str
    path: str
    tag: str
    summary: str
    role: Role | None  # None: everybody, whoever they are
    answers: Mapping[int, Schema]
    errors: Sequence[int]
    parameters: Sequence[Schema] = ()
    body: Schema | None = None
    needs_body: bool = True
    tells_outcome: bool = False


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    """The contract of this instance, whose settings decide how many days are kept."""
    return document(parts().settings)


def document(settings: Settings) -> Schema:
    """The contract as an OpenAPI document."""
    paths: dict[str, Schema] = {}
    for operation in operations(settings):
        path = f"/api{operation.path}".replace("<", "{").replace(">", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Footfall",
            "version": version("footfall"),
            "summary": "Views, counted exactly once and without keeping who it was.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": SECURITY_SCHEMES},
    }


def operations(settings: Settings) -> Iterator[Operation]:
    """Everything under /api."""
    yield from _tracking()
    yield from _doors(settings)
    yield from _telling()
    yield from _reading(settings.daily_retention_days)
    yield from _operating()


def _tracking() -> Iterator[Operation]:
    yield Operation(
        "POST",
        "/track/page-view",
        "Tracking",
        "A view of a page, told by the browser that shows it",
        "user",
        {204: {}},
        (*TAKING, 429),
        body=ref("PageView"),
        tells_outcome=True,
    )
    yield Operation(
        "POST",
        "/track/view",
        "Tracking",
        "A view of anything, told by the browser that shows it",
        "user",
        {200: ref("Viewed")},
        (*TAKING, 429),
        body=ref("View"),
        tells_outcome=True,
    )
    yield Operation(
        "POST",
        "/track/batch",
        "Tracking",
        "Views of other people, told by a server; good ones are kept when others are bad",
        "service",
        {200: ref("BatchTaken")},
        (*TAKING, 403),
        body=ref("Batch"),
    )
    yield Operation(
        "POST",
        "/track/event",
        "Tracking",
        "Something else that happened on the site",
        "service",
        {202: {}},
        (*TAKING, 403, 429),
        body=ref("SiteEvent"),
        tells_outcome=True,
    )


def _doors(settings: Settings) -> Iterator[Operation]:
    for content_type in CONTENT_TYPES.values():
        door = content_type.door
        if door is not None and door.path != COUNTED_TYPES_DOOR:
            yield _door(content_type, door, settings)
        if door is not None and door.stats_path is not None:
            yield Operation(
                "GET",
                door.stats_path,
                "Doors",
                f"The views of a {content_type.name} by view type",
                None,
                {200: ref("CountsByType")},
                (400, 503),
                parameters=(_in_path("entity_id", IDENTIFIER),),
            )
    yield from _counted()


def _door(content_type: ContentType, door: Door, settings: Settings) -> Operation:
    wants_user = content_type.needs_sign_in and settings.require_sign_in
    reply = {"success": "Success", "count": "SuccessCount", "first_view": "FirstView"}[door.reply]
    return Operation(
        "POST",
        door.path,
        "Doors",
        f"A view of a {content_type.name}",
        "signed in" if wants_user else "user",
        {200: ref(reply)},
        (*TAKING, 429),
        parameters=(_in_path("entity_id", IDENTIFIER),),
        body=_door_body(content_type, door.view_type_field),
        needs_body=door.view_type_field is not None,
        tells_outcome=True,
    )


def _counted() -> Iterator[Operation]:
    known = {"type": "string", "enum": _counted_types()}
    yield Operation(
        "POST",
        COUNTED_TYPES_DOOR,
        "Doors",
        f"A view of a {' or '.join(_counted_types())}",
        "user",
        {200: ref("SuccessCount")},
        (*TAKING, 429),
        body={"allOf": [record({"contentType": known, "contentId": IDENTIFIER}), ref("BareView")]},
        tells_outcome=True,
    )
    yield Operation(
        "GET",
        COUNTED_TYPES_DOOR,
        "Doors",
        f"The views of a {' or '.join(_counted_types())}",
        None,
        {200: ref("Count")},
        (400, 503),
        parameters=(_in_query("contentType", known, True), _in_query("contentId", IDENTIFIER, True)),
    )
    yield Operation(
        "GET",
        f"{COUNTED_TYPES_DOOR}/badge.svg",
        "Doors",
        f"The views of a {' or '.join(_counted_types())} as a picture",
        None,
        {200: SVG},
        (400, 503),
        parameters=(
            _in_query("contentType", known, True),
            _in_query("contentId", IDENTIFIER, True),
            _in_query("label", LABEL),
        ),
    )
    yield Operation(
        "POST",
        f"{COUNTED_TYPES_DOOR}/flush",
        "Doors",
        "Write what is queued now",
        "admin",
        {200: ref("Flushed")},
        (401, 403, 503),
    )


def _door_body(content_type: ContentType, field: str | None) -> Schema:
    """What a door's body holds; the view type under the name that the door has for it."""
    if field is None:
        return ref("BareView")
    listed = content_type.view_types
    view_type = VIEW_TYPE if listed is None else {"type": "string", "enum": sorted(listed)}
    return {"allOf": [record({field: view_type}), ref("BareView")]}


def _telling() -> Iterator[Operation]:
    for path, named in _by_name("/entities"):
        yield Operation(
            "PUT",
            path,
            "Entities",
            "Tell of an entity; only what is named changes, null takes it back",
            "service",
            {200: ref("Entity")},
            (*TAKING, 403),
            parameters=named,
            body=ref("TellEntity"),
        )
        yield Operation(
            "DELETE",
            path,
            "Entities",
            "Delete an entity and all that was counted of it",
            "service",
            {204: {}},
            (400, 401, 403, 404, 503),
            parameters=named,
        )


def _reading(most_days: int) -> Iterator[Operation]:
    days = _days(DEFAULT_DAYS, most_days)
    for path, named in (*_by_name("/stats"), *_aliases()):
        yield Operation(
            "GET",
            path,
            "Reading",
            "The figures of an entity",
            "reader",
            {200: ref("EntityStats")},
            (*READING, 404),
            parameters=(*named, days, REFRESH),
        )
    for path, named in _by_name("/stats"):
        yield Operation(
            "GET",
            f"{path}/export.csv",
            "Reading",
            "The daily rows of an entity as CSV",
            "reader",
            {200: CSV},
            (*READING, 404),
            parameters=(*named, days),
        )
    yield from _reading_the_site(most_days)


def _reading_the_site(most_days: int) -> Iterator[Operation]:
    days = _days(DEFAULT_DAYS, most_days)
    of_ledger = _days(LEDGER_DAYS, most_days)
    for path, summary, answer, parameters in (
        ("/stats/top", "The most viewed entities of a type", ref("Top"), (*TOP_PARAMETERS, REFRESH)),
        ("/stats/realtime", "What happens on the site now", ref("Realtime"), ()),
        ("/admin/sitewide-stats", "The figures of the site", ref("SitewideStats"), (days, REFRESH)),
        ("/admin/export.csv", "The daily rows of the site as CSV", CSV, (days,)),
        ("/admin/ledger", "Whether the numbers add up, day by day", ref("Ledger"), (of_ledger,)),
    ):
        yield Operation("GET", path, "Reading", summary, "moderator", {200: answer}, READING, parameters)


def _operating() -> Iterator[Operation]:
    yield Operation("GET", "/health", "Operating", "The process lives", None, {200: ref("Health")}, ())
    yield Operation(
        "GET",
        "/health/ready",
        "Operating",
        "Whether views can be taken and written, and if not, what to do",
        None,
        {200: ref("Readiness"), 503: ref("Readiness")},
        (),
    )
    contract: Schema = {"type": "object"}
    yield Operation("GET", "/openapi.json", "Operating", "This document", None, {200: contract}, ())


def _described(operation: Operation) -> Schema:
    described: Schema = {
        "operationId": f"{operation.method} {operation.path}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "security": ANYBODY if operation.role is None else SECURITY[operation.role],
        "parameters": list(operation.parameters),
        "responses": _responses(operation),
    }
    if operation.role is not None:
        described["description"] = WHO[operation.role]
    if operation.body is not None:
        # sendBeacon sends JSON as text/plain
        media = {name: {"schema": operation.body} for name in ("application/json", "text/plain")}
        described["requestBody"] = {"required": operation.needs_body, "content": media}
    return described


def _responses(operation: Operation) -> Schema:
    responses = {
        str(status): _answer(schema, operation.tells_outcome) for status, schema in operation.answers.items()
    }
    for status in sorted({*operation.errors, 500}):
        responses.setdefault(str(status), _error(status))
    return responses


def _answer(schema: Schema, tells_outcome: bool) -> Schema:
    answer: Schema = {"description": "Done."}
    if schema:
        media_type = schema.get("contentMediaType", "application/json")
        answer["content"] = {media_type: {"schema": schema}}
    if tells_outcome:
        answer["headers"] = {"X-View-Outcome": {"required": True, "schema": OUTCOME}}
    return answer


def _error(status: int) -> Schema:
    error: Schema = {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": ref("Error")}},
    }
    if status in (429, 503):
        error["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}
    if status == 401:
        error["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    return error


def _by_name(prefix: str) -> list[tuple[str, tuple[Schema, ...]]]:
    """The two ways to name an entity: a page by its path, the others by type and id."""
    others = {"type": "string", "enum": [name for name in CONTENT_TYPES if name != PAGE.name]}
    return [
        (f"{prefix}/{PAGE.name}", (_in_query("path", PATH, True),)),
        (
            f"{prefix}/<entity_type>/<entity_id>",
            (_in_path("entity_type", others), _in_path("entity_id", IDENTIFIER)),
        ),
    ]


def _aliases() -> list[tuple[str, tuple[Schema, ...]]]:
    return [
        (f"/{name}/<entity_id>/stats", (_in_path("entity_id", IDENTIFIER),)) for name in ("blog-post", "post")
    ]


def _counted_types() -> list[str]:
    return [one.name for one in CONTENT_TYPES.values() if one.door and one.door.path == COUNTED_TYPES_DOOR]


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str, schema: Schema, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _days(default: int, most: int) -> Schema:
    limits = {"type": "integer", "minimum": 1, "maximum": most, "default": min(default, most)}
    return {**_in_query("days", limits), "description": "Today included."}


CSV: Schema = {
    "type": "string",
    "contentMediaType": "text/csv",
    "description": "A header and a line a day.",
}
SVG: Schema = {
    "type": "string",
    "contentMediaType": "image/svg+xml",
    "description": "A label and a number.",
}
LABEL: Schema = {"type": "string", "maxLength": MOST_LABEL, "default": "views"}
REFRESH: Schema = {
    **_in_query("refresh", {"type": "string", "enum": ["true", "false"]}),
    "description": "true: computed anew, for moderators; others get what is at most five minutes old.",
}
TOP_PARAMETERS: tuple[Schema, ...] = (
    _in_query("type", {**CONTENT_TYPE, "default": PAGE.name}),
    _in_query("period", {"type": "string", "enum": list(PERIODS), "default": "week"}),
    _in_query("view_type", VIEW_TYPE),
    _in_query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_TOP, "default": TOP_LIMIT}),
)
