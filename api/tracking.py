"""The endpoints that take views."""

from collections import Counter
from operator import itemgetter

from flask import Blueprint
from flask.typing import ResponseReturnValue

from api import bodies, callers, metrics
from api.parts import parts
from footfall import access, intake
from footfall.clock import utc_now
from footfall.content_types import OTHER_VIEW_TYPE
from footfall.errors import Limited, Unavailable
from footfall.event import View
from footfall.group_commit import LIMITED, NO_COUNT

PAGE_VIEW_PATH = "/track/page-view"
BATCH_PATH = "/track/batch"
PAGE_VIEW_BYTES = 64 * 1024  # as much as a browser sends after the page is gone
BATCH_BYTES = 2 * 1024 * 1024

blueprint = Blueprint("tracking", __name__)


@blueprint.post(PAGE_VIEW_PATH)
def page_view() -> ResponseReturnValue:
    """One view of a page, told by the browser that shows it."""
    now = utc_now()
    viewer = callers.viewer(callers.caller(now))
    event = intake.page_view(bodies.json_object(PAGE_VIEW_BYTES), viewer, now, parts().edge)
    parts().limits.admit(viewer, now)
    parts().group_commit.take(View(event), now)
    return "", 204, {"X-View-Outcome": event.outcome}


@blueprint.post(BATCH_PATH)
def batch() -> ResponseReturnValue:
    """Views of other people, told by a server that is trusted."""
    now = utc_now()
    access.require(callers.caller(now), "service")
    found = intake.batch(bodies.json_object(BATCH_BYTES), now, parts().edge)
    taken = parts().acceptance.take(found.views, now)
    if any(one.status == "unavailable" for one in taken):
        raise Unavailable(NO_COUNT)
    refused = [
        {"index": index, "error": LIMITED}
        for index, one in zip(found.indexes, taken, strict=True)
        if one.status == "limited"
    ]
    outcomes = Counter(one.outcome for one in taken if one.status != "limited")
    metrics.refused("invalid", len(found.errors))
    metrics.refused("limited", len(refused))
    errors = sorted([*found.errors, *refused], key=itemgetter("index"))
    return {"accepted": outcomes.total(), "outcomes": outcomes, "errors": errors}


@blueprint.post("/track/event")
def site_event() -> ResponseReturnValue:
    """Something else that happened on the site, told by its server."""
    now = utc_now()
    access.require(callers.caller(now), "service")
    here = parts()
    view = intake.site_event(bodies.json_object(PAGE_VIEW_BYTES), now, here.edge)
    try:
        taken = here.group_commit.take(view, now)
    except Limited:
        # one class too many: it is counted with the others rather than not at all
        other = view._replace(event=view.event._replace(view_type=OTHER_VIEW_TYPE))
        taken = here.group_commit.take(other, now)
    return "", 202, {"X-View-Outcome": taken.outcome}
