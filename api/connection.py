"""One client's connection: uvicorn's, but for page views, which are answered here.

What ASGI makes of a request (a task, a message each way for every part of it) costs several times what a
view does. What uvicorn leaves to a proxy is here too: limits to the time and the length of a request.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.asgi import Answer, Application, Headers, Scope
from api.hot_lane import PATH
from api.tracking import PAGE_VIEW_BYTES

URL = PATH.encode()
# What uvicorn adds to a page view's scope when its headers are complete
REST_OF_SCOPE = {"method": "POST", "path": PATH, "raw_path": URL, "query_string": b""}
HEAD_BYTES = 64 * 1024  # of a request line with its headers
REQUEST_SECONDS = 30.0  # for a whole request, from the moment when it could have begun
LOOK_SECONDS = 5.0  # between two looks for one that takes longer
UNREAD_SECONDS = 30  # for which a client may leave unread what is sent to it
LAST_CALL_SECONDS = 0.5  # for requests to a process that ends
CLOSE = b"connection: close\r\n"
NOWHERE: Any = deque(maxlen=0)  # what is appended to it is gone


def _refusal(status: int, text: bytes, code: bytes) -> Answer:
    headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
    return Answer(status, headers, b'{"error":"%s","code":"%s"}' % (text, code))


MALFORMED = _refusal(400, b"this is no request of HTTP/1.1", b"bad_request")
TOO_SLOW = _refusal(408, b"the request took too long", b"too_slow")
TOO_LONG = _refusal(431, b"the request's headers are too long", b"headers_too_long")


class PageView:
    """A page view on its way: to uvicorn a cycle of request and response like its own."""

    message_event = asyncio.Event()  # uvicorn's; nobody waits for it here
    more_body = response_started = response_complete = disconnected = False
    body = b""
    head = b""  # of the answer, when all goes well

    def __init__(
        self, connection: "Connection", headers: Headers, sent: Mapping[bytes, bytes], keep_alive: bool
    ) -> None:
        self._connection = connection
        self.peer = connection.peer
        self.headers = headers
        self.sent = sent
        self.keep_alive = keep_alive

    def answer(self, error: Exception | None) -> None:
        """Tell the client that it is taken, or why not."""
        self.response_complete = True
        if self.disconnected:
            return
        try:
            self._connection.finish(self, error)
        except Exception:
            self._connection.transport.abort()  # rather than let the client wait for nothing
            raise

    def hand_over(self) -> None:
        """Leave it to Flask."""
        if not self.disconnected:
            self._connection.hand_over(self)


class Connection(HttpToolsProtocol):
    """Serves the requests of one client, one after the other. Its application is an `Application`."""

    cycle: Any  # that was begun last: uvicorn's or a `PageView`; None before the first
    peer = ""  # the address at the other end, as far as there is one

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._application = cast(Application, self.app)
        self._lane = self._application.lane
        self._view: PageView | None = None  # that is being read
        self._is_in_head = False
        self._head_bytes = 0  # of a head, or of what stands between a body's chunks, that came in pieces
        self._has_moved = False  # on from there
        self._is_ending = False  # after the answer to what comes within a moment
        self._began: float | None = None  # when a request that is not complete could have begun
        self._idle_since: float | None = None  # since a page view was answered, and nothing after it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._began = self.loop.time()
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            # also when all is written and the kernel holds it, which no timer of ours would see
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._began is None:
            self._began = self.loop.time()
        self._has_moved = False
        try:
            super().data_received(data)
        except UnicodeDecodeError:  # bytes beyond ASCII in the request line
            self._refuse(MALFORMED)
        if self._has_moved:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(TOO_LONG)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        # without uvicorn's scope: a page view needs one only on its way to Flask
        self.url = b""
        self.headers = []
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._is_in_head = False
        self._has_moved = True
        # what comes after a body in chunks is no header, or clients could add to what proxies say of them
        headers, self.headers = self.headers, NOWHERE
        sent = dict(headers)
        if (
            self._lane is not None
            and self.url == URL
            and self.parser.get_method() == b"POST"
            and b"expect" not in sent
            and not self.parser.should_upgrade()
            and (self.cycle is None or self.cycle.response_complete)  # else it has to wait in uvicorn's line
        ):
            self._view = PageView(self, headers, sent, self._keeps_alive(sent))
            self.cycle = self._view
        else:
            self._idle_since = None  # uvicorn has a timer
            self.scope = cast(Any, self._scope(headers))
            self.expect_100_continue = sent.get(b"expect", b"").lower() == b"100-continue"
            super().on_headers_complete()
            if self._is_ending:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._has_moved = True
        view = self._view
        if view is None:
            super().on_body(body)
        elif len(view.body) + len(body) <= PAGE_VIEW_BYTES:
            view.body = view.body + body if view.body else body
        else:
            self._view = None
            self.hand_over(view, has_more=True)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._began = None
        self._has_moved = True
        view, lane = self._view, self._lane
        if view is None or lane is None:
            super().on_message_complete()
            return
        self._view = None
        lane.take(view)

    def shutdown(self) -> None:
        """Called by uvicorn when the process is told to end."""
        self._is_ending = True
        if self._is_answering():
            self.cycle.keep_alive = False
        else:  # a request may be on its way to us, and whoever sent it would not know what became of it
            self.loop.call_later(LAST_CALL_SECONDS, self._end)

    def finish(self, view: PageView, error: Exception | None) -> None:
        """Send the answer to `view`, which has just been decided."""
        if self.transport.is_closing():
            return
        if error is not None:
            self._write(
                self._application.failed(self._scope(view.headers) | REST_OF_SCOPE, view.body, error),
                view.keep_alive,
            )
        elif view.keep_alive:
            self.transport.write(self._opening() + view.head)
        else:
            self.transport.write(self._opening() + CLOSE + view.head)
        self.server_state.total_requests += 1
        if not view.keep_alive:
            self.transport.close()
        elif self.pipeline:
            self.on_response_complete()
        else:
            # instead of uvicorn's timer, which costs more than all of this
            self._idle_since = self.loop.time()

    def hand_over(self, view: PageView, *, has_more: bool = False) -> None:
        """Give to ASGI what was to be a page view; with `has_more` its body is still being read."""
        self._idle_since = None
        cycle = RequestResponseCycle(
            scope=cast(Any, self._scope(view.headers) | REST_OF_SCOPE),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=view.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += view.body
        cycle.more_body = has_more
        cycle.message_event.set()
        if self.cycle is view:  # else the next request is waiting in uvicorn's line
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what the parser does not take."""
        self._refuse(MALFORMED)

    def _scope(self, headers: Headers) -> Scope:
        """What `api.asgi` reads of a request's scope, but for what stands in the request line."""
        return {
            "type": "http",
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "headers": headers,
        }

    def _keeps_alive(self, sent: Mapping[bytes, bytes]) -> bool:
        # 1.0: as uvicorn has it. Only with these headers the parser would keep it, and to tell the version
        # costs as much as to read four headers
        is_asked = b"connection" in sent or b"proxy-connection" in sent
        return (
            self.parser.should_keep_alive()
            and not (is_asked and self.parser.get_http_version() == "1.0")
            and not self._is_ending
        )

    def _end(self) -> None:
        if not self._is_answering():
            self.transport.close()

    def _look(self) -> None:
        now = self.loop.time()
        is_late = self._began is not None and now - self._began > REQUEST_SECONDS
        is_idle = self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive
        if is_late and (self._is_in_head or self._is_reading_body()):
            self._refuse(TOO_SLOW)
        elif (is_late or (is_idle and self._began is None)) and not self._is_answering():
            self.transport.close()
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_reading_body(self) -> bool:
        cycle = self.cycle
        return self._view is not None or (
            cycle is not None and cycle.more_body and not cycle.response_started
        )

    def _refuse(self, answer: Answer) -> None:
        """Answer, unless another answer comes first, and hear no more."""
        if not self._is_answering() or self._is_reading_body():
            self._write(answer, keep_alive=False)
        self.transport.close()

    def _write(self, answer: Answer, keep_alive: bool) -> None:
        lines = [STATUS_LINE[answer.status], *map(_line, self.server_state.default_headers)]
        lines += [_line(header) for header in answer.headers if header[0] != b"content-length"]
        lines.append(_line((b"content-length", str(len(answer.body)).encode())))
        if not keep_alive:
            lines.append(CLOSE)
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))

    def _opening(self) -> bytes:
        """What all answers to page views begin with."""
        headers, opening = self._application.opening
        if headers is not self.server_state.default_headers:  # they are made anew every second
            headers = self.server_state.default_headers
            opening = b"".join([STATUS_LINE[204], *map(_line, headers)])
            self._application.opening = headers, opening
        return opening


def _line(header: tuple[bytes, bytes]) -> bytes:
    return b"%s: %s\r\n" % header
