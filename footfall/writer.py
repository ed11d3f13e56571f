"""From the queue into `view_events`, exactly once: the second half of a view's way in.

A batch is one transaction. Its entries leave the stream after the commit, so a crash at any point leaves
either nothing, or rows whose entries come again and are recognised.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from io import StringIO
from typing import Any, Literal, NamedTuple, TypeVar

from redis import Redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from footfall import counts, days, entities, schema_check, stream
from footfall.clock import site_day, utc_now
from footfall.event import Outcome, Unreadable, ViewEvent, decode, encode
from footfall.schema import DeadLetter
from footfall.settings import Settings

log = logging.getLogger(__name__)

READ_ENTRIES = 2_000
BATCH_EVENTS = 5_000  # a transaction's size: larger ones gain little and hold their locks longer
DRAIN_SECONDS = 20.0  # then the next tick goes on, so that a stop never waits for a long queue
ATTEMPTS = 3  # of a transaction that a deadlock or a serialisation failure ended
RETRYABLE = {"40P01", "40001"}
WHOLE_ENTRY = -1  # the place of an entry that could not be told apart into events
DAYS_AHEAD = 2  # clocks ahead, and zones ahead of UTC, reach tomorrow; nothing honest reaches further

Result = TypeVar("Result")
Fate = Literal["row", "duplicate", "dead_letter", "erased"]
TALLY_OF_FATE: dict[Fate, stream.Tally] = {
    "duplicate": "duplicates",
    "dead_letter": "dead_letters",
    "erased": "erased",
}

CREATE_INCOMING = text("""
    CREATE TEMP TABLE IF NOT EXISTS incoming
        (ordinal integer, slot bytea, slot_ends_at timestamptz, LIKE view_events) ON COMMIT DELETE ROWS
""")
COPY_INCOMING = """
    COPY incoming (ordinal, slot, slot_ends_at, occurred_at, visitor, entry, day, entity_id, version, id,
                   authenticated, outcome, device, view_type, view_source, country, referrer_domain)
    FROM STDIN
"""
# In key order: two writers with the same ids then wait for each other instead of deadlocking. The counters
# are raised by what is really inserted, in the same statement.
INSERT_EVENTS = text("""
    WITH inserted AS (
        INSERT INTO view_events (occurred_at, visitor, entry, day, entity_id, version, id, authenticated,
                                 outcome, device, view_type, view_source, country, referrer_domain)
        SELECT occurred_at, visitor, entry, day, entity_id, version, id, authenticated, outcome,
               device, view_type, view_source, country, referrer_domain
        FROM incoming
        ORDER BY day, id, ordinal
        ON CONFLICT (day, id) DO NOTHING
        RETURNING day, entity_id, view_type, outcome, occurred_at
    ),
    counted AS (
        INSERT INTO view_counters AS c (entity_id, view_type, count, sealed, first_viewed_at, last_viewed_at,
                                        created_at, updated_at)
        SELECT entity_id, view_type, count(*), 0, min(occurred_at), max(occurred_at), :now, :now
        FROM inserted
        WHERE outcome = 'counted'
        GROUP BY entity_id, view_type
        ORDER BY entity_id, view_type
        ON CONFLICT (entity_id, view_type) DO UPDATE SET
            count = c.count + excluded.count,
            first_viewed_at = least(c.first_viewed_at, excluded.first_viewed_at),
            last_viewed_at = greatest(c.last_viewed_at, excluded.last_viewed_at),
            updated_at = excluded.updated_at
    )
    SELECT day, count(*) AS events FROM inserted GROUP BY day
""")
# Who viewed what, for the time without Redis: of the views of this batch that were counted, now or by an
# earlier delivery.
INSERT_SLOTS = text("""
    INSERT INTO view_slots AS s (name, entity_id, event_id, ends_at, by_fallback)
    SELECT DISTINCT ON (i.slot) i.slot, i.entity_id, i.id, i.slot_ends_at, false
    FROM incoming AS i JOIN view_events AS v ON v.day = i.day AND v.id = i.id AND v.entry = i.entry
    WHERE i.slot IS NOT NULL AND v.outcome = 'counted'
    ORDER BY i.slot, i.slot_ends_at DESC
    ON CONFLICT (name) DO UPDATE SET event_id = excluded.event_id, ends_at = excluded.ends_at
    WHERE s.ends_at < excluded.ends_at
""")
# Those of the batch whose stored row came with the same entry: just inserted, or by an earlier delivery.
# Of an id that stands twice in one entry, the first is the row.
ROWS_OF_THESE_ENTRIES = text("""
    SELECT DISTINCT ON (i.day, i.id, i.entry) i.ordinal
    FROM incoming AS i JOIN view_events AS v ON v.day = i.day AND v.id = i.id AND v.entry = i.entry
    ORDER BY i.day, i.id, i.entry, i.ordinal
""")
COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event with its place in the queue, or what could not be read at that place."""

    entry: int
    position: int
    event: ViewEvent | Unreadable
    payload: bytes  # the entry's, kept when the event could not be read, for code that can
    outcome: Outcome | None = None  # the entry's; what is readable holds it already


class Good(NamedTuple):
    """An event that can be stored, with what its row needs beside it."""

    ordinal: int  # within the batch
    entry: int
    version: int
    event: ViewEvent


@dataclass(slots=True)
class Batch:
    """Whole entries and the events in them: what one transaction writes."""

    entries: list[stream.Entry] = field(default_factory=list)
    incoming: list[Incoming] = field(default_factory=list)


@dataclass(slots=True)
class Written:
    """What a drain did."""

    entries: int = 0
    fates: Counter[Fate] = field(default_factory=Counter)


def drain(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    consumer: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Write what is queued until nothing is left, 20 s have passed or `should_stop()` says so.

    Commits batch by batch. Anything but bad data is raised, with its entries left pending for the next
    call: a store that is away or a schema that has drifted must be loud, and must lose nothing.
    """
    # before anything is read: who reads an entry again and again without writing it keeps the others off it
    schema_check.require_before_work(engine)
    written = Written()
    counts.raise_behind(engine, redis)
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and not should_stop():
        entries = stream.read(redis, consumer, READ_ENTRIES)
        if not entries:
            break
        for batch in _batches(entries):
            written.fates.update(_write_entries(engine, redis, settings, batch, utc_now()))
            written.entries += len(batch.entries)
    if written.entries:
        log.info("events written", extra={"entries": written.entries, "fates": dict(written.fates)})
    return written


def write_batch(
    connection: Connection, incoming: Sequence[Incoming], now: datetime, settings: Settings
) -> list[Fate]:
    """Store a batch: each event once, bad ones as dead letters. The fates are parallel to `incoming`.

    The caller has opened the days and commits. May be called again with the same batch, before or after
    the commit: the same fates, no second row.
    """
    connection.execute(CREATE_INCOMING)
    connection.execute(entities.HOLD_OFF_DELETIONS)
    wanted = {one.event.day for one in incoming if isinstance(one.event, ViewEvent)}
    open_ = days.hold_open(connection, wanted)
    fates: dict[int, Fate] = {}
    good: list[Good] = []
    for ordinal, one in enumerate(incoming):
        if isinstance(one.event, Unreadable):
            _park(connection, one, "unreadable", str(one.event), now)
            fates[ordinal] = "dead_letter"
        elif one.event.day not in open_:
            _park(connection, one, "too_late", f"{one.event.day} takes no events", now)
            fates[ordinal] = "dead_letter"
        else:
            good.append(Good(ordinal, one.entry, open_[one.event.day] + 1, one.event))
    changed: set[date] = set()
    if good:
        fates |= _insert_or_park(connection, incoming, good, now, settings, changed)
    days.raise_versions(connection, changed)
    return [fates[ordinal] for ordinal in range(len(incoming))]


def _write_entries(
    engine: Engine, redis: Redis, settings: Settings, batch: "Batch", now: datetime
) -> list[Fate]:
    events = [one.event for one in batch.incoming if isinstance(one.event, ViewEvent)]
    open_days(engine, settings, events, now)
    fates = in_transaction(engine, lambda connection: write_batch(connection, batch.incoming, now, settings))
    _show(engine, redis, batch, fates)
    stream.settle(redis, _tallies(batch, fates))
    return fates


def _show(engine: Engine, redis: Redis, batch: Batch, fates: Sequence[Fate]) -> None:
    """Bring the shown counts up to what was committed, and drop those of what was deleted meanwhile."""
    pairs = zip(batch.incoming, fates, strict=True)
    known = [(one.event, fate) for one, fate in pairs if isinstance(one.event, ViewEvent)]
    counts.raise_touched(engine, redis, {event.name for event, _ in known})
    counts.forget_taken(redis, [event for event, fate in known if fate == "erased"])


def _batches(entries: Iterable[stream.Entry]) -> Iterator["Batch"]:
    batch = Batch()
    for entry in entries:
        batch.entries.append(entry)
        batch.incoming += _incoming(entry)
        if len(batch.incoming) >= BATCH_EVENTS:
            yield batch
            batch = Batch()
    if batch.entries:
        yield batch


def events_of(entry: stream.Entry) -> list[ViewEvent]:
    """The readable events of an entry, with their outcomes."""
    return [one.event for one in _incoming(entry) if isinstance(one.event, ViewEvent)]


def incoming(number: int, payload: bytes, outcome: Outcome | None) -> list[Incoming]:
    """What is to be written of an envelope that came under that number, with the outcome beside it."""
    try:
        events = decode(payload)
    except Unreadable as error:
        return [Incoming(number, WHOLE_ENTRY, error, payload, outcome)]
    return [
        Incoming(number, position, _decided(event, outcome), payload, outcome)
        for position, event in enumerate(events)
    ]


def _incoming(entry: stream.Entry) -> list[Incoming]:
    return incoming(entry.number, entry.payload, entry.outcome)


def _decided(event: ViewEvent | Unreadable, outcome: Outcome | None) -> ViewEvent | Unreadable:
    """The event with the outcome of the atomic step, which came after its envelope was made."""
    if outcome is None or isinstance(event, Unreadable) or event.outcome == outcome:
        return event
    return replace(event, outcome=outcome)


def open_days(engine: Engine, settings: Settings, events: Iterable[ViewEvent], now: datetime) -> None:
    """Make the partitions that `events` need and that may still be made; commits."""
    today = site_day(now, settings.time_zone)
    first = today - timedelta(days=settings.daily_retention_days)
    last = today + timedelta(days=DAYS_AHEAD)
    wanted = {event.day for event in events if first <= event.day <= last}
    with engine.begin() as connection:
        missing = days.missing_days(connection, wanted)
        if missing:
            days.open_days(connection, missing)


def in_transaction(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Do `work` in a transaction, again when a deadlock or a serialisation failure ended it.

    Raises `SchemaError` and does nothing when the schema is not the one that this code writes to.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                schema_check.require_lately(connection)
                return work(connection)
        except DBAPIError as error:
            if _sqlstate(error) not in RETRYABLE or attempt == ATTEMPTS:
                raise
            log.warning("transaction tried again", extra={"sqlstate": _sqlstate(error)})
    raise AssertionError("unreachable")


def _insert_or_park(
    connection: Connection,
    incoming: Sequence[Incoming],
    good: Sequence[Good],
    now: datetime,
    settings: Settings,
    changed: set[date],
) -> dict[int, Fate]:
    """Insert; when the data of one is refused, halve until that one is alone, and park it."""
    try:
        with connection.begin_nested():
            fates, days_changed = _insert(connection, good, now, settings)
        changed |= days_changed
        return fates
    except DBAPIError as error:
        if not _is_data_error(error):
            raise
        if len(good) == 1:
            ordinal = good[0].ordinal
            _park(connection, incoming[ordinal], "refused", _reason(error), now)
            return {ordinal: "dead_letter"}
    middle = len(good) // 2
    return {
        **_insert_or_park(connection, incoming, good[:middle], now, settings, changed),
        **_insert_or_park(connection, incoming, good[middle:], now, settings, changed),
    }


def _insert(
    connection: Connection,
    good: Sequence[Good],
    now: datetime,
    settings: Settings,
) -> tuple[dict[int, Fate], set[date]]:
    keys = entities.ensure(
        connection,
        {one.event.name for one in good},
        now,
        settings,
    )
    fates: dict[int, Fate] = {one.ordinal: "erased" for one in good if one.event.name not in keys}
    living = [one for one in good if one.ordinal not in fates]
    if not living:
        return fates, set()
    connection.execute(text("TRUNCATE incoming"))
    _copy(connection, living, keys)
    inserted = {row.day: row.events for row in connection.execute(INSERT_EVENTS, {"now": now})}
    if any(one.event.slot is not None for one in living):
        connection.execute(INSERT_SLOTS)
    if sum(inserted.values()) == len(living):
        return fates | dict.fromkeys((one.ordinal for one in living), "row"), set(inserted)
    rows = set(connection.scalars(ROWS_OF_THESE_ENTRIES))
    for one in living:
        fates[one.ordinal] = "row" if one.ordinal in rows else "duplicate"
    return fates, set(inserted)


def _copy(
    connection: Connection,
    good: Sequence[Good],
    keys: dict[entities.Name, int],
) -> None:
    lines = StringIO()
    for ordinal, entry, version, event in good:
        values = (
            ordinal,
            None if event.slot is None else f"\\x{event.slot.hex()}",
            event.slot_ends_at,
            event.occurred_at,
            event.visitor,
            entry,
            event.day,
            keys[event.name],
            version,
            event.id,
            event.authenticated,
            event.outcome,
            event.device,
            event.view_type,
            event.view_source,
            event.country,
            event.referrer_domain,
        )
        lines.write("\t".join(map(_copy_text, values)))
        lines.write("\n")
    lines.seek(0)
    raw: Any = connection.connection.driver_connection
    try:
        with raw.cursor() as cursor:
            cursor.copy_expert(COPY_INCOMING, lines)
    except raw.Error as error:
        raise DBAPIError(COPY_INCOMING, None, error) from error


def _copy_text(value: object) -> str:
    if value is None:
        return "\\N"
    return value.translate(COPY_ESCAPES) if isinstance(value, str) else str(value)


def _park(connection: Connection, one: Incoming, reason: str, detail: str, now: datetime) -> None:
    known = isinstance(one.event, ViewEvent)
    connection.execute(
        insert(DeadLetter)
        .values(
            entry=one.entry,
            position=one.position,
            day=one.event.day if isinstance(one.event, ViewEvent) else None,
            reason=reason,
            detail=detail,
            payload=encode([one.event]) if isinstance(one.event, ViewEvent) else one.payload,
            outcome=None if known else one.outcome,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["entry", "position"])
    )
    log.warning("dead letter", extra={"reason": reason, "readable": known})


def _tallies(batch: Batch, fates: Sequence[Fate]) -> dict[str, Counter[str]]:
    """{entry id: {"<day>:<tally>": amount}}; what could not be read has no day and is not tallied."""
    by_number: dict[int, Counter[str]] = {entry.number: Counter() for entry in batch.entries}
    for one, fate in zip(batch.incoming, fates, strict=True):
        if isinstance(one.event, ViewEvent):
            tallies = by_number[one.entry]
            tallies[f"{one.event.day}:settled"] += 1
            if fate in TALLY_OF_FATE:
                tallies[f"{one.event.day}:{TALLY_OF_FATE[fate]}"] += 1
    return {entry.id: by_number[entry.number] for entry in batch.entries}


def _is_data_error(error: DBAPIError) -> bool:
    """Whether the data is at fault, not the schema or the server.

    A missing partition is 23514 too, but names no constraint: that is the schema.
    """
    state = _sqlstate(error)
    if state == "23514":
        diagnosis = getattr(error.orig, "diag", None)
        return bool(getattr(diagnosis, "constraint_name", None))
    return state.startswith("22") or state == "23502"


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "pgcode", None) or ""


def _reason(error: DBAPIError) -> str:
    # the first line only: the others quote the data, which stands in the payload already
    return f"{_sqlstate(error)} {str(error.orig).splitlines()[0]}"
