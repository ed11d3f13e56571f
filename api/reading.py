"""The endpoints that answer with numbers. Who may read is decided before anything is computed or cached."""

from collections.abc import Mapping
from datetime import datetime

from flask import Blueprint, Response, request, stream_with_context
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from api import callers
from api.parts import parts
from footfall import access, entities, export, fields, ledger, stats
from footfall.access import Caller
from footfall.answers import PERIODS
from footfall.clock import days_back, site_day, utc_now
from footfall.content_types import CONTENT_TYPES, PAGE
from footfall.database import read_snapshot
from footfall.definitions import ONE_ENTITY, THE_SITE
from footfall.entities import EntityRow

DEFAULT_DAYS = 30
LEDGER_DAYS = 7
TOP_LIMIT, MOST_TOP = 20, 100

blueprint = Blueprint("reading", __name__)


@blueprint.get("/stats/page")
def page_stats() -> ResponseReturnValue:
    """The figures of a page, which is named by `?path=`."""
    return _entity_stats(PAGE.name, fields.text(request.args, "path"), "path")


@blueprint.get("/stats/<entity_type>/<entity_id>")
def entity_stats(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """The figures of one entity."""
    return _entity_stats(entity_type, entity_id, "entity_id")


@blueprint.get("/blog-post/<entity_id>/stats")
def blog_post_stats(entity_id: str) -> ResponseReturnValue:
    """The figures of a blog post."""
    return _entity_stats("blog_post", entity_id, "entity_id")


@blueprint.get("/post/<entity_id>/stats")
def post_stats(entity_id: str) -> ResponseReturnValue:
    """The figures of a post."""
    return _entity_stats("post", entity_id, "entity_id")


@blueprint.get("/stats/page/export.csv")
def page_export() -> ResponseReturnValue:
    """The daily rows of a page, which is named by `?path=`."""
    return _entity_export(PAGE.name, fields.text(request.args, "path"), "path")


@blueprint.get("/stats/<entity_type>/<entity_id>/export.csv")
def entity_export(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """The daily rows of one entity."""
    return _entity_export(entity_type, entity_id, "entity_id")


@blueprint.get("/stats/top")
def top() -> ResponseReturnValue:
    """The most viewed entities of a type."""
    now, caller = _moderator()
    entity_type = fields.content_type(request.args.get("type", PAGE.name), "type").name
    period = fields.one_of(request.args.get("period", "week"), "period", PERIODS)
    view_type = request.args.get("view_type")
    if view_type is not None:
        view_type = fields.view_type(CONTENT_TYPES[entity_type], view_type, "view_type")
    limit = fields.whole_number(request.args.get("limit", str(TOP_LIMIT)), "limit", 1, MOST_TOP)
    return parts().answers.top(entity_type, period, view_type, limit, now, refresh=_refresh(caller))


@blueprint.get("/stats/realtime")
def realtime() -> ResponseReturnValue:
    """What happens on the site now."""
    now, _ = _moderator()
    return parts().answers.realtime(now)


@blueprint.get("/admin/sitewide-stats")
def sitewide_stats() -> ResponseReturnValue:
    """The figures of the whole site."""
    now, caller = _moderator()
    return parts().answers.sitewide(_days(), now, refresh=_refresh(caller))


@blueprint.get("/admin/export.csv")
def sitewide_export() -> ResponseReturnValue:
    """The daily rows of the whole site."""
    now, _ = _moderator()
    return _csv(None, _days(), now, "site")


@blueprint.get("/admin/ledger")
def ledger_rows() -> ResponseReturnValue:
    """Whether the numbers add up, day by day."""
    now, _ = _moderator()
    here = parts()
    zone = here.settings.time_zone
    days = days_back(site_day(now, zone), _days(LEDGER_DAYS))
    with read_snapshot(here.engine) as connection:
        return {"days": ledger.ledger(connection, here.redis, days, now, zone)}


def _moderator() -> tuple[datetime, Caller]:
    now = utc_now()
    return now, access.require(callers.reader(now), "moderator")


def _entity_stats(entity_type: str, entity_id: str, field: str) -> ResponseReturnValue:
    now = utc_now()
    caller = access.require(callers.reader(now))
    days = _days()
    entity = readable(caller, entity_type, entity_id, field)
    return parts().answers.entity(entity, days, now, refresh=_refresh(caller))


def _entity_export(entity_type: str, entity_id: str, field: str) -> ResponseReturnValue:
    now = utc_now()
    caller = access.require(callers.reader(now))
    days = _days()
    return _csv(readable(caller, entity_type, entity_id, field), days, now, entity_type)


def readable(caller: Caller, entity_type: str, entity_id: str, field: str) -> EntityRow:
    """The entity of that name, which `caller` may read. Raises `NotAllowed` or `NotFound`."""
    with read_snapshot(parts().engine) as connection:
        return access.require_reader(caller, _find(connection, entity_type, entity_id, field))


def _find(connection: Connection, entity_type: str, entity_id: str, field: str) -> EntityRow | None:
    content_type = CONTENT_TYPES.get(entity_type)
    if content_type is None:
        return None
    external_id = fields.external_id(content_type, entity_id, field)
    return entities.find(connection, content_type.name, external_id)


def _csv(entity: EntityRow | None, days: int, now: datetime, name: str) -> ResponseReturnValue:
    here = parts()
    span = stats.Span.ending_today(days, now, here.settings.time_zone)
    with read_snapshot(here.engine) as connection:
        events, key = (ONE_ENTITY, entity.id) if entity else (THE_SITE, entities.site(connection).id)
        # at most as many rows as days: read while the snapshot lasts, written out one by one
        rows: list[Mapping[str, object]] = list(stats.daily_rows(connection, events, key, span))
    headers = {"Content-Disposition": f'attachment; filename="footfall-{name}-{span.days[-1]}.csv"'}
    return Response(stream_with_context(export.csv_lines(rows)), mimetype="text/csv", headers=headers)


def _days(default: int = DEFAULT_DAYS) -> int:
    """`?days=`, at most as many as are kept; today is one of them."""
    most = parts().settings.daily_retention_days
    return fields.whole_number(request.args.get("days", str(min(default, most))), "days", 1, most)


def _refresh(caller: Caller) -> bool:
    """`?refresh=true` computes anew: costly, so it is for moderators, and ignored for others."""
    return request.args.get("refresh") == "true" and caller.has("moderator")
