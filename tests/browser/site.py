"""A site that is counted: plain pages with the script on them, and Footfall behind the same address."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>{head}</head>
<body><h1>A page</h1><p><a id="next" href="{next}">next</a></p></body></html>"""
SCRIPT = '<script defer src="/footfall.js"{attributes}></script>'
FORWARDED = ("Authorization", "Content-Type", "User-Agent", "Origin")
PASSED_ON = ("Content-Type", "Cache-Control", "ETag", "Retry-After", "X-View-Outcome")


class Site(ThreadingHTTPServer):
    """Serves every path as a page; `/footfall.js` and `/api/` come from the instance, unless refused."""

    daemon_threads = True
    # many tabs at once
    request_queue_size = 64

    def __init__(self, api: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = urlsplit(api).netloc
        self.head = SCRIPT.format(attributes="")
        self.next = "/"
        self.files: dict[str, bytes] = {}  # scripts of the site's own
        self.refusing = False
        self.posts: list[tuple[str, dict[str, object]]] = []  # path and body of each POST that came here

    def url(self, host: str = "site.example") -> str:
        """Where a browser that takes every `.example` for this machine finds it."""
        return f"http://{host}:{self.server_port}"

    def ids(self) -> list[object]:
        """The ids of all views that came here, also those that were refused."""
        return [body["id"] for _, body in self.posts]


class Handler(BaseHTTPRequestHandler):
    """One request of the browser."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A page, or what the instance has."""
        if self.path.startswith(("/api/", "/footfall")):
            self._pass_on(b"")
        elif self.path in self.server.files:
            self._answer(200, {"Content-Type": "text/javascript"}, self.server.files[self.path])
        elif self.path == "/favicon.ico":
            self._answer(204, {}, b"")
        else:
            page = PAGE.format(head=self.server.head, next=self.server.next)
            self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, page.encode())

    def do_POST(self) -> None:
        """A view, passed on or refused."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.posts.append((self.path, json.loads(body)))
        if self.server.refusing:
            self._answer(503, {"Retry-After": "1"}, b"")
        else:
            self._pass_on(body)

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""

    def _pass_on(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.server.api, timeout=20)
        headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        passed = {name: value for name in PASSED_ON if (value := answer.headers.get(name)) is not None}
        self._answer(answer.status, passed, content)
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(api: str) -> Iterator[Site]:
    """A site, served until the end."""
    site = Site(api)
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        thread.join()
        site.server_close()
