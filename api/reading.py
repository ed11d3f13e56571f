"""The endpoints that answer with numbers."""

from datetime import date, datetime

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from api import callers
from api.parts import parts
from footfall import access, entities, fields, stats
from footfall.clock import site_day, utc_now
from footfall.content_types import CONTENT_TYPES, PAGE
from footfall.database import read_snapshot

DEFAULT_DAYS = 30

blueprint = Blueprint("reading", __name__)


@blueprint.get("/stats/page")
def page_stats() -> ResponseReturnValue:
    """The figures of a page, which is named by `?path=`."""
    return _entity_stats(PAGE.name, fields.text(request.args, "path"), "path")


@blueprint.get("/stats/<entity_type>/<entity_id>")
def entity_stats(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """The figures of one entity."""
    return _entity_stats(entity_type, entity_id, "entity_id")


@blueprint.get("/admin/sitewide-stats")
def sitewide_stats() -> ResponseReturnValue:
    """The figures of the whole site."""
    now = utc_now()
    access.require(callers.caller(now), "moderator")
    days = _days()
    with read_snapshot(parts().engine) as connection:
        return stats.sitewide_stats(connection, _today(now), days, now)


def _entity_stats(entity_type: str, entity_id: str, field: str) -> ResponseReturnValue:
    now = utc_now()
    caller = access.require(callers.caller(now))
    days = _days()
    with read_snapshot(parts().engine) as connection:
        entity = access.require_reader(caller, _find(connection, entity_type, entity_id, field))
        return stats.entity_stats(connection, entity, _today(now), days, now)


def _find(connection: Connection, entity_type: str, entity_id: str, field: str) -> entities.EntityRow | None:
    content_type = CONTENT_TYPES.get(entity_type)
    if content_type is None:
        return None
    external_id = fields.external_id(content_type, entity_id, field)
    return entities.find(connection, content_type.name, external_id)


def _days() -> int:
    """`?days=`, at most as many as are kept; today is one of them."""
    most = parts().settings.daily_retention_days
    return fields.whole_number(request.args.get("days", str(min(DEFAULT_DAYS, most))), "days", 1, most)


def _today(now: datetime) -> date:
    return site_day(now, parts().settings.time_zone)
