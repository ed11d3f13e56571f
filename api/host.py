"""The endpoints by which the host site's servers tell of their entities."""

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api import bodies, callers
from api.parts import parts
from footfall import access, fields, forget, host
from footfall.clock import utc_now
from footfall.content_types import PAGE
from footfall.entities import Name
from footfall.errors import NotFound

ENTITY_BYTES = 64 * 1024

blueprint = Blueprint("host", __name__)


@blueprint.put("/entities/page")
def put_page() -> ResponseReturnValue:
    """Tell of a page, which is named by `?path=`."""
    return _put(_name(PAGE.name, fields.text(request.args, "path"), "path"))


@blueprint.put("/entities/<entity_type>/<entity_id>")
def put_entity(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """Tell of an entity."""
    return _put(_name(entity_type, entity_id, "entity_id"))


@blueprint.delete("/entities/page")
def delete_page() -> ResponseReturnValue:
    """Delete all that is counted of a page."""
    return _delete(_name(PAGE.name, fields.text(request.args, "path"), "path"))


@blueprint.delete("/entities/<entity_type>/<entity_id>")
def delete_entity(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """Delete all that is counted of an entity."""
    return _delete(_name(entity_type, entity_id, "entity_id"))


def _name(entity_type: str, entity_id: str, field: str) -> Name:
    content_type = fields.content_type(entity_type, "entity_type")
    return content_type.name, fields.external_id(content_type, entity_id, field)


def _put(name: Name) -> ResponseReturnValue:
    now = utc_now()
    access.require(callers.caller(now), "service")
    told = host.told(bodies.json_object(ENTITY_BYTES))
    with parts().engine.begin() as connection:
        return host.put(connection, name, told, now)


def _delete(name: Name) -> ResponseReturnValue:
    now = utc_now()
    access.require(callers.caller(now), "service")
    here = parts()
    if not forget.forget_entity(here.engine, here.redis, here.settings, name, now):
        raise NotFound("there is no such entity")
    return "", 204
