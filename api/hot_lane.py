"""`POST /api/track/page-view` in front of Flask, whose dispatch costs more than all else that a view needs.

The lane answers the views that it takes. A request that is wrong or odd in any way is for Flask, which gets
it untouched, so that every error is found and worded in one place.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from flask import Flask

from api import bodies, callers, cors, parts, tracking
from footfall import access, intake
from footfall.clock import utc_now
from footfall.errors import Unavailable
from footfall.event import Outcome, View, ViewEvent
from footfall.group_commit import LONGEST_WAIT_SECONDS, GroupCommit
from footfall.stream import Taken
from footfall.traffic import Answered

PATH = f"/api{tracking.PAGE_VIEW_PATH}"
ANSWERED = Answered("tracking", "POST", PATH, 204)
JSON = (b"content-type", b"application/json")
VARY = (b"vary", b"Origin")

Head = list[tuple[bytes, bytes]]
Turn = list[tuple[View, asyncio.Future[Taken]]]


class HotLane:
    """Takes page views for the process of `app`, in its event loop."""

    def __init__(self, app: Flask) -> None:
        self._here = parts.of(app)
        self._turns = Turns(self._here.group_commit)
        self._heads: dict[tuple[bytes | None, Outcome], Head] = {}
        self._country_header = (self._here.settings.country_header or "").lower().encode()
        self._origins = cors.normalised(self._here.settings.cors_origins)

    def is_for(self, scope: Mapping[str, Any]) -> bool:
        """Whether the lane may take the request."""
        return bool(scope["path"] == PATH and scope["method"] == "POST")

    def submit(self, scope: Mapping[str, Any], body: bytes) -> asyncio.Future[Taken] | None:
        """What becomes of the view; None leaves the request to Flask, and nothing is done.

        The future raises `Unavailable` when no store takes it.
        """
        now = utc_now()
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]) or not self._here.salts.are_at_hand(now):
            return None  # a header that comes twice; a day whose salt has to be asked for, which takes time
        try:
            event = self._event(scope["client"][0], headers, body, now)
        except Exception:
            return None  # Flask comes to the same, and says it
        return self._turns.take(View(event), now)

    def head(self, scope: Mapping[str, Any], taken: Taken, seconds: float) -> Head:
        """The headers of the answer, which took so many seconds."""
        self._here.traffic.answered(ANSWERED, seconds)
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        found = self._heads.get((origin, taken.outcome))
        return self._made_head(origin, taken.outcome) if found is None else found

    def _event(self, peer: str, headers: Mapping[bytes, bytes], body: bytes, now: datetime) -> ViewEvent:
        here, sent = self._here, headers.get
        bodies.require_media_type(_text(sent(b"content-type", b"")))
        authorization = sent(b"authorization")
        sender = authorization and access.authenticate(_text(authorization), here.settings, now)
        forwarded = sent(b"x-forwarded-for")
        hops = here.settings.trusted_proxies
        country = sent(self._country_header) if self._country_header else None
        viewer = callers.viewer_of(
            here,
            sender or None,
            address=callers.client_address(peer, _text(forwarded), hops) if forwarded and hops else peer,
            user_agent=_text(sent(b"user-agent", b"")),
            country=_text(country) if country else None,
            no_trace=sent(b"sec-gpc") == b"1" or sent(b"dnt") == b"1",
            origin=_text(sent(b"origin", b"")),
            host=_text(sent(b"host", b"")),
        )
        bodies.require_size(body, tracking.PAGE_VIEW_BYTES)
        return intake.page_view(bodies.parse(body), viewer, now, here.edge)

    def _made_head(self, origin: bytes | None, outcome: Outcome) -> Head:
        opening = {} if origin is None else cors.headers(_text(origin), self._origins)
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in opening.items()]
        head = [JSON, VARY, *named, (b"x-view-outcome", outcome.encode())]
        if opening or origin is None:  # of which there are few
            self._heads[origin, outcome] = head
        return head


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # as WSGI has it


class Turns:
    """Gathers what comes while a group is on its way, so that the two threads meet once for all of it."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self._group_commit = group_commit
        self._waiting: Turn = []
        self._is_under_way = False

    def take(self, view: View, now: datetime) -> asyncio.Future[Taken]:
        """What becomes of `view`; the future raises `Unavailable`."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((view, future))
        if not self._is_under_way:
            self._send(now)
        return future

    def _send(self, now: datetime) -> None:
        turn, self._waiting = self._waiting, []
        self._is_under_way = True
        loop = asyncio.get_running_loop()
        limit = loop.call_later(LONGEST_WAIT_SECONDS, _resolve, turn, Unavailable("the stores take too long"))

        def done(taken: list[Taken] | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._deliver, turn, taken, limit)

        self._group_commit.submit([view for view, _ in turn], now, done)

    def _deliver(self, turn: Turn, taken: list[Taken] | Exception, limit: asyncio.TimerHandle) -> None:
        limit.cancel()
        self._is_under_way = False
        if self._waiting:
            self._send(utc_now())
        _resolve(turn, taken)


def _resolve(turn: Turn, taken: list[Taken] | Exception) -> None:
    for index, (_, future) in enumerate(turn):
        if future.done():
            continue  # cancelled, or given up
        if isinstance(taken, Exception):
            future.set_exception(taken)
        else:
            future.set_result(taken[index])
