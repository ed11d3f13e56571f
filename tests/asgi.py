"""The application as it is served, called the way Flask's test client calls one."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import run_wsgi_app

from api.asgi import Application, Scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class ServedClient(FlaskClient):
    """A test client whose requests take the way of served ones, past the hot lane."""

    def __init__(self, app: Flask, *args: Any, **options: Any) -> None:
        super().__init__(app, *args, **options)
        self.served = Application(app)

    def run_wsgi_app(self, environ: "WSGIEnvironment", buffered: bool = False) -> Any:
        """Werkzeug's hook: how a request becomes an answer."""
        return run_wsgi_app(self._call, environ, buffered)

    def _call(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        sent = asyncio.run(exchange(self.served, scope_of(environ), [environ["wsgi.input"].read()]))
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        start_response(f"{sent[0]['status']} -", headers)
        return [message["body"] for message in sent[1:]]


async def exchange(application: Application, scope: Scope, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the application sends for a request with a body in `pieces`; afterwards the client is gone."""
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    incoming += [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


def scope_of(environ: "WSGIEnvironment") -> Scope:
    """A request of Werkzeug's as granian would tell of it."""
    names = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
    headers = [(names[name], environ[name].encode("latin-1")) for name in names if environ.get(name)]
    headers += [
        (name[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    path = environ["PATH_INFO"].encode("latin-1")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": path.decode(errors="replace"),
        "raw_path": quote_from_bytes(path).encode(),
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", "127.0.0.1"), "40000"),
        "server": (environ["SERVER_NAME"], environ["SERVER_PORT"]),
    }
