"""The one envelope that crosses the queue: made at the edge by `intake`, read by `writer`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

import orjson

from footfall.errors import FootfallError

ENVELOPE_VERSION = 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_PLACE = 2  # of the day in a row of the envelope
PLAIN_FIELDS = 10  # of a row in the envelope, after id, time and day and before the slot's

Outcome = Literal["counted", "own", "repeat", "bot"]
OUTCOMES: frozenset[str] = frozenset(get_args(Outcome))
Device = Literal["desktop", "mobile", "tablet", "player", "other"]
DEVICES: frozenset[str] = frozenset(get_args(Device))


class Unreadable(FootfallError):
    """What this code cannot read; it goes to the dead letters, with this text as the reason."""

    code = "unreadable"


@dataclass(frozen=True, slots=True)
class ViewEvent:
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


@dataclass(frozen=True, slots=True)
class View:
    """An event on its way in, with what only the way in needs to know."""

    event: ViewEvent
    has_clients_id: bool = False  # then the same id again is a retry
    slot_of_yesterday: bytes | None = None  # the same viewer and entity under yesterday's salt


def encode(events: Sequence[ViewEvent]) -> bytes:
    """A group of events as the payload of one stream entry."""
    rows = [
        [
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
        for event in events
    ]
    return orjson.dumps([ENVELOPE_VERSION, rows])


def _slot_fields(event: ViewEvent) -> list[Any]:
    # left out where there is none: most events are of types without a window
    if event.slot is None or event.slot_ends_at is None:
        return []
    return [event.slot.hex(), (event.slot_ends_at - EPOCH) // MICROSECOND]


def decode(payload: bytes) -> list[ViewEvent | Unreadable]:
    """The events of a stream entry, one unreadable event costing itself only.

    Raises `Unreadable` when the payload as a whole cannot be told apart into events.
    """
    try:
        version, rows = json.loads(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable(f"not an envelope: {error}") from error
    if version != ENVELOPE_VERSION:
        raise Unreadable(f"envelope version {version!r}; this code reads {ENVELOPE_VERSION}")
    if not isinstance(rows, list) or not rows:
        raise Unreadable("an envelope without events")
    return list(_decode_rows(rows))


def days_told(payload: bytes) -> list[date | None]:
    """The day of each event of a stream entry, also of one of another version, as far as it can be told.

    Every version keeps two things of the format: `[version, rows, ...]`, and the day in its place in a row.
    """
    try:
        _, rows, *_ = json.loads(payload)
        return [_day_told(row) for row in rows]
    except (ValueError, TypeError, RecursionError):
        return []


def _day_told(row: Any) -> date | None:
    try:
        return date.fromisoformat(row[DAY_PLACE])
    except (ValueError, TypeError, LookupError):
        return None


def _decode_rows(rows: Iterable[Any]) -> Iterable[ViewEvent | Unreadable]:
    for row in rows:
        try:
            yield _decode_row(row)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            yield Unreadable(f"not an event: {error}")


def _decode_row(row: list[Any]) -> ViewEvent:
    id_hex, microseconds, day, *rest = row
    moment = EPOCH + microseconds * MICROSECOND
    event = ViewEvent(UUID(hex=id_hex), moment, date.fromisoformat(day), *rest[:PLAIN_FIELDS])
    _check_text(event)
    if len(rest) == PLAIN_FIELDS:
        return event
    slot_hex, ends_microseconds = rest[PLAIN_FIELDS:]
    ends_at = EPOCH + ends_microseconds * MICROSECOND
    return replace(event, slot=bytes.fromhex(slot_hex), slot_ends_at=ends_at)


def _check_text(event: ViewEvent) -> None:
    # the two kinds of text that Python and JSON carry and PostgreSQL does not
    known = (event.entity_type, event.external_id, event.view_type, event.view_source)
    joined = "".join(known + (event.outcome, event.device))
    joined += (event.country or "") + (event.referrer_domain or "")
    if "\x00" in joined:
        raise ValueError("a NUL character")
    joined.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
