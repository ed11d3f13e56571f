"""The one envelope that crosses the queue: made at the edge by `intake`, read by `writer`."""

import json
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple, cast, get_args
from uuid import UUID

import orjson

from footfall import copying
from footfall.errors import FootfallError

ENVELOPE_VERSION = 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Places in a row of the envelope
DAY_FIELD = 2
ID_DIGITS = 32
ID_BYTES = 16
OUTCOME_FIELD = 7  # the one that may be decided after the row was made
COUNTRY_FIELD = 9
PLAIN_FIELDS = 13  # of a row in the envelope, before the slot's
FIRST_MOMENT = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_MOMENT = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
HEAD_COLUMNS = "occurred_at, id, authenticated, visitor"  # of `Row.head`
UNKNOWN_COUNTRY = "ZZ"  # CLDR's code for a region that is not known; browsers can name it
HEAD = struct.Struct("!iqi16si?iq")  # each after its size
HEAD_OF_NOBODY = struct.Struct("!iqi16si?i")  # without a visitor
ID_IN_HEAD = slice(16, 32)

Fields = list[Any]  # of an event, as they stand in an envelope
Outcome = Literal["counted", "own", "repeat", "bot"]
OUTCOMES: frozenset[str] = frozenset(get_args(Outcome))
Device = Literal["desktop", "mobile", "tablet", "player", "other"]
DEVICES: frozenset[str] = frozenset(get_args(Device))


class Unreadable(FootfallError):
    """What this code cannot read; it goes to the dead letters, with this text as the reason."""

    code = "unreadable"


class ViewEvent(NamedTuple):
    """One request to count a view, and what was decided about it at the edge.

    Nothing in it names a person: `visitor` is a keyed hash (signed 64 bits) that cannot be recomputed once
    the day's salt is gone, and None where none may be kept (crawlers, Sec-GPC, DNT).
    """

    id: UUID
    occurred_at: datetime  # aware, UTC
    day: date  # the site's calendar day; with `id` the key of the event
    entity_type: str
    external_id: str  # the host site's name for the entity; a page's is its path
    view_type: str
    view_source: str
    outcome: Outcome
    device: Device
    country: str | None  # ISO 3166-1 alpha-2
    referrer_domain: str | None
    visitor: int | None
    authenticated: bool
    slot: bytes | None = None  # keyed hash of viewer and entity, where a window keeps repeats from counting
    slot_ends_at: datetime | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What was viewed: entity type and external id."""
        return self.entity_type, self.external_id


class View(NamedTuple):
    """An event on its way in, with what only the way in needs to know."""

    event: ViewEvent
    has_clients_id: bool = False  # then the same id again is a retry
    slot_of_yesterday: bytes | None = None  # the same viewer and entity under yesterday's salt


class Kind(NamedTuple):
    """What many events have in common: they are stored under its number. See `event_kinds`."""

    entity_type: str
    outcome: str
    device: str
    view_type: str
    view_source: str
    country: str  # `UNKNOWN_COUNTRY` for one that is not known


class Row(NamedTuple):
    """An event as it was queued, checked and on its way into the table: what the writer decides by, and the
    rest as COPY takes it. Making the event itself for each would take longer than storing it.
    """

    entry: int  # the number under which it came
    position: int  # in the entry
    name: tuple[str, str]
    day: date
    kind: Kind
    referrer_domain: str | None
    microseconds: int  # since 1970
    head: bytes  # HEAD_COLUMNS, as COPY takes them
    slot: tuple[str, int] | None  # in hexadecimal digits, and its end in microseconds since 1970

    @property
    def id_bytes(self) -> bytes:
        """The event's id."""
        return self.head[ID_IN_HEAD]

    @property
    def event(self) -> ViewEvent:
        """The event itself."""
        head = HEAD if len(self.head) == HEAD.size else HEAD_OF_NOBODY
        _, _, _, id_bytes, _, authenticated, _, *visitor = head.unpack(self.head)
        kind = self.kind
        slot_hex, ends_microseconds = self.slot or (None, 0)
        return ViewEvent(
            id=UUID(bytes=id_bytes),
            occurred_at=EPOCH + self.microseconds * MICROSECOND,
            day=self.day,
            entity_type=kind.entity_type,
            external_id=self.name[1],
            view_type=kind.view_type,
            view_source=kind.view_source,
            outcome=cast(Outcome, kind.outcome),
            device=cast(Device, kind.device),
            country=None if kind.country == UNKNOWN_COUNTRY else kind.country,
            referrer_domain=self.referrer_domain,
            visitor=visitor[0] if visitor else None,
            authenticated=authenticated,
            slot=None if slot_hex is None else bytes.fromhex(slot_hex),
            slot_ends_at=None if slot_hex is None else EPOCH + ends_microseconds * MICROSECOND,
        )


def encode(events: Sequence[ViewEvent]) -> bytes:
    """A group of events as the payload of one stream entry."""
    return envelope([fields_of(event) for event in events])


def envelope(rows: Sequence[Fields]) -> bytes:
    """The payload of one stream entry with these events' fields."""
    return orjson.dumps([ENVELOPE_VERSION, rows])


def plain_event(fields: Fields) -> ViewEvent:
    """The event, without a slot, that stands so in an envelope."""
    id_hex, microseconds, day, *others = fields
    moment = EPOCH + microseconds * MICROSECOND
    return ViewEvent(UUID(hex=id_hex), moment, date.fromisoformat(day), *others)


def fields_of(event: ViewEvent) -> Fields:
    """An event as it stands in an envelope."""
    return [
        event.id.hex,
        (event.occurred_at - EPOCH) // MICROSECOND,
        event.day.isoformat(),
        event.entity_type,
        event.external_id,
        event.view_type,
        event.view_source,
        event.outcome,
        event.device,
        event.country,
        event.referrer_domain,
        event.visitor,
        event.authenticated,
        *_slot_fields(event),
    ]


def _slot_fields(event: ViewEvent) -> list[Any]:
    # left out where there is none: most events are of types without a window
    if event.slot is None or event.slot_ends_at is None:
        return []
    return [event.slot.hex(), (event.slot_ends_at - EPOCH) // MICROSECOND]


def decode(payload: bytes) -> list[ViewEvent | Unreadable]:
    """The events of a stream entry, one unreadable event costing itself only.

    Raises `Unreadable` when the payload as a whole cannot be told apart into events.
    """
    rows, unreadable = Reader().rows(0, payload)
    found: dict[int, ViewEvent | Unreadable] = {row.position: row.event for row in rows}
    found |= unreadable
    return [found[position] for position in sorted(found)]


class Reader:
    """Reads envelopes, many of them quickly: what was checked once is remembered as long as the reader is."""

    def __init__(self) -> None:
        self._names = _Names()
        self._days = _Days()
        self._kinds = _Kinds()
        self._domains = _Domains({None: None})

    def rows(
        self, entry: int, payload: bytes, outcome: Outcome | None = None
    ) -> tuple[list[Row], dict[int, Unreadable]]:
        """The rows of a stream entry, with `outcome` in place of theirs, and why what stands at the other
        positions is none. Raises what `decode` does.
        """
        found = _open(payload)
        if outcome is not None:
            for fields in found:
                if isinstance(fields, list) and len(fields) > OUTCOME_FIELD:
                    fields[OUTCOME_FIELD] = outcome
        return self.rows_of(entry, enumerate(found))

    def rows_of(
        self, entry: int, found: Iterable[tuple[int, Any]]
    ) -> tuple[list[Row], dict[int, Unreadable]]:
        """The same of events' positions and fields."""
        rows: list[Row] = []
        unreadable: dict[int, Unreadable] = {}
        for position, fields in found:
            try:
                rows.append(self._row(entry, position, fields))
            except (ValueError, TypeError, AttributeError, struct.error) as error:
                unreadable[position] = Unreadable(f"not an event: {error}")
        return rows, unreadable

    def _row(self, entry: int, position: int, fields: Fields) -> Row:
        if type(fields) is not list:
            raise TypeError("no list")
        plain = fields if len(fields) == PLAIN_FIELDS else fields[:PLAIN_FIELDS]
        (
            id_hex,
            microseconds,
            day_text,
            entity_type,
            external_id,
            view_type,
            view_source,
            outcome,
            device,
            country,
            referrer_domain,
            visitor,
            authenticated,
        ) = plain
        id_bytes = bytes.fromhex(id_hex)
        if len(id_hex) != ID_DIGITS or len(id_bytes) != ID_BYTES:
            raise ValueError("an id that is none")
        if authenticated is not True and authenticated is not False:
            raise TypeError("neither authenticated nor not")
        moment = _moment(microseconds) - copying.EPOCH_MICROSECONDS
        if visitor is None:
            head = HEAD_OF_NOBODY.pack(8, moment, ID_BYTES, id_bytes, 1, authenticated, -1)
        elif type(visitor) is int:
            head = HEAD.pack(8, moment, ID_BYTES, id_bytes, 1, authenticated, 8, visitor)
        else:
            raise TypeError("a visitor that is no number")
        return Row(
            entry,
            position,
            self._names[entity_type, external_id],
            self._days[day_text],
            self._kinds[entity_type, outcome, device, view_type, view_source, country],
            self._domains[referrer_domain],
            microseconds,
            head,
            None if plain is fields else _slot(*fields[PLAIN_FIELDS:]),
        )


def _moment(microseconds: int) -> int:
    if type(microseconds) is not int or not FIRST_MOMENT <= microseconds <= LAST_MOMENT:
        raise ValueError("a moment that is none")
    return microseconds


def _slot(slot_hex: str, ends_microseconds: int) -> tuple[str, int]:
    return bytes.fromhex(slot_hex).hex(), _moment(ends_microseconds)


class _Names(dict[tuple[str, str], tuple[str, str]]):
    """{what was viewed: the same object each time}."""

    def __missing__(self, name: tuple[str, str]) -> tuple[str, str]:
        for text in name:
            copying.text(text)
        self[name] = name
        return name


class _Kinds(dict[tuple[str, str, str, str, str, str | None], Kind]):
    """{what makes a kind, its country None where it is not known: the same object each time}."""

    def __missing__(self, given: tuple[str, str, str, str, str, str | None]) -> Kind:
        entity_type, outcome, device, view_type, view_source, country = given
        country = UNKNOWN_COUNTRY if country is None else country
        kind = Kind(entity_type, outcome, device, view_type, view_source, country)
        for text in kind:
            copying.text(text)
        self[given] = kind
        return kind


class _Domains(dict[str | None, str | None]):
    """{a referring domain: the same object each time}."""

    def __missing__(self, domain: str) -> str:
        copying.text(domain)
        self[domain] = domain
        return domain


class _Days(dict[str, date]):
    """{a date as text: the date}."""

    def __missing__(self, text: str) -> date:
        self[text] = day = date.fromisoformat(text)
        return day


def _open(payload: bytes) -> list[Any]:
    """The fields of every event in an envelope, unchecked."""
    try:
        version, rows = _loads(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable(f"not an envelope: {error}") from error
    if version != ENVELOPE_VERSION:
        raise Unreadable(f"envelope version {version!r}; this code reads {ENVELOPE_VERSION}")
    if not isinstance(rows, list) or not rows:
        raise Unreadable("an envelope without events")
    return rows


def days_told(payload: bytes) -> list[date | None]:
    """The day of each event of a stream entry, also of one of another version, as far as it can be told.

    Every version keeps two things of the format: `[version, rows, ...]`, and the day in its place in a row.
    """
    try:
        _, rows, *_ = _loads(payload)
        return [_day_told(row) for row in rows]
    except (ValueError, TypeError, RecursionError):
        return []


def _day_told(row: Any) -> date | None:
    try:
        return date.fromisoformat(row[DAY_FIELD])
    except (ValueError, TypeError, LookupError):
        return None


def _loads(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        # it refuses a lone surrogate, which costs one event only, and the rest of the envelope with it
        return json.loads(payload)
