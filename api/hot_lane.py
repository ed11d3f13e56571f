"""`POST /api/track/page-view` in front of Flask, whose dispatch costs more than all else that a view needs.

The lane answers the views that it takes. A request that is wrong or odd in any way is for Flask, which gets
it untouched, so that every error is found and worded in one place.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol, get_args

from flask import Flask
from redis.exceptions import RedisError

from api import bodies, callers, cors, parts, tracking
from api.callers import Browser
from footfall import access, stream
from footfall.clock import utc_now
from footfall.errors import Invalid, Limited, Unavailable
from footfall.event import COUNTRY_FIELD, OUTCOME_FIELD, Fields, Outcome, View, ViewEvent, plain_event
from footfall.group_commit import LONGEST_WAIT_SECONDS, MOST_VIEWS
from footfall.intake import PageViews
from footfall.loop_redis import LoopRedis
from footfall.stream import Taken
from footfall.traffic import Answered

log = logging.getLogger(__name__)

PATH = f"/api{tracking.PAGE_VIEW_PATH}"
ANSWERED = Answered("tracking", "POST", PATH, 204)
# The headers of which a browser sends the same ones each time; from the second on as `browser_of` takes them
SAID = (b"content-type", b"user-agent", b"origin", b"host", b"sec-gpc", b"dnt")
# How many of those are kept as they were read, at most some 8 MB, and how long they may be to be kept
MOST_BROWSERS = 2048
BROWSER_BYTES = 1024


class Request(Protocol):
    """A page view that came, as the lane sees it."""

    peer: str  # the address at the other end of the connection; empty where there is none
    headers: list[tuple[bytes, bytes]]  # names in lower case
    sent: Mapping[bytes, bytes]  # the same, of those that come twice the last one
    body: bytes
    head: bytes  # the end of the answer's head, told by the lane

    def answer(self, error: Exception | None) -> None:
        """Called once, when the view is durable or why it is not is known."""

    def hand_over(self) -> None:
        """Called in place of `answer`: the lane does not take it."""


class HotLane:
    """Takes page views for the process of `app`, in its event loop.

    All that comes in one turn of the loop, and all that comes while a group is on its way, is the next group:
    one entry of the stream, one round trip, one wait for the disk.
    """

    def __init__(self, app: Flask) -> None:
        self._here = parts.of(app)
        self._redis = LoopRedis(self._here.settings.redis_url)
        self._waiting: list[tuple[Request, float]] = []  # with when each came
        self._task: asyncio.Task[None] | None = None
        self._country_header = (self._here.settings.country_header or "").lower().encode()
        self._origins = cors.normalised(self._here.settings.cors_origins)
        self._browsers: dict[tuple[bytes | None, ...], tuple[Browser, Mapping[Outcome, bytes]]] = {}

    def take(self, request: Request) -> None:
        """Answer `request` as soon as its view is durable, or hand it over."""
        self._waiting.append((request, time.perf_counter()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._commit())

    def close(self) -> None:
        """Let go of Redis. The lane may be used again, also in another event loop."""
        self._redis.close()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                turn, self._waiting = self._waiting[:MOST_VIEWS], self._waiting[MOST_VIEWS:]
                group = self._read(turn)
                events = [event for _, event, _ in group]
                errors = await self._made_durable(events) if events else []
                for (request, _, _), error in zip(group, errors, strict=True):
                    _tell(request.answer, error)
                self._note(events, [began for _, _, began in group], errors)
        finally:
            self._task = None

    def _read(self, turn: Sequence[tuple[Request, float]]) -> list[tuple[Request, Fields, float]]:
        """The events of a turn; whoever has none is answered or handed over."""
        # one after the other and not as each comes: so the processor finds the code where it was
        now = utc_now()
        group: list[tuple[Request, Fields, float]] = []
        if not self._here.salts.are_at_hand(now):  # they have to be asked for, which takes time
            for request, _ in turn:
                _tell(request.hand_over)
            return group
        views = PageViews(now, self._here.edge)
        for request, began in turn:
            try:
                event, heads = self._event(request, views, now)
            except Limited as error:
                _tell(request.answer, error)
            except Exception:
                _tell(request.hand_over)  # Flask comes to the same, and says it
            else:
                request.head = heads[event[OUTCOME_FIELD]]
                group.append((request, event, began))
        return group

    async def _made_durable(self, events: Sequence[Fields]) -> Sequence[Exception | None]:
        """What kept each of `events` from it."""
        if self._here.acceptance.may_append and self._redis.can_connect:
            try:
                await stream.put_from_loop(self._redis, events)
                return [None] * len(events)
            except RedisError as error:
                self._here.acceptance.lost(error)
            except Exception:
                log.exception("a group failed; its views are tried one by one")
        # whether they are in the queue is not known: they go the long way under their ids
        now = utc_now()
        return await asyncio.gather(*(self._taken_aside(event, now) for event in map(plain_event, events)))

    async def _taken_aside(self, event: ViewEvent, now: datetime) -> Exception | None:
        """Take it in the thread that may wait: for Redis, or for PostgreSQL in its place."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Exception | None] = loop.create_future()

        def done(taken: list[Taken] | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(_resolve, future, taken if isinstance(taken, Exception) else None)

        self._here.group_commit.submit([View(event)], now, done)
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                return await future
        except TimeoutError:
            return Unavailable("the stores take too long")

    def _note(
        self, events: Sequence[Fields], began: Sequence[float], errors: Sequence[Exception | None]
    ) -> None:
        """What came was answered now."""
        now = time.perf_counter()
        taken = [now - one for one, error in zip(began, errors, strict=True) if error is None]
        self._here.traffic.answered(ANSWERED, *taken)
        unknown = sum(event[COUNTRY_FIELD] is None for event in events)
        self._here.traffic.countries_asked(known=len(events) - unknown, unknown=unknown)

    def _event(
        self, request: Request, views: PageViews, now: datetime
    ) -> tuple[Fields, Mapping[Outcome, bytes]]:
        """The event, as it stands in an envelope, and how its answer's head ends.

        Raises `Limited`, and whatever is wrong with a request that Flask has to answer.
        """
        here, sent = self._here, request.sent.get
        if len(request.sent) < len(request.headers):
            raise Invalid("headers", "one of them comes twice")
        said = tuple(map(sent, SAID))
        browser, heads = self._browsers.get(said) or self._browser(said)
        authorization = sent(b"authorization")
        sender = authorization and access.authenticate(_text(authorization), here.settings, now)
        forwarded = sent(b"x-forwarded-for")
        peer, hops = request.peer, here.settings.trusted_proxies
        country = sent(self._country_header) if self._country_header else None
        viewer = callers.viewer_of(
            here.countries,
            sender or None,
            callers.client_address(peer, _text(forwarded), hops) if forwarded and hops else peer,
            _text(country) if country else None,
            browser,
        )
        event = views.read(bodies.parse(request.body), viewer)
        here.limits.admit(viewer, now)  # last: what is left to Flask is counted there
        return event, heads

    def _browser(self, said: tuple[bytes | None, ...]) -> tuple[Browser, Mapping[Outcome, bytes]]:
        """What a browser says of itself, and its answers' heads. Raises `UnsupportedMediaType`."""
        content_type, *of_browser = (_text(value or b"") for value in said)
        bodies.require_media_type(content_type)
        origin = said[SAID.index(b"origin")]
        opening = {} if origin is None else cors.headers(_text(origin), self._origins)
        made = callers.browser_of(*of_browser), _heads(opening)
        if sum(len(value or b"") for value in said) <= BROWSER_BYTES:
            if len(self._browsers) >= MOST_BROWSERS:
                self._browsers.clear()
            self._browsers[said] = made
        return made


def _tell(what: Callable[..., None], *told: Exception | None) -> None:
    try:
        what(*told)
    except Exception:  # one client's, which the others have nothing to do with
        log.exception("a page view could not be answered")


def _heads(opening: Mapping[str, str]) -> Mapping[Outcome, bytes]:
    """{outcome: the end of an answer's head}."""
    headers = {"Content-Type": "application/json", "Vary": "Origin", "X-Content-Type-Options": "nosniff"}
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in {**headers, **opening}.items())
    return {
        outcome: f"{lines}x-view-outcome: {outcome}\r\n\r\n".encode("latin-1")
        for outcome in get_args(Outcome)
    }


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # as WSGI has it


def _resolve(future: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not future.done():  # it may have been given up
        future.set_result(error)
