"""Events that could not be stored, kept with the reason until somebody replays or discards them.

A replay is one transaction: the row, the counter, the letter's end and the ledger's tallies. An event that
was tallied among the dead letters is tallied there once less; one that could not even be read was in no tally
but `accepted`, and is settled now, also when it is discarded.
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import islice
from typing import cast

from redis import Redis
from sqlalchemy import Connection, Engine, Row, delete, func, select, text, update

from footfall import counts, entities, ledger, writer
from footfall.content_types import PAGE
from footfall.entities import Name
from footfall.event import Outcome, ViewEvent, days_told
from footfall.schema import DeadLetter
from footfall.settings import Settings
from footfall.stream import Counts
from footfall.writer import Fate, Incoming

TOO_LATE = "too_late"
AT_ONCE = 500  # letters in a transaction
PART = 1_000

LetterRow = Row[int, int, int, date | None, str, str, bytes, str | None, datetime]
LETTERS = select(
    DeadLetter.id,
    DeadLetter.entry,
    DeadLetter.position,
    DeadLetter.day,
    DeadLetter.reason,
    DeadLetter.detail,
    DeadLetter.payload,
    DeadLetter.outcome,
    DeadLetter.created_at,
).order_by(DeadLetter.id)

# What was parked again in the place of a letter takes over that letter's number
STAY = text("""
    WITH again AS (
        DELETE FROM dead_letters WHERE entry = :replay AND position = :position
        RETURNING day, reason, detail, payload
    )
    UPDATE dead_letters AS letter
    SET day = coalesce(letter.day, again.day), reason = again.reason, detail = again.detail,
        payload = again.payload
    FROM again WHERE letter.id = :id
    RETURNING letter.reason, letter.detail
""")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a dead letter, which has several events if an entry as a whole could not be read."""

    id: int
    fates: Counter[Fate] = field(default_factory=Counter)
    problem: str | None = None  # why something of it is a dead letter still


@dataclass(frozen=True, slots=True)
class Discarded:
    """How many letters went, and the views among them, which were shown when they were taken."""

    letters: int
    views: dict[Name, Counts]


def listed(connection: Connection, first: int | None = None) -> Sequence[LetterRow]:
    """The dead letters, or the `first` of them, oldest first."""
    return connection.execute(LETTERS.limit(first)).all()


def each(connection: Connection) -> Iterator[LetterRow]:
    """All dead letters, oldest first, read part by part."""
    yield from connection.execute(LETTERS.execution_options(yield_per=PART))


def find(connection: Connection, letter_id: int) -> LetterRow | None:
    """The dead letter of that number."""
    return connection.execute(LETTERS.where(DeadLetter.id == letter_id)).one_or_none()


def count(connection: Connection) -> int:
    """How many there are."""
    return connection.scalar(select(func.count()).select_from(DeadLetter)) or 0


def ids(connection: Connection) -> Sequence[int]:
    """The numbers of all of them."""
    return connection.scalars(select(DeadLetter.id).order_by(DeadLetter.id)).all()


def replayable(connection: Connection) -> Sequence[int]:
    """The numbers of those that did not come too late."""
    query = select(DeadLetter.id).where(DeadLetter.reason != TOO_LATE)
    return connection.scalars(query.order_by(DeadLetter.id)).all()


def events_of(letter: LetterRow) -> list[Incoming]:
    """What this code makes of a letter: one event, or all of an entry that could not be read as a whole."""
    found = writer.incoming(letter.entry, bytes(letter.payload), cast(Outcome | None, letter.outcome))
    if letter.position == writer.WHOLE_ENTRY:
        return found
    # an event that was read stands alone in its envelope; else the envelope is the entry's
    is_alone = letter.day is not None or found[0].position == writer.WHOLE_ENTRY
    return [replace(found[0 if is_alone else letter.position], position=letter.position)]


def replay(engine: Engine, settings: Settings, ids: Sequence[int], now: datetime) -> Iterator[Replayed]:
    """Store the events of dead letters, each once; what became of every letter that is still there.

    Commits, some hundred at a time. What cannot be stored stays, with the new reason. May be called again,
    and by several at once.
    """
    for part in _parts(ids):
        yield from _replay_part(engine, settings, part, now)


def discard(engine: Engine, ids: Sequence[int]) -> Iterator[Discarded]:
    """Delete dead letters for good, accounted for as erased. Commits, some hundred at a time. May be called
    again, and by several at once.
    """
    for part in _parts(ids):
        with engine.begin() as connection:
            letters = _locked(connection, part)
            connection.execute(delete(DeadLetter).where(DeadLetter.id.in_([letter.id for letter in letters])))
            amounts: Counter[tuple[date, str]] = Counter()
            for letter in letters:
                if letter.day is not None:
                    amounts.update({(letter.day, "dead_letters"): -1, (letter.day, "erased"): 1})
                for day in _days_unsettled(letter):
                    amounts.update({(day, "settled"): 1, (day, "erased"): 1})
            ledger.add(connection, amounts)
        yield Discarded(len(letters), _views(letters))


def hide(engine: Engine, redis: Redis, discarded: Discarded) -> None:
    """Lower what is shown by the views that were discarded, once. Raises `RedisError`."""
    counts.lower(redis, discarded.views)
    counts.raise_stored(engine, redis, discarded.views)  # those that were never shown


def views_of(connection: Connection, names: Collection[Name]) -> dict[Name, Counts]:
    """The views of `names` among the readable dead letters, {name: {view type: views}}: they were shown when
    they were taken, and are in no counter.
    """
    found: dict[Name, Counter[str]] = {name: Counter() for name in names}
    for letter in each(connection):
        for name, by_type in _views([letter]).items():
            if name in found:
                found[name].update(by_type)
    return dict(found)


def _days_unsettled(letter: LetterRow) -> list[date]:
    """The day of each of its events, if it could not be read, which is in no tally but `accepted`. What is
    not even an envelope names no day, and nobody has accepted it.
    """
    if letter.day is not None:
        return []
    told = days_told(bytes(letter.payload))
    of_letter = told if letter.position == writer.WHOLE_ENTRY else told[letter.position : letter.position + 1]
    return [day for day in of_letter if day is not None]


def _views(letters: Sequence[LetterRow]) -> dict[Name, Counts]:
    """The views of content among these letters."""
    found: dict[Name, Counter[str]] = {}
    for letter in letters:
        for one in events_of(letter):
            event = one.event
            if isinstance(event, ViewEvent) and event.outcome == "counted" and event.name[0] != PAGE.name:
                found.setdefault(event.name, Counter())[event.view_type] += 1
    return dict(found)


def _replay_part(engine: Engine, settings: Settings, ids: Sequence[int], now: datetime) -> list[Replayed]:
    with engine.connect() as connection:
        letters = connection.execute(LETTERS.where(DeadLetter.id.in_(ids))).all()
    events = [one.event for letter in letters for one in events_of(letter)]
    writer.open_days(engine, settings, [event for event in events if isinstance(event, ViewEvent)], now)
    return writer.in_transaction(engine, lambda connection: _replay(connection, settings, ids, now))


def _replay(connection: Connection, settings: Settings, ids: Sequence[int], now: datetime) -> list[Replayed]:
    connection.execute(entities.HOLD_OFF_DELETIONS)  # before the letters, as whoever erases does
    tried: list[tuple[LetterRow, list[Incoming]]] = []
    for letter in _locked(connection, ids):
        # a number of its own: with the entry's, the row of another event of that entry that has the same id
        # would look like this one's
        number = -secrets.randbits(62) - 1
        tried.append((letter, [replace(one, entry=number) for one in events_of(letter)]))
    fates = iter(writer.write_batch(connection, [one for _, parts in tried for one in parts], now, settings))
    amounts: Counter[tuple[date, str]] = Counter()
    replayed = []
    for letter, parts in tried:
        fates_of_parts = list(islice(fates, len(parts)))
        amounts.update(_tallies(letter, parts, fates_of_parts))
        problem = _put_away(connection, letter, parts[0].entry)
        replayed.append(Replayed(letter.id, Counter(fates_of_parts), problem))
    ledger.add(connection, {tally: amount for tally, amount in amounts.items() if amount})
    _note_shown(connection, [one.event for _, parts in tried for one in parts])
    return replayed


def _parts(ids: Sequence[int]) -> Iterator[list[int]]:
    waiting = iter(sorted(set(ids)))
    while part := list(islice(waiting, AT_ONCE)):
        yield part


def _locked(connection: Connection, ids: Sequence[int]) -> Sequence[LetterRow]:
    """Those of these letters that are still there, for this transaction alone."""
    return connection.execute(LETTERS.where(DeadLetter.id.in_(ids)).with_for_update()).all()


def _tallies(
    letter: LetterRow, parts: Sequence[Incoming], fates: Sequence[Fate]
) -> Counter[tuple[date, str]]:
    """How the ledger changes."""
    amounts: Counter[tuple[date, str]] = Counter()
    for one, fate in zip(parts, fates, strict=True):
        if not isinstance(one.event, ViewEvent):
            continue
        day = one.event.day
        if letter.day is not None:
            amounts[day, "dead_letters"] -= 1
        else:
            amounts[day, "settled"] += 1
        if fate in writer.TALLY_OF_FATE:
            amounts[day, writer.TALLY_OF_FATE[fate]] += 1
    return amounts


def _put_away(connection: Connection, letter: LetterRow, replay: int) -> str | None:
    """End the letter, or keep of it what was parked again; then the reason."""
    place = {"replay": replay, "position": letter.position, "id": letter.id}
    kept = connection.execute(STAY, place).one_or_none()
    if kept is not None:
        return f"{kept.reason}: {kept.detail}"
    connection.execute(delete(DeadLetter).where(DeadLetter.id == letter.id))
    # of an entry that can be read now, some events may be letters of their own
    parts = update(DeadLetter).where(DeadLetter.entry == replay).values(entry=letter.entry)
    reasons = connection.scalars(parts.returning(DeadLetter.reason)).all()
    return ", ".join(sorted(set(reasons))) or None


def _note_shown(connection: Connection, events: Sequence[object]) -> None:
    """A count that was seeded while its views were dead letters does not hold them."""
    views = {
        (event.name, event.view_type)
        for event in events
        if isinstance(event, ViewEvent) and event.outcome == "counted" and event.name[0] != PAGE.name
    }
    ids = entities.keys(connection, [name for name, _ in views])
    counts.note_behind(connection, [(ids[name], view_type) for name, view_type in views if name in ids])
