"""The Flask application. What is served is `api.asgi`, which stands in front of it."""

import os

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from api import (
    badge,
    cors,
    demo_site,
    doors,
    errors,
    heartbeat,
    host,
    login,
    metrics,
    openapi,
    operating,
    pages,
    parts,
    reading,
    script,
    tracking,
)
from api.dashboard import routes
from footfall import logs, schema_check, user_agents
from footfall.settings import Settings


class CompactJSON(DefaultJSONProvider):
    """Answers without blanks, in the order in which they were made."""

    compact = True
    sort_keys = False


class JSONResponse(Response):
    """Answers are JSON unless they say otherwise; Flask's own default is HTML, also for empty ones."""

    default_mimetype = "application/json"


def create_app(settings: Settings | None = None) -> Flask:
    """The application for `settings`, or for the environment's, with logging configured, when None.

    For given settings it opens no connection. For the environment's it looks whether the schema is the one
    that this code writes to, and gives signs of life from then on. Raises `SettingsError`, `SchemaError`.
    """
    is_served = settings is None
    if settings is None:
        logs.configure()
        settings = Settings.from_mapping(os.environ)
    app = Flask("api")  # its templates and static files lie beside this one
    app.json = CompactJSON(app)
    app.response_class = JSONResponse
    app.url_map.merge_slashes = False  # it would answer with a redirect, in HTML
    parts.install(app, settings)
    metrics.install(app)
    errors.install(app)
    cors.install(app, settings.cors_origins)
    for module in (tracking, doors, badge, host, reading, operating, openapi):
        app.register_blueprint(module.blueprint, url_prefix="/api")
    doors.install(app)
    for module in (routes, login, script, metrics):
        app.register_blueprint(module.blueprint)
    if settings.demo_site:
        app.register_blueprint(demo_site.blueprint)
    pages.install(app)
    user_agents.warm_up()
    _trust_proxies(app, settings.trusted_proxies)
    if is_served:
        schema_check.require_at_start(parts.of(app).engine)
        heartbeat.start(parts.of(app).engine)
        parts.of(app).traffic.flush_forever(parts.of(app).limits.exchange)
    return app


def _trust_proxies(app: Flask, hops: int) -> None:
    """Take the client's address from the `hops`-th entry from the right of X-Forwarded-For.

    What stands left of it was sent by the client and may be made up. With fewer entries than proxies the
    request came another way, and its own address counts.
    """
    if hops:
        # Flask's documented way of wrapping, which keeps `app` itself for the test client
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )
