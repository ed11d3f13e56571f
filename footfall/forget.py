"""Forgetting on request: an entity with all that is counted of it, or a user who can still be found.

A user is found by computing the visitor's key once more, which takes the day's salt. Where that is gone,
nobody can find the user, and there is nothing to forget. The events stay and become nobody's: that somebody
viewed something remains true, in counters that were shown and in a ledger that has to balance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import islice
from typing import TypeVar

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, delete, select, text, update

from footfall import counts, days, dead_letters, flush, host, keys, rollup, salts, visitors, writer
from footfall.content_types import CONTENT_TYPES
from footfall.entities import Name
from footfall.event import ViewEvent, encode
from footfall.schema import DeadLetter, Entity, SeenVisitor, ViewEventRow, ViewSlot
from footfall.settings import Settings

AT_ONCE = 1_000  # slots
# A run is named after its first visitor, who may be the one
FORGET_RUN = text("DELETE FROM seen_runs WHERE day = :day AND visitors = ARRAY[CAST(:visitor AS bigint)]")
FORGET_IN_RUN = text("""
    UPDATE seen_runs SET first = (SELECT min(other) FROM unnest(visitors) AS other WHERE other <> :visitor),
        visitors = array_remove(visitors, :visitor)
    WHERE day = :day AND :visitor = ANY(visitors)
""")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was found of a user, and is no longer the user's."""

    days: Sequence[date]  # those whose visitors can still be found
    events: int
    slots: int
    dead_letters: int
    entities: int  # that the user owned
    unreadable: Sequence[int]  # dead letters that hold the user and cannot be read


@dataclass(frozen=True, slots=True)
class _Traces:
    """What a user looks like in what is stored."""

    visitors: Mapping[date, int]
    slots: frozenset[bytes]

    def are_in(self, payload: bytes) -> bool:
        """Whether an envelope that cannot be read holds one of them."""
        visitors = (str(visitor).encode() for visitor in self.visitors.values())
        return any(trace in payload for trace in (*visitors, *(slot.hex().encode() for slot in self.slots)))

    def without(self, event: ViewEvent) -> ViewEvent:
        """The event as if nobody had been told from others."""
        if self.visitors.get(event.day) == event.visitor:
            event = event._replace(visitor=None)
        return event._replace(slot=None, slot_ends_at=None) if event.slot in self.slots else event


def forget_entity(engine: Engine, redis: Redis, settings: Settings, name: Name, now: datetime) -> bool:
    """Delete all that is counted of an entity; False when it was never known. Commits.

    Where Redis is used, a deletion without it is refused, and sent again; else it need not be there. May be
    called again. Raises `RedisError`.
    """
    is_queued = False
    with _redis_if_used(settings):
        is_queued = counts.shown(redis, name) is not None
    with engine.begin() as connection:
        ids = host.erase(connection, name, now, is_queued=is_queued)
        if ids is None:
            return False
        with _redis_if_used(settings):
            counts.forget_ids(redis, ids)
    with _redis_if_used(settings):
        counts.forget(redis, name)
    return True


def forget_user(
    engine: Engine, redis: Redis, settings: Settings, user_id: str, *, also_ownership: bool = False
) -> Forgotten:
    """Make what a user has viewed until now nobody's. Commits. May be called again.

    What is queued is written first. Raises `Unavailable` when that, or a rollup that is running, takes too
    long, and `RedisError`.
    """
    with _redis_if_used(settings):
        flush.flush(engine, redis, settings, "forget")
    with engine.connect() as connection:
        day_keys = {
            day: visitors.day_key(settings.pepper, salt) for day, salt in salts.kept(connection).items()
        }
        viewed = _with_window(connection)
    viewers = {day: visitors.visitor_of_user(key, user_id) for day, key in day_keys.items()}
    slots = {visitors.slot(key, viewers[day], name): name for day, key in day_keys.items() for name in viewed}
    traces = _Traces(viewers, frozenset(slots))
    # a rollup that began before would remember the visitor when this is done
    with rollup.held_off(engine, viewers):
        forgotten = writer.in_transaction(
            engine, lambda connection: _forget(connection, traces, user_id, also_ownership)
        )
    with _redis_if_used(settings):
        in_redis = _forget_slots(redis, slots)
        # most are in both stores
        return replace(forgotten, slots=max(forgotten.slots, in_redis))
    return forgotten


def _forget(connection: Connection, traces: _Traces, user_id: str, also_ownership: bool) -> Forgotten:
    """The database's part. Letters, days, slots: the order in which writers lock them."""
    connection.execute(rollup.STATEMENT_TIMEOUT)
    letters, unreadable = _forget_in_letters(connection, traces)
    events = {day: _forget_events(connection, day, viewer) for day, viewer in traces.visitors.items()}
    days.note_removals(connection, {day for day, amount in events.items() if amount})
    for day, viewer in traces.visitors.items():
        connection.execute(delete(SeenVisitor).where(SeenVisitor.day == day, SeenVisitor.visitor == viewer))
        for statement in (FORGET_RUN, FORGET_IN_RUN):
            connection.execute(statement, {"day": day, "visitor": viewer})
    slots = sum(
        connection.execute(delete(ViewSlot).where(ViewSlot.name.in_(part))).rowcount
        for part in _parts(sorted(traces.slots))
    )
    owned = 0
    if also_ownership:
        disown = update(Entity).where(Entity.owner_id == user_id).values(owner_id=None)
        owned = connection.execute(disown).rowcount
    return Forgotten(sorted(traces.visitors), sum(events.values()), slots, letters, owned, unreadable)


def _forget_events(connection: Connection, day: date, viewer: int) -> int:
    theirs = update(ViewEventRow).where(ViewEventRow.day == day, ViewEventRow.visitor == viewer)
    return connection.execute(theirs.values(visitor=None)).rowcount


def _forget_in_letters(connection: Connection, traces: _Traces) -> tuple[int, list[int]]:
    """How many were changed, and the numbers of those that hold the user and cannot be read."""
    changed, unreadable = 0, []
    for letter in list(dead_letters.each(connection)):
        (*others, one) = [part.event for part in dead_letters.events_of(letter)]
        if letter.day is not None and not others and isinstance(one, ViewEvent):
            without = traces.without(one)
            if without != one:
                # one that is replayed now is waited for, and then gone: its event is a row
                theirs = update(DeadLetter).where(DeadLetter.id == letter.id)
                changed += connection.execute(theirs.values(payload=encode([without]))).rowcount
        elif traces.are_in(bytes(letter.payload)):
            unreadable.append(letter.id)
    return changed, unreadable


def _with_window(connection: Connection) -> set[Name]:
    """Everything whose viewers hold slots: what was stored, and what could not be."""
    types = {each.name for each in CONTENT_TYPES.values() if each.has_window}
    query = select(Entity.entity_type, Entity.external_id).where(Entity.entity_type.in_(types))
    stored = {(row.entity_type, row.external_id) for row in connection.execute(query)}
    parked = (
        part.event for letter in dead_letters.each(connection) for part in dead_letters.events_of(letter)
    )
    return stored | {
        event.name for event in parked if isinstance(event, ViewEvent) and event.slot is not None
    }


def _forget_slots(redis: Redis, slots: Mapping[bytes, Name]) -> int:
    names = (keys.viewer_slot(*name, slot) for slot, name in slots.items())
    return sum(int(redis.unlink(*part)) for part in _parts(names))


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, AT_ONCE)):
        yield part


def _redis_if_used(settings: Settings) -> AbstractContextManager[None]:
    return nullcontext() if settings.redis_enabled else suppress(RedisError)
