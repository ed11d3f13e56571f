"""`GET /metrics` for Prometheus, and the clock that every request runs against."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Request, Response, g, request
from flask.typing import ResponseReturnValue

from api import callers, parts
from footfall import access, metrics
from footfall.clock import site_day, utc_now
from footfall.content_types import CONTENT_TYPES
from footfall.traffic import Answered

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TRACK = "/api/track/"
DOORS = frozenset(f"/api{one.door.path}" for one in CONTENT_TYPES.values() if one.door is not None)
STARTED = "footfall.started"  # in a request's environment: a moment of the performance counter
NO_ROUTE = "none"  # what was asked for there is the client's own word, and may be anything

blueprint = Blueprint("metrics", __name__)


def install(app: Flask) -> None:
    """Count and time every request of `app`, which has its parts."""
    traffic = parts.of(app).traffic
    wrapped = app.wsgi_app

    def wsgi_app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[STARTED] = time.perf_counter()
        return wrapped(environ, start_response)

    @app.after_request
    def note(response: Response) -> Response:
        # the request itself: to ask its proxy for one thing after the other costs more than all the rest
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        answer = _answered(asked, response.status_code)
        traffic.answered(answer, time.perf_counter() - asked.environ[STARTED])
        if answer.kind == "tracking" and answer.status >= 400:
            refused(g.get("refused_for", "internal"))
        return response

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # Flask's documented way of wrapping


@blueprint.get("/metrics")
def show() -> ResponseReturnValue:
    """All numbers that Prometheus is told; what a store that is away would know is missing."""
    now = utc_now()
    here = parts.parts()
    if not access.is_metrics_token(request.headers.get("Authorization"), here.settings):
        access.require(callers.reader(now), "service", "moderator")
    text = metrics.text_of(here.scraper.samples(now))
    return Response(text, content_type=metrics.CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def refused(reason: str, views: int = 1) -> None:
    """Tally that views were refused now, for `reason`, an error's code."""
    if views:
        here = parts.parts()
        here.traffic.refused(site_day(utc_now(), here.settings.time_zone), reason, views)


def _answered(asked: Request, status: int) -> Answered:
    if asked.url_rule is None:
        return Answered("tracking" if asked.path.startswith(TRACK) else "other", NO_ROUTE, NO_ROUTE, status)
    rule = asked.url_rule.rule
    is_tracking = asked.method == "POST" and (rule.startswith(TRACK) or rule in DOORS)
    return Answered("tracking" if is_tracking else "other", asked.method, rule, status)
