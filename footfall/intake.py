"""The first step of a view: what a request says becomes a `ViewEvent`, or `Invalid` says why not.

Nothing here waits for a server, except for the day's salt when the process does not hold it. What
names a person (address, user agent, user id) comes in with `Viewer` and does not get out.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from footfall import countries, fields, referrers, user_agents, visitors
from footfall.clock import day_start, site_day
from footfall.content_types import CONTENT_TYPES, PAGE, SITE_EVENT, SITE_EVENTS, ContentType
from footfall.errors import Invalid, NotAuthenticated
from footfall.event import EPOCH, MICROSECOND, Device, Fields, Outcome, View, ViewEvent, plain_event
from footfall.fields import Body
from footfall.ids import milliseconds_in, milliseconds_of, uuid7
from footfall.settings import Settings

MAX_BATCH_EVENTS = 1000
DEFAULT_VIEW_TYPE = "intentional"
DEFAULT_VIEW_SOURCE = "web"
AHEAD = timedelta(minutes=5)  # how wrong a client's clock may be
# of the year 9999, where Python's calendar ends; 48 bits reach further
LAST_MILLISECOND = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
MILLISECOND = timedelta(milliseconds=1)
OFFLINE = timedelta(hours=24)  # how long a browser may hold a view back
AHEAD_MICROSECONDS, OFFLINE_MICROSECONDS = AHEAD // MICROSECOND, OFFLINE // MICROSECOND


class Viewer(NamedTuple):
    """Who views, as the request or a trusted caller says. Never stored, queued or logged."""

    address: str | None  # normalised
    user_agent: str  # empty when there is none
    user_id: str | None
    country: str | None
    keep_no_visitor: bool = False  # Sec-GPC or DNT
    own_domains: frozenset[str] = frozenset()  # the site's, as this request shows them


@dataclass(frozen=True, slots=True)
class Edge:
    """What intake needs to know besides the request. Made once by each process."""

    settings: Settings
    day_keys: Callable[[Set[date], datetime], Mapping[date, bytes]]  # of visitors
    country_of_address: Callable[[str], str | None]
    # the user who owns an entity, as the host site has told; asked only where own views are not counted
    owner_of: Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as read: the good views, where each stood, and what was wrong with the others."""

    views: list[View]
    indexes: list[int]
    errors: list[dict[str, object]]  # {"index", "error"}


class _Viewed(NamedTuple):
    """What was viewed, and how."""

    entity_type: str
    external_id: str
    view_type: str = DEFAULT_VIEW_TYPE
    view_source: str = DEFAULT_VIEW_SOURCE


class _Draft(NamedTuple):
    """All of an event but what is made with the day's key: its visitor and its slot."""

    id: UUID
    has_clients_id: bool
    occurred_at: datetime
    day: date
    viewed: _Viewed
    viewer: Viewer
    outcome: Outcome
    device: Device
    referrer_domain: str | None
    has_visitor: bool  # whether the viewer may be kept, as a hash
    has_slot: bool  # whether another view by the same viewer is a repeat; also of those not to be kept


def page_view(body: Body, viewer: Viewer, now: datetime, edge: Edge) -> ViewEvent:
    """The event of a browser's `{path, referrer?, id?}`.

    Raises `Invalid`, or `Unavailable` when the day's salt is not to be had.
    """
    return plain_event(PageViews(now, edge).read(body, viewer))


class PageViews:
    """Reads the page views that come at one moment.

    It is the way that nearly all views take: without the drafts that several events at once need, and without
    the event itself, of which the queue takes the fields only.
    """

    def __init__(self, now: datetime, edge: Edge) -> None:
        self._now = now
        self._edge = edge
        self._microseconds = (now - EPOCH) // MICROSECOND
        self._today = _day_of(now, edge.settings.time_zone)
        self._keys: dict[date, bytes] = {}  # of visitors, as far as they were asked for

    def read(self, body: Body, viewer: Viewer) -> Fields:
        """The event, as it stands in an envelope, of a browser's body. Raises as `page_view`."""
        path = fields.path(fields.text(body, "path"), "path")
        digits, microseconds = _id_and_time(body, self._now, self._microseconds)
        day = self._today
        if not day.begins <= microseconds < day.ends:
            day = _day_of(EPOCH + microseconds * MICROSECOND, self._edge.settings.time_zone)
        agent = user_agents.describe(viewer.user_agent)
        outcome: Outcome = "bot" if agent.is_bot else "counted"
        is_kept = not agent.is_bot and not viewer.keep_no_visitor and _is_somebody(viewer)
        return [
            digits,
            microseconds,
            day.text,
            PAGE.name,
            path,
            DEFAULT_VIEW_TYPE,
            DEFAULT_VIEW_SOURCE,
            outcome,
            agent.device,
            viewer.country,
            _referrer_domain(body, outcome, viewer.own_domains, self._edge.settings.site_domains),
            _visitor(self._keys.get(day.date) or self._key(day.date), viewer) if is_kept else None,
            viewer.user_id is not None,
        ]

    def _key(self, day: date) -> bytes:
        self._keys[day] = key = self._edge.day_keys({day}, self._now)[day]
        return key


class _Day(NamedTuple):
    """A day of the site's."""

    date: date
    text: str
    begins: int  # in microseconds since 1970
    ends: int


def _day_of(moment: datetime, zone: tzinfo) -> _Day:
    return _day(site_day(moment, zone), zone)


@lru_cache(maxsize=8)
def _day(day: date, zone: tzinfo) -> _Day:
    begins, ends = (day_start(one, zone) for one in (day, day + timedelta(days=1)))
    return _Day(day, day.isoformat(), (begins - EPOCH) // MICROSECOND, (ends - EPOCH) // MICROSECOND)


def content_view(body: Body, entity: tuple[str, str], viewer: Viewer, now: datetime, edge: Edge) -> View:
    """A viewer's own view of `entity` (type, id); the body's `{view_type?, view_source?, referrer?, id?}`.

    Raises `Invalid`, `NotAuthenticated` where the type wants a signed-in viewer, `Unavailable` as above.
    """
    content_type = fields.content_type(entity[0], "entity_type")
    if content_type.needs_sign_in and edge.settings.require_sign_in and viewer.user_id is None:
        raise NotAuthenticated(f"a view of a {content_type.name} needs a signed-in user")
    viewed = _viewed(body, content_type, entity[1])
    draft = _draft(body, viewed, viewer, _when_viewed(body, now), edge)
    return _finished([draft], now, edge)[0]


def batch(body: Body, now: datetime, edge: Edge) -> Batch:
    """The events of a trusted caller's `{"events": [...]}`; a bad one costs itself only.

    Raises for all of them: `Invalid` without a list of at most 1,000, `Unavailable` as above.
    """
    drafts: dict[int, _Draft] = {}
    errors: list[dict[str, object]] = []
    for index, entry in enumerate(_entries(body)):
        try:
            drafts[index] = _reported(entry, now, edge)
        except Invalid as error:
            errors.append({"index": index, "error": str(error)})
    return Batch(_finished(drafts.values(), now, edge), list(drafts), errors)


def site_event(body: Body, now: datetime, edge: Edge) -> View:
    """Something else that happened on the site: `{event_type, detail?, ...}`, the rest as in a batch.

    It is counted whoever caused it: an upload by a script is an upload. Raises as `page_view`.
    """
    event_type = fields.text(body, "event_type")
    if event_type not in SITE_EVENTS:
        raise Invalid("event_type", f"must be one of {', '.join(SITE_EVENTS)}")
    detail = fields.optional_text(body, "detail")
    viewed = _Viewed(SITE_EVENT.name, event_type, fields.detail_class(detail or ""), "api")
    when = _when_reported(body, now, edge.settings.raw_retention_days)
    draft = _draft(body, viewed, _reported_viewer(body, edge), when, edge)
    return _finished([_whoever_did_it(draft)], now, edge)[0]


def _whoever_did_it(draft: _Draft) -> _Draft:
    return draft._replace(outcome="counted", has_visitor=_is_somebody(draft.viewer))


def _entries(body: Body) -> list[object]:
    entries = body.get("events")
    if not isinstance(entries, list):
        raise Invalid("events", "must be a list")
    if len(entries) > MAX_BATCH_EVENTS:
        raise Invalid("events", f"must be at most {MAX_BATCH_EVENTS}")
    return entries


def _reported(entry: object, now: datetime, edge: Edge) -> _Draft:
    """One event of a batch."""
    if not isinstance(entry, dict):
        raise Invalid("event", "must be an object")
    content_type = fields.content_type(fields.text(entry, "entity_type"), "entity_type")
    viewed = _viewed(entry, content_type, fields.text(entry, "entity_id"))
    when = _when_reported(entry, now, edge.settings.raw_retention_days)
    return _draft(entry, viewed, _reported_viewer(entry, edge), when, edge)


def _viewed(body: Body, content_type: ContentType, external_id: str) -> _Viewed:
    view_type = fields.optional_text(body, "view_type")
    view_source = fields.optional_text(body, "view_source")
    return _Viewed(
        content_type.name,
        fields.external_id(content_type, external_id, "entity_id"),
        DEFAULT_VIEW_TYPE if view_type is None else fields.view_type(content_type, view_type, "view_type"),
        DEFAULT_VIEW_SOURCE if view_source is None else fields.view_source(view_source, "view_source"),
    )


def _reported_viewer(entry: Body, edge: Edge) -> Viewer:
    address = _address(entry)
    country = _country(entry)
    if country is None and address is not None:
        country = edge.country_of_address(address)
    user_id = fields.optional_text(entry, "user_id")
    return Viewer(
        address=address,
        user_agent=fields.optional_text(entry, "user_agent") or "",
        user_id=None if user_id is None else fields.identifier(user_id, "user_id"),
        country=country,
    )


def _draft(body: Body, viewed: _Viewed, viewer: Viewer, when: tuple[UUID, datetime], edge: Edge) -> _Draft:
    event_id, occurred_at = when
    agent = user_agents.describe(viewer.user_agent)
    outcome: Outcome = "bot" if agent.is_bot else "own" if _is_own(viewed, viewer, edge) else "counted"
    is_somebody = _is_somebody(viewer)
    has_window = CONTENT_TYPES.get(viewed.entity_type, SITE_EVENT).has_window
    return _Draft(
        id=event_id,
        has_clients_id=body.get("id") is not None,
        occurred_at=occurred_at,
        day=site_day(occurred_at, edge.settings.time_zone),
        viewed=viewed,
        viewer=viewer,
        outcome=outcome,
        device=agent.device,
        referrer_domain=_referrer_domain(body, outcome, viewer.own_domains, edge.settings.site_domains),
        has_visitor=is_somebody and not viewer.keep_no_visitor and outcome != "bot",
        has_slot=is_somebody and has_window and outcome == "counted",
    )


def _is_somebody(viewer: Viewer) -> bool:
    """Whether there is a viewer to tell from others."""
    return viewer.user_id is not None or viewer.address is not None


def _is_own(viewed: _Viewed, viewer: Viewer, edge: Edge) -> bool:
    if viewer.user_id is None or CONTENT_TYPES.get(viewed.entity_type, SITE_EVENT).counts_own_views:
        return False
    return edge.owner_of(viewed.entity_type, viewed.external_id) == viewer.user_id


def _finished(drafts: Iterable[_Draft], now: datetime, edge: Edge) -> list[View]:
    """The views with visitors and slots; the keys of all their days are asked for at once."""
    drafts = list(drafts)
    days = {draft.day for draft in drafts if draft.has_visitor}
    today = site_day(now, edge.settings.time_zone)
    if any(draft.has_slot for draft in drafts):
        days |= {today, today - timedelta(days=1)}
    keys = edge.day_keys(days, now) if days else {}
    return [_finish(draft, keys, today, now, edge.settings.dedup_window) for draft in drafts]


def _finish(draft: _Draft, keys: Mapping[date, bytes], today: date, now: datetime, window: timedelta) -> View:
    viewed, viewer = draft.viewed, draft.viewer
    slot = slot_of_yesterday = slot_ends_at = None
    if draft.has_slot:
        # by the server's clock, never the event's: a slot is about now
        name = viewed.entity_type, viewed.external_id
        slot, slot_of_yesterday = (
            visitors.slot(key, _visitor(key, viewer), name)
            for key in (keys[today], keys[today - timedelta(days=1)])
        )
        slot_ends_at = now + window
    event = ViewEvent(
        id=draft.id,
        occurred_at=draft.occurred_at,
        day=draft.day,
        entity_type=viewed.entity_type,
        external_id=viewed.external_id,
        view_type=viewed.view_type,
        view_source=viewed.view_source,
        outcome=draft.outcome,
        device=draft.device,
        country=viewer.country,
        referrer_domain=draft.referrer_domain,
        visitor=_visitor(keys[draft.day], viewer) if draft.has_visitor else None,
        authenticated=viewer.user_id is not None,
        slot=slot,
        slot_ends_at=slot_ends_at,
    )
    return View(event, draft.has_clients_id, slot_of_yesterday)


def _visitor(key: bytes, viewer: Viewer) -> int:
    if viewer.user_id is not None:
        return visitors.visitor_of_user(key, viewer.user_id)
    return visitors.visitor(key, viewer.address or "", viewer.user_agent)


def _when_viewed(body: Body, now: datetime) -> tuple[UUID, datetime]:
    """Id and time of a browser's view."""
    digits, microseconds = _id_and_time(body, now, (now - EPOCH) // MICROSECOND)
    return UUID(hex=digits), EPOCH + microseconds * MICROSECOND


def _id_and_time(body: Body, now: datetime, now_microseconds: int) -> tuple[str, int]:
    """The digits of a browser's view's id, and its time in microseconds since 1970: a plausible UUIDv7 knows
    it, else the server's clock, which is told in both forms.
    """
    text = fields.optional_text(body, "id")
    if text is None:
        return uuid7(now).hex, now_microseconds
    digits = fields.uuid_digits(text, "id")
    milliseconds = milliseconds_in(digits)
    if milliseconds is not None:
        microseconds = milliseconds * 1000
        if -AHEAD_MICROSECONDS <= now_microseconds - microseconds <= OFFLINE_MICROSECONDS:
            return digits, microseconds
    return digits, now_microseconds


def _when_reported(entry: Body, now: datetime, raw_retention_days: int) -> tuple[UUID, datetime]:
    """Id and time of a batch's event: `occurred_at`, else a UUIDv7's own time, else the clock's."""
    event_id = _id(entry)
    oldest, newest = now - timedelta(days=raw_retention_days - 1), now + AHEAD
    text = fields.optional_text(entry, "occurred_at")
    if text is not None:
        occurred_at = fields.moment(text, "occurred_at")
        if not oldest <= occurred_at <= newest:
            raise Invalid("occurred_at", _window(raw_retention_days))
        occurred_at = occurred_at.astimezone(UTC)
        return event_id or uuid7(occurred_at), occurred_at
    if event_id is None:
        return uuid7(now), now
    if milliseconds_of(event_id) is None:
        raise Invalid("occurred_at", "is required with an id that is not a UUIDv7")
    in_id = _time_of(event_id)
    if in_id is None or not oldest <= in_id <= newest:
        raise Invalid("id", f"its time {_window(raw_retention_days)}")
    return event_id, in_id


def _window(raw_retention_days: int) -> str:
    return f"must lie between {raw_retention_days - 1} days ago and 5 minutes ahead"


def _time_of(event_id: UUID) -> datetime | None:
    """The time in a UUIDv7, which may be made up; None for one beyond the calendar and for other UUIDs."""
    milliseconds = milliseconds_of(event_id)
    if milliseconds is None or milliseconds > LAST_MILLISECOND:
        return None
    return EPOCH + milliseconds * MILLISECOND


def _id(body: Body) -> UUID | None:
    text = fields.optional_text(body, "id")
    return None if text is None else fields.uuid(text, "id")


def _referrer_domain(
    body: Body, outcome: Outcome, own_domains: frozenset[str], site_domains: frozenset[str]
) -> str | None:
    """A text that is no URL (`-`, an app's name) is no referrer, and no error either."""
    text = fields.optional_text(body, "referrer")
    if text is None or outcome == "bot":
        return None
    return referrers.domain(text, own_domains | site_domains if site_domains else own_domains)


def _address(entry: Body) -> str | None:
    text = fields.optional_text(entry, "ip")
    if text is None:
        return None
    address = visitors.normalise_address(text)
    if address is None:
        raise Invalid("ip", "must be an IP address")
    return address


def _country(entry: Body) -> str | None:
    text = fields.optional_text(entry, "country")
    if text is None:
        return None
    if text.upper() not in countries.NO_COUNTRY and countries.code(text) is None:
        raise Invalid("country", "must be a two-letter code of ISO 3166-1")
    return countries.code(text)
