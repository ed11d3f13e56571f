"""The moderators' dashboard, and the page of an entity for its owner: the API's answers, to be looked at."""

from datetime import date
from typing import Any

from flask import Blueprint, redirect, request, url_for
from flask.typing import ResponseReturnValue

from api import callers, pages, reading
from api.dashboard import entity_page, panels, site_page
from api.dashboard.choice import AUDIENCES, Choice, choice, links, ranges
from api.parts import parts
from footfall import access
from footfall.access import Caller
from footfall.cache import Answer
from footfall.clock import utc_now
from footfall.content_types import PAGE
from footfall.errors import NotAuthenticated

blueprint = Blueprint("dashboard", __name__, url_prefix="/mod-dashboard")


@blueprint.get("")
def site() -> ResponseReturnValue:
    """The whole site."""
    now = utc_now()
    caller = access.require(callers.reader(now), "moderator")
    chosen = choice()
    answer = parts().answers.sitewide(chosen.days, now)
    return pages.render(
        "site.html", **_frame(caller, chosen, answer), **site_page.values(chosen, answer, now)
    )


@blueprint.get("/page")
def page() -> ResponseReturnValue:
    """A page, which is named by `?path=`."""
    return _entity(PAGE.name, request.args.get("path", ""), "path")


@blueprint.get("/<entity_type>/<path:entity_id>")
def entity(entity_type: str, entity_id: str) -> ResponseReturnValue:
    """Anything else that is viewed."""
    return _entity(entity_type, entity_id, "entity_id")


@blueprint.errorhandler(NotAuthenticated)
def to_login(_: NotAuthenticated) -> ResponseReturnValue:
    """Who is not logged in may do so, and comes back to what was asked for."""
    return redirect(url_for("login.show", next=request.full_path.rstrip("?")), 303)


def _entity(entity_type: str, entity_id: str, field: str) -> ResponseReturnValue:
    now = utc_now()
    caller = access.require(callers.reader(now))
    chosen = choice()
    row = reading.readable(caller, entity_type, entity_id, field)
    answer = parts().answers.entity(row, chosen.days, now)
    return pages.render(
        "entity.html", **_frame(caller, chosen, answer), **entity_page.values(chosen, row, answer, now)
    )


def _frame(caller: Caller, chosen: Choice, answer: Answer) -> dict[str, Any]:
    """What stands around the figures: links, dates, who is logged in."""
    zone = parts().settings.time_zone
    daily = answer["daily_views"]
    first, last = (date.fromisoformat(daily[place]["date"]) for place in (0, -1))
    return {
        "choice": chosen,
        "ranges": links("range", chosen.range, ranges()),
        "audiences": links("audience", chosen.audience, list(AUDIENCES.items())),
        "span": panels.span_name(first, last),
        "zone": str(zone),
        "computed_at": panels.moment_name(answer["computed_at"], zone),
        "gap_days": panels.gap_days(daily),
        "names_dbip": parts().countries.is_dbip(),
        "subject": caller.subject,
        "is_moderator": caller.has("moderator"),
    }
