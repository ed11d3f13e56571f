"""Flask behind ASGI, in threads of its own: all that is served but the page views of the hot lane.

A body is read whole before a thread is given to it, so that slow senders occupy none; those who read slowly
are given up after a while.
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from flask import Flask

from api import app as flask_application
from api import metrics, tracking
from api.hot_lane import HotLane
from api.parts import of
from footfall.errors import Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

THREADS = 8  # no more than PostgreSQL's pool has connections
MOST_BYTES = {f"/api{tracking.BATCH_PATH}": tracking.BATCH_BYTES}
MOST_BYTES_ELSEWHERE = 64 * 1024
ANSWER_SECONDS = 40.0  # of a POST, whose thread may hang with the stores; no flush and no group takes as long
SEND_SECONDS = 30.0  # for one piece of a streamed answer
LENGTH = re.compile(rb"[0-9]{1,18}")  # Content-Length, as far as it can be one; the body is read without it
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
WITHOUT_BODY = (204, 304)
WITHOUT_PREFIX = ("CONTENT_TYPE", "CONTENT_LENGTH")  # of all headers, in WSGI

Scope = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def create_app() -> "Application":
    """The application for the environment's settings. Raises as `api.app.create_app` does."""
    return Application(flask_application.create_app())


class Application:
    """A Flask application behind ASGI, and the hot lane past it if its settings want one (`api.connection`).

    Ours and not a library's: those at hand refuse bytes beyond ASCII in a query, hold a thread while a slow
    client sends or reads, and cross between threads four times for an answer.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.lane = HotLane(app) if of(app).settings.hot_lane else None
        self.opening: tuple[Headers, bytes] = ([], b"")  # of the connections' answers
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flask")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await _read(scope, receive)
        except ConnectionError:
            return  # nobody is left to answer
        loop = asyncio.get_running_loop()
        environ = _environ(scope, body)
        try:
            # what reads may be a long stream; who tells of views is told in time to come again
            async with asyncio.timeout(ANSWER_SECONDS if scope["method"] == "POST" else None):
                answer = await loop.run_in_executor(self._threads, self._answer, environ, loop, send)
        except TimeoutError:
            answer = self.failed(scope, body, Unavailable("the stores take too long"))
        if answer is not None:
            await _send(send, answer)

    def failed(self, scope: Scope, body: bytes, error: Exception) -> Answer:
        """What Flask answers when a view function raises `error`."""
        with self._app.request_context(_environ(scope, body)):
            made = self._app.make_response(self._app.handle_user_exception(error))
            response = self._app.process_response(made)
            return Answer(response.status_code, _as_bytes(response.headers), response.get_data())

    def _answer(
        self, environ: "WSGIEnvironment", loop: asyncio.AbstractEventLoop, send: Send
    ) -> Answer | None:
        """Flask's answer; None for a streamed one, which has been sent then."""
        head: list[tuple[int, Headers]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _: object = None
        ) -> Callable[[bytes], None]:
            head.append((int(status[:3]), _as_bytes(headers)))
            return _no_write

        pieces = self._app(environ, start_response)
        try:
            ((status, headers),) = head
            if status in WITHOUT_BODY or any(name == b"content-length" for name, _ in headers):
                return Answer(status, headers, b"".join(pieces))
            for message in _messages(status, headers, pieces):
                asyncio.run_coroutine_threadsafe(_sent(send, message), loop).result(SEND_SECONDS)
            return None
        except TimeoutError:
            # raised, so that what is sent of it does not look whole
            raise ConnectionAbortedError("the client reads no further") from None
        finally:
            if hasattr(pieces, "close"):
                pieces.close()


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The body, up to one byte more than the endpoint takes; nothing of one that says it is larger.

    Raises `ConnectionError` when the client is gone.
    """
    most = MOST_BYTES.get(scope["path"], MOST_BYTES_ELSEWHERE)
    if _content_length(scope) > most + 1:
        return b""  # Flask refuses it for what it says of itself
    body, has_more = b"", True
    while has_more and len(body) <= most:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client is gone")
        body = body + message["body"] if body else message["body"]
        has_more = message["more_body"]
    return body


def _content_length(scope: Scope) -> int:
    """In bytes; -1 when the request does not say, as one that comes in chunks does not."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if LENGTH.fullmatch(value) else -1
    return -1


def _environ(scope: Scope, body: bytes) -> "WSGIEnvironment":
    """The request as WSGI has it (PEP 3333): bytes as Latin-1, one value a header."""
    host, port = scope["server"] or ("localhost", 80)
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        # Werkzeug fails at bytes that are not UTF-8, unless they are encoded as they should be
        "QUERY_STRING": BEYOND_ASCII.sub(_percent_encoded, scope["query_string"]).decode(),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,  # the body is all there is, also of one that came in chunks
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        metrics.STARTED: time.perf_counter(),
    }
    if scope["client"]:
        environ["REMOTE_ADDR"] = scope["client"][0]
    for raw_name, value in scope["headers"]:
        if b"_" in raw_name:
            continue  # X_Forwarded_For would pass for X-Forwarded-For
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        name = name if name in WITHOUT_PREFIX else f"HTTP_{name}"
        text = value.decode("latin-1")
        separator = "; " if name == "HTTP_COOKIE" else ","
        environ[name] = f"{environ[name]}{separator}{text}" if name in environ else text
    return environ


def _percent_encoded(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]


def _as_bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _messages(status: int, headers: Headers, pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    yield {"type": "http.response.start", "status": status, "headers": headers}
    for piece in pieces:
        yield {"type": "http.response.body", "body": piece, "more_body": True}
    yield {"type": "http.response.body", "body": b""}


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _no_write(_: bytes) -> None:
    raise NotImplementedError("an application answers with pieces")


async def _sent(send: Send, message: dict[str, Any]) -> None:
    await send(message)
