"""The endpoints that take views."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from api import bodies, callers
from api.parts import parts
from footfall import access, intake
from footfall.clock import utc_now

PAGE_VIEW_BYTES = 16 * 1024
BATCH_BYTES = 2 * 1024 * 1024

blueprint = Blueprint("tracking", __name__)


@blueprint.post("/track/page-view")
def page_view() -> ResponseReturnValue:
    """One view of a page, told by the browser that shows it."""
    now = utc_now()
    viewer = callers.viewer(callers.caller(now))
    event = intake.page_view(bodies.json_object(PAGE_VIEW_BYTES), viewer, now, parts().edge)
    parts().put([event])
    return "", 204, {"X-View-Outcome": event.outcome}


@blueprint.post("/track/batch")
def batch() -> ResponseReturnValue:
    """Views of other people, told by a server that is trusted."""
    now = utc_now()
    access.require(callers.caller(now), "service")
    found = intake.batch(bodies.json_object(BATCH_BYTES), now, parts().edge)
    parts().put(found.events)
    return {"accepted": len(found.events), "outcomes": found.outcomes, "errors": found.errors}
