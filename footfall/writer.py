"""From the queue into `view_events`, exactly once: the second half of a view's way in.

A batch is one transaction. Its entries leave the stream after the commit, so a crash at any point leaves
either nothing, or rows whose entries come again and are recognised.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from io import StringIO
from typing import Any, Literal

from redis import Redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from footfall import days, entities, stream
from footfall.clock import day_start, site_day, utc_now
from footfall.event import Unreadable, ViewEvent, decode, encode
from footfall.schema import DeadLetter
from footfall.settings import Settings

log = logging.getLogger(__name__)

READ_ENTRIES = 2_000
BATCH_EVENTS = 5_000  # a transaction's size: larger ones gain little and hold their locks longer
DRAIN_SECONDS = 20.0  # then the next tick goes on, so that a stop never waits for a long queue
ATTEMPTS = 3  # of a transaction that a deadlock or a serialisation failure ended
RETRYABLE = {"40P01", "40001"}
DAYS_AHEAD = 2  # clocks ahead, and zones ahead of UTC, reach tomorrow; nothing honest reaches further

Fate = Literal["row", "duplicate", "dead_letter"]
TALLY_OF_FATE: dict[Fate, stream.Tally] = {
    "duplicate": "duplicates",
    "dead_letter": "dead_letters",
}

CREATE_INCOMING = text("""
    CREATE TEMP TABLE IF NOT EXISTS incoming (ordinal integer, LIKE view_events) ON COMMIT DELETE ROWS
""")
COPY_INCOMING = """
    COPY incoming (ordinal, occurred_at, visitor, entry, day, entity_id, id, authenticated, outcome,
                   device, view_type, view_source, country, referrer_domain) FROM STDIN
"""
# In key order: two writers with the same ids then wait for each other instead of deadlocking.
INSERT_EVENTS = text("""
    WITH inserted AS (
        INSERT INTO view_events (occurred_at, visitor, entry, day, entity_id, id, authenticated, outcome,
                                 device, view_type, view_source, country, referrer_domain)
        SELECT occurred_at, visitor, entry, day, entity_id, id, authenticated, outcome,
               device, view_type, view_source, country, referrer_domain
        FROM incoming
        ORDER BY day, id, ordinal
        ON CONFLICT (day, id) DO NOTHING
        RETURNING day
    )
    SELECT day, count(*) AS events FROM inserted GROUP BY day
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
    payload: bytes  # the entry's, kept as evidence when the event could not be read


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
    written = Written()
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
    wanted = {one.event.day for one in incoming if isinstance(one.event, ViewEvent)}
    open_ = days.hold_open(connection, wanted)
    fates: dict[int, Fate] = {}
    good: list[tuple[int, int, ViewEvent]] = []
    for ordinal, one in enumerate(incoming):
        if isinstance(one.event, Unreadable):
            _park(connection, one, "unreadable", str(one.event), now)
            fates[ordinal] = "dead_letter"
        elif one.event.day not in open_:
            _park(connection, one, "too_late", f"{one.event.day} takes no events", now)
            fates[ordinal] = "dead_letter"
        else:
            good.append((ordinal, one.entry, one.event))
    changed: set[date] = set()
    if good:
        fates |= _insert_or_park(connection, incoming, good, now, settings, changed)
    days.raise_versions(connection, changed)
    return [fates[ordinal] for ordinal in range(len(incoming))]


def _write_entries(
    engine: Engine, redis: Redis, settings: Settings, batch: "Batch", now: datetime
) -> list[Fate]:
    _open_days(engine, settings, batch.incoming, now)
    fates = _in_transaction(engine, lambda connection: write_batch(connection, batch.incoming, now, settings))
    stream.settle(redis, _tallies(batch, fates))
    return fates


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


def _incoming(entry: stream.Entry) -> list[Incoming]:
    try:
        events = decode(entry.payload)
    except Unreadable as error:
        events = [error]
    return [Incoming(entry.number, position, event, entry.payload) for position, event in enumerate(events)]


def _open_days(engine: Engine, settings: Settings, incoming: Sequence[Incoming], now: datetime) -> None:
    today = site_day(now, settings.time_zone)
    first = today - timedelta(days=settings.daily_retention_days)
    last = today + timedelta(days=DAYS_AHEAD)
    wanted = {
        one.event.day
        for one in incoming
        if isinstance(one.event, ViewEvent) and first <= one.event.day <= last
    }
    with engine.begin() as connection:
        missing = days.missing_days(connection, wanted)
        if missing:
            days.open_days(connection, missing)


def _in_transaction(engine: Engine, work: Callable[[Connection], list[Fate]]) -> list[Fate]:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if _sqlstate(error) not in RETRYABLE or attempt == ATTEMPTS:
                raise
            log.warning("transaction tried again", extra={"sqlstate": _sqlstate(error)})
    raise AssertionError("unreachable")


def _insert_or_park(
    connection: Connection,
    incoming: Sequence[Incoming],
    good: Sequence[tuple[int, int, ViewEvent]],
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
            ordinal = good[0][0]
            _park(connection, incoming[ordinal], "refused", _reason(error), now)
            return {ordinal: "dead_letter"}
    middle = len(good) // 2
    return {
        **_insert_or_park(connection, incoming, good[:middle], now, settings, changed),
        **_insert_or_park(connection, incoming, good[middle:], now, settings, changed),
    }


def _insert(
    connection: Connection,
    good: Sequence[tuple[int, int, ViewEvent]],
    now: datetime,
    settings: Settings,
) -> tuple[dict[int, Fate], set[date]]:
    keys = entities.ensure(
        connection,
        {(event.entity_type, event.external_id) for _, _, event in good},
        now,
        day_start(site_day(now, settings.time_zone), settings.time_zone),
        settings.new_pages_per_day,
    )
    connection.execute(text("TRUNCATE incoming"))
    _copy(connection, good, keys)
    inserted = {row.day: row.events for row in connection.execute(INSERT_EVENTS)}
    if sum(inserted.values()) == len(good):
        return dict.fromkeys((ordinal for ordinal, _, _ in good), "row"), set(inserted)
    rows = set(connection.scalars(ROWS_OF_THESE_ENTRIES))
    fates: dict[int, Fate] = {ordinal: "row" if ordinal in rows else "duplicate" for ordinal, _, _ in good}
    return fates, set(inserted)


def _copy(
    connection: Connection,
    good: Sequence[tuple[int, int, ViewEvent]],
    keys: dict[entities.Name, int],
) -> None:
    lines = StringIO()
    for ordinal, entry, event in good:
        values = (
            ordinal,
            event.occurred_at,
            event.visitor,
            entry,
            event.day,
            keys[event.entity_type, event.external_id],
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
