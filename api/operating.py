"""The endpoints for whoever runs this."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from api.parts import parts
from footfall import readiness
from footfall.clock import utc_now

blueprint = Blueprint("operating", __name__)


@blueprint.get("/health")
def health() -> ResponseReturnValue:
    """200 while the process lives."""
    return {"status": "ok"}


@blueprint.get("/health/ready")
def ready() -> ResponseReturnValue:
    """200 when views can be taken and written, 503 when not; what was looked at either way.

    A missing country source is shown and is no failure: views are counted without it.
    """
    here = parts()
    now = utc_now()
    found = readiness.check(here.engine, here.redis, here.settings, now)
    countries = here.countries.describe(now)
    checks = {**found.checks, "countries": {"ok": "problem" not in countries, **countries}}
    return {"ready": found.ready, "checks": checks}, 200 if found.ready else 503
