"""The one envelope that crosses the queue: made at the edge by `intake`, read by `writer`."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

import orjson

from footfall.errors import FootfallError

ENVELOPE_VERSION = 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_PLACE = 2  # of the day in a row of the envelope
ID_DIGITS = 32
OUTCOME_FIELD = 7  # of a row in the envelope: the one that may be decided after it was made
PLAIN_FIELDS = 13  # of a row in the envelope, before the slot's
COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
SPECIAL = re.compile(r"[\x00\t\n\r\\]")
COPY_NULL = "\\N"
NO_SLOT = f"{COPY_NULL}\t{COPY_NULL}"
# The columns of `Row.copied` and `Row.slot`
COPIED_COLUMNS = (
    "id, occurred_at, day, view_type, view_source, outcome, device, country, referrer_domain, visitor,"
    " authenticated"
)
SLOT_COLUMNS = "slot, slot_ends_at"

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


class Row(NamedTuple):
    """An event as it was queued, checked and on its way into the table: what the writer decides by, and the
    rest as COPY takes it. Making the event itself for each would take longer than storing it.
    """

    name: tuple[str, str]
    day: date
    copied: str  # COPIED_COLUMNS, as text for COPY
    slot: str  # SLOT_COLUMNS, the same; empty when there is none
    fields: list[Any]  # of the envelope

    @property
    def event(self) -> ViewEvent:
        """The event itself."""
        id_hex, microseconds, _, *rest = self.fields
        if self.slot:
            *rest, slot_hex, ends_microseconds = rest
            rest += [bytes.fromhex(slot_hex), EPOCH + ends_microseconds * MICROSECOND]
        return ViewEvent(UUID(hex=id_hex), EPOCH + microseconds * MICROSECOND, self.day, *rest)


def encode(events: Sequence[ViewEvent]) -> bytes:
    """A group of events as the payload of one stream entry."""
    return envelope([fields_of(event) for event in events])


def envelope(rows: Sequence[list[Any]]) -> bytes:
    """The payload of one stream entry with these events' fields."""
    return orjson.dumps([ENVELOPE_VERSION, rows])


def fields_of(event: ViewEvent) -> list[Any]:
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
    return [row.event if isinstance(row, Row) else row for row in Reader().rows(payload)]


class Reader:
    """Reads envelopes, many of them quickly: what was checked once is remembered as long as the reader is."""

    def __init__(self) -> None:
        self._texts = _Texts()
        self._optional_texts = _Texts({None: COPY_NULL})
        self._seconds = _Seconds()
        self._days = _Days()

    def rows(self, payload: bytes, outcome: Outcome | None = None) -> list[Row | Unreadable]:
        """What `decode` gives, as rows; with `outcome` in place of theirs. Raises the same."""
        rows = _open(payload)
        if outcome is not None:
            for fields in rows:
                if isinstance(fields, list) and len(fields) > OUTCOME_FIELD:
                    fields[OUTCOME_FIELD] = outcome
        return [self.row(fields) for fields in rows]

    def row(self, fields: Any) -> Row | Unreadable:
        """The row of one event's fields, or why it is none."""
        try:
            return self._row(fields)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            return Unreadable(f"not an event: {error}")

    def _row(self, fields: list[Any]) -> Row:
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
        if len(id_hex) != ID_DIGITS or 2 * len(bytes.fromhex(id_hex)) != ID_DIGITS:
            raise ValueError("an id that is none")
        if visitor is not None and type(visitor) is not int:
            raise TypeError("a visitor that is no number")
        if authenticated is not True and authenticated is not False:
            raise TypeError("neither authenticated nor not")
        texts, optional = self._texts, self._optional_texts
        texts[entity_type], texts[external_id]
        day, day_text = self._days[day_text]
        slot = "" if plain is fields else self._slot(*fields[PLAIN_FIELDS:])
        return Row(
            (entity_type, external_id),
            day,
            f"{id_hex}\t{self._moment(microseconds)}\t{day_text}\t{texts[view_type]}\t{texts[view_source]}"
            f"\t{texts[outcome]}\t{texts[device]}\t{optional[country]}\t{optional[referrer_domain]}"
            f"\t{COPY_NULL if visitor is None else visitor}\t{authenticated}",
            slot,
            fields,
        )

    def _moment(self, microseconds: int) -> str:
        seconds, fraction = divmod(microseconds, 1_000_000)
        return f"{self._seconds[seconds]}.{fraction:06d}+00"

    def _slot(self, slot_hex: str, ends_microseconds: int) -> str:
        return f"\\\\x{bytes.fromhex(slot_hex).hex()}\t{self._moment(ends_microseconds)}"


class _Texts(dict[str | None, str]):
    """{text: the same for COPY}. Refuses the two kinds that Python and JSON carry and PostgreSQL does not."""

    def __missing__(self, text: str) -> str:
        copied = text
        if SPECIAL.search(text):
            if "\x00" in text:
                raise ValueError("a NUL character")
            copied = text.translate(COPY_ESCAPES)
        if not text.isascii():
            text.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
        self[text] = copied
        return copied


class _Seconds(dict[int, str]):
    """{seconds since 1970: the moment in UTC}."""

    def __missing__(self, seconds: int) -> str:
        moment = EPOCH + timedelta(seconds=seconds)
        self[seconds] = text = f"{moment:%Y-%m-%d %H:%M:%S}"
        return text


class _Days(dict[str, tuple[date, str]]):
    """{a date as text: the date, its ISO form}."""

    def __missing__(self, text: str) -> tuple[date, str]:
        day = date.fromisoformat(text)
        self[text] = found = (day, day.isoformat())
        return found


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
        return date.fromisoformat(row[DAY_PLACE])
    except (ValueError, TypeError, LookupError):
        return None


def _loads(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        # it refuses a lone surrogate, which costs one event only, and the rest of the envelope with it
        return json.loads(payload)
