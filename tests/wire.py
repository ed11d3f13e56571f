"""The application as it is served: bytes go in and answers come out, without a socket between."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote_from_bytes

import h11
import uvicorn
from flask import Flask
from flask.testing import FlaskClient
from uvicorn.server import ServerState
from werkzeug.test import run_wsgi_app

from api.__main__ import UVICORN
from api.asgi import Application
from api.connection import Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")
CONNECTIONS: list[Connection] = []  # of the conversation that is on


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Headers  # in the order of their names
    body: bytes


class Wire(asyncio.Transport):
    """A connection's end, which keeps what is sent and tells when it is whole."""

    def __init__(self, peer: tuple[str, int] | None = ("127.0.0.1", 40000)) -> None:
        super().__init__({"peername": peer, "sockname": ("127.0.0.1", 8000)})
        self.sent = b""
        self.closed = False
        self.changed = asyncio.Event()

    def write(self, data: Any) -> None:
        """Called by the server."""
        self.sent += bytes(data)
        self.changed.set()

    def close(self) -> None:
        """Called by the server."""
        if not self.closed:
            self.closed = True
            self.changed.set()
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        """Called by the server."""
        return self.closed

    def pause_reading(self) -> None:
        """Called by the server."""

    def resume_reading(self) -> None:
        """Called by the server."""

    def connect(self, application: Application) -> Connection:
        """A connection to the application, at whose other end this is."""
        config = uvicorn.Config(application, **UVICORN)
        loop = asyncio.get_running_loop()
        self.connection = Connection(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        self.connection.connection_made(self)
        CONNECTIONS.append(self.connection)
        return self.connection

    async def answers(self, *methods: str) -> list[Answer]:
        """The answers to requests with these methods; fewer when the server hangs up before."""
        while len(found := parsed(self.sent, methods, self.closed)) < len(methods) and not self.closed:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)
        return found


def parsed(sent: bytes, methods: Iterable[str], is_closed: bool) -> list[Answer]:
    """The whole answers at the front of `sent`."""
    client = h11.Connection(h11.CLIENT)
    if sent:
        client.receive_data(sent)
    if sent and is_closed:
        client.receive_data(b"")  # the end
    found: list[Answer] = []
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        body, start = b"", None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                if not is_closed:
                    raise
                return found  # in the middle of an answer
            if isinstance(event, h11.Response):
                start = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and start is not None:
                break
            elif not isinstance(event, h11.InformationalResponse):
                return found
        found.append(Answer(start.status_code, sorted(start.headers), body))
        if client.their_state is not h11.DONE:
            return found
        client.start_next_cycle()
    return found


def request(method: str, target: bytes, headers: Headers, *pieces: bytes) -> list[bytes]:
    """A request's head, and its body in pieces, as they are sent."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), *(b"%s: %s" % header for header in headers)]
    head = b"\r\n".join([*lines, b"", b""])
    if (b"transfer-encoding", b"chunked") not in headers:
        return [head, *pieces]
    return [head, *(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece), b"0\r\n\r\n"]


def ask(
    application: Application,
    *pieces: bytes,
    method: str = "POST",
    peer: tuple[str, int] | None = ("127.0.0.1", 40000),
) -> Answer | None:
    """The answer to one request that comes in pieces; None when the server hangs up without one."""

    async def talk() -> list[Answer]:
        wire = Wire(peer)
        connection = wire.connect(application)
        for piece in pieces:
            if not wire.closed:
                connection.data_received(piece)
        return await wire.answers(method)

    found = converse(application, talk())
    return found[0] if found else None


def converse(application: Application, talk: Coroutine[Any, Any, T]) -> T:
    """What `talk` returns, in an event loop of its own, which the application leaves afterwards."""

    async def whole() -> T:
        try:
            return await talk
        finally:
            for connection in CONNECTIONS:
                connection.transport.close()
            CONNECTIONS.clear()
            if application.lane is not None:
                application.lane.close()
            await asyncio.sleep(0)  # what was closed is told so in the next turn

    return asyncio.run(whole())


class ServedClient(FlaskClient):
    """A test client whose requests take the way of served ones, past the hot lane."""

    def __init__(self, app: Flask, *args: Any, **options: Any) -> None:
        super().__init__(app, *args, **options)
        self.served = Application(app)

    def run_wsgi_app(self, environ: "WSGIEnvironment", buffered: bool = False) -> Any:
        """Werkzeug's hook: how a request becomes an answer."""
        return run_wsgi_app(self._call, environ, buffered)

    def _call(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        names = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
        headers = [(names[name], environ[name].encode("latin-1")) for name in names if environ.get(name)]
        headers += [
            (name[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        target = quote_from_bytes(environ["PATH_INFO"].encode("latin-1")).encode()
        if environ["QUERY_STRING"]:
            target += b"?" + environ["QUERY_STRING"].encode("latin-1")
        method = environ["REQUEST_METHOD"]
        pieces = request(method, target, headers, environ["wsgi.input"].read())
        address = environ.get("REMOTE_ADDR", "127.0.0.1")
        answer = ask(self.served, *pieces, method=method, peer=(address, 40000))
        if answer is None:
            raise ConnectionError("the server hung up")
        found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
        start_response(f"{answer.status} -", found)
        return [answer.body]
