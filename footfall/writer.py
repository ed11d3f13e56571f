"""From the queue into `view_events`, exactly once: the second half of a view's way in.

A batch is one transaction. Its entries leave the stream after the commit, so a crash at any point leaves
either nothing, or rows whose entries come again and are recognised.
"""

import logging
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Any, Literal, NamedTuple, TypeVar

from redis import Redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from footfall import copying, counts, days, entities, event_kinds, known_referrers, schema_check, stream
from footfall.clock import site_day, utc_now
from footfall.event import (
    EPOCH,
    HEAD_COLUMNS,
    Kind,
    Outcome,
    Reader,
    Row,
    Unreadable,
    ViewEvent,
    encode,
    fields_of,
)
from footfall.schema import DeadLetter
from footfall.settings import Settings

log = logging.getLogger(__name__)

READ_ENTRIES = 2_000
BATCH_EVENTS = 20_000  # a transaction's size: larger ones gain little and hold their locks longer
DRAIN_SECONDS = 20.0  # then the next tick goes on, so that a stop never waits for a long queue
ATTEMPTS = 3  # of a transaction that a deadlock or a serialisation failure ended
RETRYABLE = {"40P01", "40001"}
WHOLE_ENTRY = -1  # the place of an entry that could not be told apart into events

Result = TypeVar("Result")
Keys = Mapping[entities.Name, int]
Kinds = Mapping[Kind, int]
Versions = Mapping[date, int]
Fate = Literal["row", "duplicate", "dead_letter", "erased"]
TALLY_OF_FATE: dict[Fate, stream.Tally] = {
    "duplicate": "duplicates",
    "dead_letter": "dead_letters",
    "erased": "erased",
}

UNIQUE_VIOLATION = "23505"
WARY = "footfall wary of stored events"  # in a connection's notes: for how many batches more
WARY_BATCHES = 20  # after one that held what was stored already, since such seldom come alone

# In any order: writers of a day take turns (`days.hold_open`), so none waits for another's event
COLUMNS = f"{HEAD_COLUMNS}, entry, day, version, entity_id, kind_id, referrer_domain"
COPY_EVENTS = f"COPY view_events ({COLUMNS}) FROM STDIN (FORMAT binary)"
COPY_BYTES = 1 << 20  # handed to PostgreSQL at once
ROW_START = struct.pack("!h", COLUMNS.count(",") + 1)
ENTRY = struct.Struct("!iq")  # each after its size
DAY_VERSION = struct.Struct("!iiii")
KEY = struct.Struct("!ii")
# Nothing is inserted; but without the unique key that keeps events from being stored twice, it fails
REQUIRE_KEY = text("""
    INSERT INTO view_events (day) SELECT DATE 'epoch' WHERE false ON CONFLICT (day, id) DO NOTHING
""")
# Those that are stored, and what brought them. Looked up one by one, which is the one way that stays fast
# however large the day is: LIMIT keeps the planner from joining.
STORED = text("""
    SELECT event.number - 1 AS number, stored.entry
    FROM unnest(CAST(:days AS date[]), CAST(:ids AS uuid[])) WITH ORDINALITY AS event (day, id, number)
    CROSS JOIN LATERAL (
        SELECT v.entry FROM view_events AS v WHERE v.day = event.day AND v.id = event.id LIMIT 1
    ) AS stored
""")
# In key order, so that two writers wait for each other instead of deadlocking
RAISE_COUNTERS = text("""
    INSERT INTO view_counters AS c (entity_id, view_type, count, sealed, first_viewed_at, last_viewed_at,
                                    created_at, updated_at)
    SELECT entity_id, (CAST(:view_types AS text[]))[type_number], views, 0,
        :epoch + first_us * interval '1 microsecond', :epoch + last_us * interval '1 microsecond',
        :now, :now
    FROM unnest(CAST(:entity_ids AS int[]), CAST(:type_numbers AS int[]), CAST(:views AS bigint[]),
                CAST(:first_us AS bigint[]), CAST(:last_us AS bigint[]))
        AS raised (entity_id, type_number, views, first_us, last_us)
    ORDER BY 1, 2
    ON CONFLICT (entity_id, view_type) DO UPDATE SET
        count = c.count + excluded.count,
        first_viewed_at = least(c.first_viewed_at, excluded.first_viewed_at),
        last_viewed_at = greatest(c.last_viewed_at, excluded.last_viewed_at),
        updated_at = excluded.updated_at
""")
# Who viewed what, for the time without Redis
INSERT_SLOTS = text("""
    INSERT INTO view_slots AS s (name, entity_id, event_id, ends_at, by_fallback)
    SELECT DISTINCT ON (name) decode(name, 'hex'), entity_id, event_id,
        :epoch + ends_us * interval '1 microsecond', false
    FROM unnest(CAST(:names AS text[]), CAST(:entity_ids AS int[]), CAST(:event_ids AS uuid[]),
                CAST(:ends_us AS bigint[])) AS held (name, entity_id, event_id, ends_us)
    ORDER BY name, ends_us DESC
    ON CONFLICT (name) DO UPDATE SET event_id = excluded.event_id, ends_at = excluded.ends_at
    WHERE s.ends_at < excluded.ends_at
""")


@dataclass(slots=True)
class Incoming:
    """An event with its place in the queue, or what could not be read at that place."""

    entry: int
    position: int
    event: ViewEvent | Unreadable
    payload: bytes  # the entry's, kept when the event could not be read, for code that can
    outcome: Outcome | None = None  # the entry's; what is readable holds it already


@dataclass(slots=True)
class Batch:
    """Whole entries and the events in them: what one transaction writes."""

    entries: dict[int, str] = field(default_factory=dict)  # {number: id}
    rows: list[Row] = field(default_factory=list)
    unreadable: list[Incoming] = field(default_factory=list)


class Columns(NamedTuple):
    """What many rows of a batch share, as COPY takes it."""

    days: Mapping[date, bytes]  # with their versions
    keys: Mapping[entities.Name, bytes]
    kinds: Mapping[Kind, bytes]
    domains: Mapping[str | None, bytes]


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
    """Write what is queued until all of it is written, 20 s have passed or `should_stop()` says so.

    What comes meanwhile is for the next call: many small transactions cost much more than a large one.

    Commits batch by batch. Anything but bad data is raised, with its entries left pending for the next
    call: a store that is away or a schema that has drifted must be loud, and must lose nothing.
    """
    # before anything is read: who reads an entry again and again without writing it keeps the others off it
    schema_check.require_before_work(engine)
    written = Written()
    counts.raise_behind(engine, redis)
    deadline = time.monotonic() + DRAIN_SECONDS
    last = stream.Entry(stream.last_id(redis), b"").number
    while time.monotonic() < deadline and not should_stop():
        entries = stream.read(redis, consumer, READ_ENTRIES)
        if not entries:
            break
        for batch in _batches(entries):
            written.fates.update(_write_entries(engine, redis, settings, batch, utc_now()))
            written.entries += len(batch.entries)
        if entries[-1].number >= last:
            break
    if written.entries:
        log.info("events written", extra={"entries": written.entries, "fates": dict(written.fates)})
    return written


def write_batch(
    connection: Connection, incoming: Sequence[Row | Incoming], now: datetime, settings: Settings
) -> list[Fate]:
    """Store a batch: each event once, bad ones as dead letters. The fates are parallel to `incoming`.

    The caller has opened the days and commits. May be called again with the same batch, before or after
    the commit: the same fates, no second row.
    """
    connection.execute(entities.HOLD_OFF_DELETIONS)
    reader = Reader()
    rows = [one if isinstance(one, Row) else _row(reader, one) for one in incoming]
    held = days.hold_open(connection, {row.day for row in rows if isinstance(row, Row)})
    good: list[Row] = []
    parked: list[int] = []
    for ordinal, row in enumerate(rows):
        if isinstance(row, Row) and row.day in held:
            good.append(row)
            continue
        parked.append(ordinal)
        if isinstance(row, Row):
            _park(connection, row, "too_late", f"{row.day} takes no events", now)
        else:
            one = incoming[ordinal]
            reason = "unreadable" if isinstance(one.event, Unreadable) else "refused"
            _park(connection, one, reason, str(row), now)
    changed: set[date] = set()
    versions = {day: version + 1 for day, version in held.items()}
    fates = _insert_or_park(connection, good, versions, now, settings, changed) if good else []
    days.raise_versions(connection, changed)
    for ordinal in parked:  # in ascending order, so that each comes to stand in its place
        fates.insert(ordinal, "dead_letter")
    return fates


def _row(reader: Reader, one: Incoming) -> Row | Unreadable:
    if isinstance(one.event, Unreadable):
        return one.event
    rows, unreadable = reader.rows_of(one.entry, [(one.position, fields_of(one.event))])
    return rows[0] if rows else unreadable[one.position]


def _write_entries(
    engine: Engine, redis: Redis, settings: Settings, batch: Batch, now: datetime
) -> list[Fate]:
    open_days(engine, settings, batch.rows, now)
    incoming: list[Row | Incoming] = [*batch.rows, *batch.unreadable]
    fates = in_transaction(engine, lambda connection: write_batch(connection, incoming, now, settings))
    _show(engine, redis, batch, fates)
    stream.settle(redis, _tallies(batch, fates))
    return fates


def _show(engine: Engine, redis: Redis, batch: Batch, fates: Sequence[Fate]) -> None:
    """Bring the shown counts up to what was committed, and drop those of what was deleted meanwhile."""
    counts.raise_touched(engine, redis, {row.name for row in batch.rows})
    if "erased" in fates:
        pairs = zip(batch.rows, fates, strict=False)
        counts.forget_taken(redis, [row.event for row, fate in pairs if fate == "erased"])


def _batches(entries: Iterable[stream.Entry]) -> Iterator[Batch]:
    reader = Reader()
    batch = Batch()
    for entry in entries:
        number = entry.number
        batch.entries[number] = entry.id
        rows, unreadable = _read(reader, number, entry.payload, entry.outcome)
        batch.rows += rows
        batch.unreadable += unreadable
        if len(batch.rows) + len(batch.unreadable) >= BATCH_EVENTS:
            yield batch
            batch = Batch()
    if batch.entries:
        yield batch


def events_of(entry: stream.Entry) -> list[ViewEvent]:
    """The readable events of an entry, with their outcomes."""
    rows, _ = _read(Reader(), entry.number, entry.payload, entry.outcome)
    return [row.event for row in rows]


def incoming(number: int, payload: bytes, outcome: Outcome | None) -> list[Incoming]:
    """What is to be written of an envelope that came under that number, with the outcome beside it."""
    rows, unreadable = _read(Reader(), number, payload, outcome)
    readable = [Incoming(number, row.position, row.event, payload, outcome) for row in rows]
    return sorted([*readable, *unreadable], key=lambda one: one.position)


def _read(
    reader: Reader, number: int, payload: bytes, outcome: Outcome | None
) -> tuple[list[Row], list[Incoming]]:
    try:
        rows, unreadable = reader.rows(number, payload, outcome)
    except Unreadable as error:
        return [], [Incoming(number, WHOLE_ENTRY, error, payload, outcome)]
    return rows, [Incoming(number, position, why, payload, outcome) for position, why in unreadable.items()]


def open_days(engine: Engine, settings: Settings, events: Iterable[ViewEvent | Row], now: datetime) -> None:
    """Make the partitions that `events` need and that may still be made; commits."""
    today = site_day(now, settings.time_zone)
    first = today - timedelta(days=settings.daily_retention_days)
    last = today + timedelta(days=days.DAYS_AHEAD)
    wanted = {day for day in {event.day for event in events} if first <= day <= last}
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
    good: Sequence[Row],
    versions: Versions,
    now: datetime,
    settings: Settings,
    changed: set[date],
) -> list[Fate]:
    """Insert; when the data of one is refused, halve until that one is alone, and park it."""
    try:
        with connection.begin_nested():
            fates, days_changed = _insert(connection, good, versions, now, settings)
        changed |= days_changed
        return fates
    except DBAPIError as error:
        if not _is_data_error(error):
            raise
        if len(good) == 1:
            _park(connection, good[0], "refused", _reason(error), now)
            return ["dead_letter"]
    middle = len(good) // 2
    return [
        *_insert_or_park(connection, good[:middle], versions, now, settings, changed),
        *_insert_or_park(connection, good[middle:], versions, now, settings, changed),
    ]


def _insert(
    connection: Connection, good: Sequence[Row], versions: Versions, now: datetime, settings: Settings
) -> tuple[list[Fate], set[date]]:
    names = {row.name for row in good}
    keys = entities.ensure(connection, names, now, settings)
    living = good if len(keys) == len(names) else [row for row in good if row.name in keys]
    if not living:
        return ["erased"] * len(good), set()
    today = site_day(now, settings.time_zone)
    domains = _domains(connection, living, today)
    kinds = event_kinds.ensure(connection, {row.kind for row in living}, today)
    columns = _columns(versions, keys, kinds, domains)
    connection.execute(REQUIRE_KEY)
    new, fates = living, list[Fate](["row"]) * len(living)
    if not _copied_at_once(connection, living, columns):
        new, fates = _told_apart(connection, living)
        _copy(connection, new, columns)
    _raise_counters(connection, new, keys, now)
    _hold_slots(connection, living, fates, keys)
    if len(living) < len(good):
        of_living = iter(fates)
        fates = [next(of_living) if row.name in keys else "erased" for row in good]
    return fates, {row.day for row in new}


def _domains(connection: Connection, rows: Sequence[Row], today: date) -> dict[str, str]:
    """{a referring domain: what is stored}, `known_referrers.OTHER` for one that is not counted by name."""
    views = Counter(row.referrer_domain for row in rows if row.referrer_domain is not None)
    named = known_referrers.named(connection, views, today)
    return {domain: domain if domain in named else known_referrers.OTHER for domain in views}


def _columns(versions: Versions, keys: Keys, kinds: Kinds, domains: Mapping[str, str]) -> Columns:
    return Columns(
        {
            day: DAY_VERSION.pack(4, day.toordinal() - copying.EPOCH_DAY, 4, version)
            for day, version in versions.items()
        },
        {name: KEY.pack(4, key) for name, key in keys.items()},
        {kind: KEY.pack(4, key) for kind, key in kinds.items()},
        {None: copying.NULL, **{domain: copying.text(stored) for domain, stored in domains.items()}},
    )


def _copied_at_once(connection: Connection, rows: Sequence[Row], columns: Columns) -> bool:
    """Copy all, as if none were stored, which is nearly always so; False, and nothing is copied, when one is.

    It would always be found out, by the unique key; but not for nothing, so the next batches are not tried.
    """
    wary = connection.info.get(WARY, 0)
    if wary:
        connection.info[WARY] = wary - 1
        return False
    try:
        with connection.begin_nested():
            _copy(connection, rows, columns)
    except DBAPIError as error:
        if _sqlstate(error) != UNIQUE_VIOLATION:
            raise
        connection.info[WARY] = WARY_BATCHES
        return False
    return True


def _told_apart(connection: Connection, rows: Sequence[Row]) -> tuple[list[Row], list[Fate]]:
    """Those that are not stored yet, and the fates of all. A row is what is stored or will be: these, and
    what an earlier delivery of the same entry has brought. All others are duplicates.

    Nobody else stores events of these days meanwhile: they are held.
    """
    events = [(row.day, row.id_bytes) for row in rows]
    wanted = {
        "days": copying.array(str(day) for day, _ in events),
        "ids": copying.array(event_id.hex() for _, event_id in events),
    }
    stored = {found.number: found.entry for found in connection.execute(STORED, wanted)}
    new: list[Row] = []
    fates: list[Fate] = []
    taken = set()  # of an id that stands twice in one entry, or in two new ones, the first is the row
    for number, (row, event) in enumerate(zip(rows, events, strict=True)):
        if event in taken or stored.get(number, row.entry) != row.entry:
            fates.append("duplicate")
            continue
        taken.add(event)
        fates.append("row")
        if number not in stored:
            new.append(row)
    return new, fates


def _copy(connection: Connection, rows: Sequence[Row], columns: Columns) -> None:
    if not rows:
        return
    raw: Any = connection.connection.driver_connection
    try:
        with raw.cursor() as cursor:
            cursor.copy_expert(COPY_EVENTS, BytesIO(_copied(rows, columns)), COPY_BYTES)
    except raw.Error as error:
        raise DBAPIError(COPY_EVENTS, None, error) from error


def _copied(rows: Sequence[Row], columns: Columns) -> bytes:
    """The rows as COPY takes them."""
    days, keys, kinds, domains = columns
    entries = {number: ENTRY.pack(8, number) for number in {row.entry for row in rows}}
    parts = [copying.HEADER]
    for entry, _, name, day, kind, domain, _, head, _ in rows:
        parts += (ROW_START, head, entries[entry], days[day], keys[name], kinds[kind], domains[domain])
    parts.append(copying.END)
    return b"".join(parts)


def _raise_counters(connection: Connection, new: Sequence[Row], keys: Keys, now: datetime) -> None:
    """Raise the counters by those of `new` that are views."""
    moments: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for _, _, name, _, kind, _, microseconds, _, _ in new:
        if kind.outcome == "counted":
            moments[keys[name], kind.view_type].append(microseconds)
    if not moments:
        return
    view_types = sorted({view_type for _, view_type in moments})
    type_numbers = {view_type: number for number, view_type in enumerate(view_types, 1)}
    raised = {
        "entity_ids": copying.numbers(entity_id for entity_id, _ in moments),
        "view_types": view_types,
        "type_numbers": copying.numbers(type_numbers[view_type] for _, view_type in moments),
        "views": copying.numbers(map(len, moments.values())),
        "first_us": copying.numbers(map(min, moments.values())),
        "last_us": copying.numbers(map(max, moments.values())),
    }
    connection.execute(RAISE_COUNTERS, {**raised, "epoch": EPOCH, "now": now})


def _hold_slots(connection: Connection, rows: Sequence[Row], fates: Sequence[Fate], keys: Keys) -> None:
    """Note who viewed what: of the views of this batch that are stored, now or by an earlier delivery."""
    held = [
        (*row.slot, keys[row.name], row.id_bytes.hex())
        for row, fate in zip(rows, fates, strict=True)
        if row.slot is not None and fate == "row" and row.kind.outcome == "counted"
    ]
    if held:
        names, ends_us, entity_ids, event_ids = zip(*held, strict=True)
        slots = {
            "names": copying.array(names),
            "ends_us": copying.numbers(ends_us),
            "entity_ids": copying.numbers(entity_ids),
            "event_ids": copying.array(event_ids),
        }
        connection.execute(INSERT_SLOTS, {**slots, "epoch": EPOCH})


def _park(connection: Connection, one: Row | Incoming, reason: str, detail: str, now: datetime) -> None:
    day, payload, outcome = _kept(one)
    connection.execute(
        insert(DeadLetter)
        .values(
            entry=one.entry,
            position=one.position,
            day=day,
            reason=reason,
            detail=detail,
            payload=payload,
            outcome=outcome,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["entry", "position"])
    )
    log.warning("dead letter", extra={"reason": reason, "readable": day is not None})


def _kept(one: Row | Incoming) -> tuple[date | None, bytes, Outcome | None]:
    """The day, payload and outcome of a dead letter. An event that was read stands alone in its payload."""
    if isinstance(one, Row):
        return one.day, encode([one.event]), None
    if isinstance(one.event, ViewEvent):
        return one.event.day, encode([one.event]), None
    return None, one.payload, one.outcome


def _tallies(batch: Batch, fates: Sequence[Fate]) -> dict[str, dict[str, int]]:
    """{entry id: {"<day>:<tally>": amount}}; what could not be read has no day and is not tallied."""
    by_number: dict[int, dict[str, int]] = {number: defaultdict(int) for number in batch.entries}
    pairs = zip(batch.rows, fates, strict=False)  # those of what could not be read come after
    for (number, day, fate), events in Counter((row.entry, row.day, fate) for row, fate in pairs).items():
        by_number[number][f"{day}:settled"] += events
        if fate != "row":
            by_number[number][f"{day}:{TALLY_OF_FATE[fate]}"] += events
    return {entry_id: by_number[number] for number, entry_id in batch.entries.items()}


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
