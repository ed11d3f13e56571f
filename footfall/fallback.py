"""The way in without Redis: the same decisions, straight into PostgreSQL by the writer's own function.

Slower, and durable all the same. What Redis would have remembered (slots, answers, shown counts) is noted,
and brought to it before anybody goes back.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import cast
from uuid import UUID

from redis import Redis
from sqlalchemy import Connection, Engine, Row, Select, select, text
from sqlalchemy.dialects.postgresql import insert

from footfall import counts, entities, keys, ledger, stream, writer
from footfall.content_types import OTHER_VIEW_TYPE, PAGE
from footfall.entities import Name
from footfall.event import EPOCH, Outcome, View, ViewEvent
from footfall.schema import Entity, EventKind, ViewEventRow, ViewSlot
from footfall.settings import Settings
from footfall.stream import Counts, Taken

COPY_ROWS = 1_000
SlotRow = Row[bytes, UUID, datetime, str | None, str, str]

# A slot is free when there is none or its time has passed; who writes it first has it, others wait to see.
CLAIM_SLOT = text("""
    INSERT INTO view_slots AS s (name, entity_id, event_id, ends_at, by_fallback)
    VALUES (:name, :entity_id, :event_id, :ends_at, true)
    ON CONFLICT (name) DO UPDATE
        SET event_id = excluded.event_id, ends_at = excluded.ends_at, by_fallback = true
        WHERE s.ends_at <= :now
    RETURNING event_id
""")


def take(engine: Engine, settings: Settings, views: Sequence[View], now: datetime) -> list[Taken]:
    """Write views durably in one transaction; parallel to `views`. Raises SQLAlchemy's errors."""
    writer.open_days(engine, settings, [view.event for view in views], now)
    return writer.in_transaction(engine, lambda connection: _take(connection, settings, views, now))


def copy_to_redis(engine: Engine, redis: Redis, now: datetime, views: Sequence[View] | None = None) -> int:
    """Bring the slots and answers of the time without Redis to it, or those of `views` only; how many.

    May be called again, and by several processes: what Redis has already, it keeps.
    """
    copied = 0
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=COPY_ROWS).execute(_slots_to_copy(now, views))
        for part in rows.partitions():
            with redis.pipeline(transaction=False) as pipeline:
                for row in part:
                    left_ms = (row.ends_at - now) // stream.MILLISECOND
                    pipeline.set(_redis_key(row), _redis_value(row), nx=True, px=max(left_ms, 1))
                pipeline.execute()
            copied += len(part)
    return copied


def _take(connection: Connection, settings: Settings, views: Sequence[View], now: datetime) -> list[Taken]:
    connection.execute(entities.HOLD_OFF_DELETIONS)
    content = {view.event.name for view in views if view.event.entity_type != PAGE.name}
    refused = entities.over_cap(connection, content, now, settings)
    ids = entities.ensure(connection, content - refused, now, settings)
    before = {name: dict(by_type) for name, by_type in counts.stored(connection, content).items()}
    taken: list[Taken | None] = [None] * len(views)
    # in the order of slots: two requests with the same viewers wait for each other and do not deadlock
    for index in sorted(range(len(views)), key=lambda i: views[i].event.slot or b""):
        event = views[index].event
        if event.name in refused:
            taken[index] = Taken("limited", event.outcome, 0)
            continue
        taken[index] = _decide(connection, views[index], ids, before, now)
        if taken[index] is None and event.outcome == "counted" and event.name in before:
            before[event.name].setdefault(event.view_type, 0)  # for the cap: the batch may bring more
    outcomes = _write(connection, settings, views, taken, now)
    after = counts.stored(connection, content)
    answers = [
        one
        if one and one.status != "taken"
        else Taken("taken", outcome, sum(after.get(view.event.name, {}).values()))
        for view, one, outcome in zip(views, taken, outcomes, strict=True)
    ]
    for view, answer in zip(views, answers, strict=True):
        if answer.status == "taken" and view.has_clients_id and view.event.name in ids:
            _remember(connection, view, answer, ids[view.event.name], now)
    counts.note_behind(
        connection, [(ids[name], view_type) for name in after if name in ids for view_type in after[name]]
    )
    return answers


def _decide(
    connection: Connection, view: View, ids: Mapping[Name, int], stored: Mapping[Name, Counts], now: datetime
) -> Taken | None:
    """The answer, if the view is not to be written as it came: a retry, a repeat, one type too many."""
    event = view.event
    if event.name not in ids:
        return None  # a page, or deleted: nothing to decide
    views = sum(stored[event.name].values())
    if view.has_clients_id:
        first = _first_answer(connection, view, views, now)
        if first is not None:
            return first
    if event.outcome != "counted":
        return None
    types = stored[event.name]
    is_new_type = event.view_type not in types and event.view_type != OTHER_VIEW_TYPE
    if is_new_type and len(types) >= stream.MOST_VIEW_TYPES:
        return Taken("limited", event.outcome, 0)
    holder = _holder(connection, view, ids[event.name], now)
    if holder == event.id:
        return Taken("retry", "counted", views)
    return Taken("taken", "repeat", views) if holder is not None else None


def _first_answer(connection: Connection, view: View, views: int, now: datetime) -> Taken | None:
    """What this id was answered: as noted here, or as the row says that came through Redis."""
    event = view.event
    noted = connection.scalar(
        select(ViewSlot.answer).where(ViewSlot.name == _id_name(event.id), ViewSlot.ends_at > now)
    )
    if noted is not None:
        outcome, _, shown = noted.partition("|")
        return Taken("retry", cast(Outcome, outcome), int(shown))
    written = connection.scalar(
        select(EventKind.outcome)
        .join(ViewEventRow, ViewEventRow.kind_id == EventKind.id)
        .where(ViewEventRow.day == event.day, ViewEventRow.id == event.id)
    )
    return Taken("retry", cast(Outcome, written), views) if written is not None else None


def _holder(connection: Connection, view: View, entity_id: int, now: datetime) -> UUID | None:
    """Whose view holds the viewer's slot; None when this one has it now, or needs none."""
    event = view.event
    if event.slot is None:
        return None
    for_yesterday = select(ViewSlot.event_id).where(
        ViewSlot.name == view.slot_of_yesterday, ViewSlot.ends_at > now
    )
    holder = connection.scalar(for_yesterday)
    if holder is not None:
        return holder
    slot = {"name": event.slot, "entity_id": entity_id, "event_id": event.id, "ends_at": event.slot_ends_at}
    if connection.scalar(CLAIM_SLOT, {**slot, "now": now}) is not None:
        return None
    return connection.scalar(select(ViewSlot.event_id).where(ViewSlot.name == event.slot))


def _write(
    connection: Connection,
    settings: Settings,
    views: Sequence[View],
    taken: Sequence[Taken | None],
    now: datetime,
) -> list[Outcome]:
    """Write all that is to be written as one batch; the outcomes, parallel to `views`."""
    outcomes = [one.outcome if one else view.event.outcome for view, one in zip(views, taken, strict=True)]
    # a negative number: no entry of the stream has it, and no other transaction
    entry = -secrets.randbits(62) - 1
    incoming = [
        writer.Incoming(entry, position, view.event._replace(outcome=outcome), b"")
        for position, (view, one, outcome) in enumerate(zip(views, taken, outcomes, strict=True))
        if one is None or one.status == "taken"
    ]
    fates = writer.write_batch(connection, incoming, now, settings)
    _tally(connection, incoming, fates)
    return outcomes


def _tally(connection: Connection, incoming: Sequence[writer.Incoming], fates: Sequence[writer.Fate]) -> None:
    """The ledger's part of this transaction: accepted and settled at once."""
    amounts: Counter[tuple[date, str]] = Counter()
    for one, fate in zip(incoming, fates, strict=True):
        day = cast(ViewEvent, one.event).day
        amounts.update([(day, "accepted"), (day, "settled")])
        if fate in writer.TALLY_OF_FATE:
            amounts[day, writer.TALLY_OF_FATE[fate]] += 1
    ledger.add(connection, amounts)


def _remember(connection: Connection, view: View, answer: Taken, entity_id: int, now: datetime) -> None:
    values = {
        "entity_id": entity_id,
        "event_id": view.event.id,
        "ends_at": now + stream.ID_SLOT,
        "answer": f"{answer.outcome}|{answer.views}",
        "by_fallback": True,
    }
    statement = insert(ViewSlot).values(name=_id_name(view.event.id), **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def _id_name(event_id: UUID) -> bytes:
    return b"i" + event_id.bytes  # one byte longer than a viewer's slot: they never meet


def _slots_to_copy(
    now: datetime, views: Sequence[View] | None
) -> Select[bytes, UUID, datetime, str | None, str, str]:
    query = (
        select(
            ViewSlot.name,
            ViewSlot.event_id,
            ViewSlot.ends_at,
            ViewSlot.answer,
            Entity.entity_type,
            Entity.external_id,
        )
        .join(Entity, Entity.id == ViewSlot.entity_id)
        .where(ViewSlot.by_fallback, ViewSlot.ends_at > now, Entity.deleted_at.is_(None))
    )
    if views is None:
        return query
    slots = [view.event.slot for view in views if view.event.slot is not None]
    return query.where(ViewSlot.name.in_([*slots, *(_id_name(view.event.id) for view in views)]))


def _redis_key(row: SlotRow) -> str:
    if row.answer is not None:
        return keys.id_slot(row.event_id)
    return keys.viewer_slot(row.entity_type, row.external_id, row.name)


def _redis_value(row: SlotRow) -> str:
    ends_ms = (row.ends_at - EPOCH) // stream.MILLISECOND
    return f"{ends_ms}|{row.answer or row.event_id.hex}"
