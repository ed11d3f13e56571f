"""`POST /api/track/page-view` in front of Flask, whose dispatch costs more than all else that a view needs.

The lane answers the views that it takes. A request that is wrong or odd in any way is for Flask, which gets
it untouched, so that every error is found and worded in one place.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from flask import Flask

from api import bodies, callers, cors, parts, tracking
from footfall import access, intake
from footfall.clock import utc_now
from footfall.errors import Limited, Unavailable
from footfall.event import Outcome, View, ViewEvent
from footfall.group_commit import LONGEST_WAIT_SECONDS
from footfall.intake import Viewer
from footfall.stream import Taken
from footfall.traffic import Answered

PATH = f"/api{tracking.PAGE_VIEW_PATH}"
ANSWERED = Answered("tracking", "POST", PATH, 204)
JSON = (b"content-type", b"application/json")
MOST_HEADS = 64  # kept: of the site's origins, which a client may write in many ways
VARY = (b"vary", b"Origin")
NOSNIFF = (b"x-content-type-options", b"nosniff")

Head = list[tuple[bytes, bytes]]
Scope = Mapping[str, Any]
Turn = list[tuple[Scope, bytes, asyncio.Future[Taken | None]]]


class HotLane:
    """Takes page views for the process of `app`, in its event loop.

    What comes while a group is on its way waits, and is gone through in one go when the group is back: the
    two threads meet once for all of it, and the processor finds the code where it was.
    """

    def __init__(self, app: Flask) -> None:
        self._here = parts.of(app)
        self._waiting: Turn = []
        self._is_under_way = False
        self._country_header = (self._here.settings.country_header or "").lower().encode()
        self._origins = cors.normalised(self._here.settings.cors_origins)
        self._heads: dict[tuple[bytes | None, Outcome], Head] = {}

    def is_for(self, scope: Scope) -> bool:
        """Whether the lane may take the request."""
        return bool(scope["path"] == PATH and scope["method"] == "POST")

    def take(self, scope: Scope, body: bytes) -> asyncio.Future[Taken | None]:
        """What becomes of the view; None leaves the request to Flask, and nothing is done.

        The future raises `Unavailable` when no store takes it, `Limited` for one too many of its viewer.
        """
        future: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((scope, body, future))
        if not self._is_under_way:
            self._send()
        return future

    def head(self, scope: Scope, taken: Taken, seconds: float) -> Head:
        """The headers of the answer, which took so many seconds."""
        self._here.traffic.answered(ANSWERED, seconds)
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        found = self._heads.get((origin, taken.outcome))
        return self._made_head(origin, taken.outcome) if found is None else found

    def _send(self) -> None:
        turn, self._waiting = self._waiting, []
        now = utc_now()
        views: list[View] = []
        futures: list[asyncio.Future[Taken | None]] = []
        for scope, body, future in turn:
            try:
                event = self._event(scope, body, now)
            except Limited as error:
                _resolve([future], error)
                continue
            if event is None:
                _resolve([future], [None])
            else:
                views.append(View(event))
                futures.append(future)
        if not views:
            return
        self._is_under_way = True
        loop = asyncio.get_running_loop()
        late = Unavailable("the stores take too long")
        limit = loop.call_later(LONGEST_WAIT_SECONDS, _resolve, futures, late)

        def done(taken: list[Taken] | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._deliver, futures, taken, limit)

        self._here.group_commit.submit(views, now, done)

    def _deliver(
        self,
        futures: list[asyncio.Future[Taken | None]],
        taken: list[Taken] | Exception,
        limit: asyncio.TimerHandle,
    ) -> None:
        limit.cancel()
        self._is_under_way = False
        if self._waiting:
            self._send()
        _resolve(futures, taken)

    def _event(self, scope: Scope, body: bytes, now: datetime) -> ViewEvent | None:
        """None for what Flask has to answer. Raises `Limited`."""
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]) or not self._here.salts.are_at_hand(now):
            return None  # a header that comes twice; a day whose salt has to be asked for, which takes time
        try:
            viewer = self._viewer(scope["client"][0], headers, now)
            bodies.require_size(body, tracking.PAGE_VIEW_BYTES)
            event = intake.page_view(bodies.parse(body), viewer, now, self._here.edge)
        except Exception:
            return None  # Flask comes to the same, and says it
        self._here.limits.admit(viewer, now)  # not above: Flask would count the view once more
        return event

    def _viewer(self, peer: str, headers: Mapping[bytes, bytes], now: datetime) -> Viewer:
        here, sent = self._here, headers.get
        bodies.require_media_type(_text(sent(b"content-type", b"")))
        authorization = sent(b"authorization")
        sender = authorization and access.authenticate(_text(authorization), here.settings, now)
        forwarded = sent(b"x-forwarded-for")
        hops = here.settings.trusted_proxies
        country = sent(self._country_header) if self._country_header else None
        return callers.viewer_of(
            here,
            sender or None,
            address=callers.client_address(peer, _text(forwarded), hops) if forwarded and hops else peer,
            user_agent=_text(sent(b"user-agent", b"")),
            country=_text(country) if country else None,
            no_trace=sent(b"sec-gpc") == b"1" or sent(b"dnt") == b"1",
            origin=_text(sent(b"origin", b"")),
            host=_text(sent(b"host", b"")),
        )

    def _made_head(self, origin: bytes | None, outcome: Outcome) -> Head:
        opening = {} if origin is None else cors.headers(_text(origin), self._origins)
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in opening.items()]
        head = [JSON, VARY, NOSNIFF, *named, (b"x-view-outcome", outcome.encode())]
        if (opening or origin is None) and len(self._heads) < MOST_HEADS:
            self._heads[origin, outcome] = head
        return head


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # as WSGI has it


def _resolve(
    futures: Sequence[asyncio.Future[Taken | None]], taken: Sequence[Taken | None] | Exception
) -> None:
    for index, future in enumerate(futures):
        if future.done():
            continue  # cancelled, or given up
        if isinstance(taken, Exception):
            future.set_exception(taken)
        else:
            future.set_result(taken[index])
