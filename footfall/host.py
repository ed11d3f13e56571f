"""What the host site tells of its entities: owners, titles, parents, engagement; and that one is gone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert

from footfall import days, entities, fields, ledger
from footfall.entities import Name
from footfall.errors import Invalid
from footfall.fields import Body
from footfall.schema import (
    DailyStats,
    Entity,
    EventDay,
    SeenRun,
    SeenVisitor,
    ShownBehind,
    ViewCounter,
    ViewEventRow,
    ViewSlot,
)

MAX_TITLE_BYTES = 1_000
MAX_REACTIONS = 200  # different ones
MOST = 2_000_000_000  # of a number that is told: it has to fit the column

ONE = text("""
    SELECT e.entity_type, e.external_id, e.owner_id, e.title, e.reactions, e.comments,
        parent.entity_type AS parent_type, parent.external_id AS parent_id
    FROM entities AS e LEFT JOIN entities AS parent ON parent.id = e.parent_id AND parent.deleted_at IS NULL
    WHERE e.id = :id
""")


@dataclass(frozen=True, slots=True)
class Told:
    """What a request tells of an entity: only the columns that it names; None takes a value back."""

    columns: Mapping[str, Any]
    parent: Name | None = None


def told(body: Body) -> Told:
    """Read `{owner_id?, title?, parent?, engagement?}`. Raises `Invalid`."""
    columns: dict[str, Any] = {}
    if "owner_id" in body:
        owner = fields.optional_text(body, "owner_id")
        columns["owner_id"] = None if owner is None else fields.identifier(owner, "owner_id")
    if "title" in body:
        title = fields.optional_text(body, "title")
        columns["title"] = None if title is None else fields.line(title, "title", MAX_TITLE_BYTES)
    columns |= _engagement(fields.optional_object(body, "engagement"))
    parent = fields.optional_object(body, "parent")
    if parent is None:
        return Told({**columns, "parent_id": None} if "parent" in body else columns)
    content_type = fields.content_type(fields.text(parent, "entity_type"), "parent.entity_type")
    parent_id = fields.external_id(content_type, fields.text(parent, "entity_id"), "parent.entity_id")
    return Told(columns, (content_type.name, parent_id))


def put(connection: Connection, name: Name, told: Told, now: datetime) -> dict[str, Any]:
    """Store what was told of `name`, which is made, or brought back after a deletion; the entity as JSON.

    The caller commits. May be called again.
    """
    columns = dict(told.columns)
    if told.parent is not None:
        columns["parent_id"] = _upsert(connection, told.parent, {}, now)
    return _as_json(connection, _upsert(connection, name, {**columns, "deleted_at": None}, now))


def erase(connection: Connection, name: Name, now: datetime, *, is_queued: bool = False) -> list[UUID] | None:
    """Delete all that is counted of `name`; the ids of its events, or None when it was never known. The
    caller commits. `is_queued` says that its first events may still be on their way.

    What is still queued of it is dropped by the writer, until the entity is told of again. The site's daily
    rows keep their totals for the days whose raw events are gone.
    """
    connection.execute(entities.HOLD_OFF_WRITERS)
    if is_queued:
        _upsert(connection, name, {}, now)  # so that the writer finds it deleted
    entity_id = connection.scalar(
        select(Entity.id).where(Entity.entity_type == name[0], Entity.external_id == name[1])
    )
    if entity_id is None:
        return None
    erased = connection.execute(
        delete(ViewEventRow)
        .where(ViewEventRow.entity_id == entity_id)
        .returning(ViewEventRow.day, ViewEventRow.id)
    ).all()
    changed = Counter(row.day for row in erased)
    _tally_erased(connection, entity_id, changed)
    for table in (ViewCounter, DailyStats, SeenRun, SeenVisitor, ViewSlot, ShownBehind):
        connection.execute(delete(table).where(table.entity_id == entity_id))
    gone = dict.fromkeys(("owner_id", "title", "parent_id", "comments"))
    connection.execute(
        update(Entity).where(Entity.id == entity_id).values(deleted_at=now, reactions=None, **gone)
    )
    days.note_removals(connection, set(changed))
    return [row.id for row in erased]


def _tally_erased(connection: Connection, entity_id: int, raw: Mapping[date, int]) -> None:
    """Note in the ledger what goes, so that it still balances: raw rows, or what is left of them."""
    sums = DailyStats.views + DailyStats.bots + DailyStats.own_views + DailyStats.repeats
    sealed = connection.execute(
        select(DailyStats.day, sums.label("events"))
        .join(EventDay, EventDay.day == DailyStats.day)
        .where(DailyStats.entity_id == entity_id, EventDay.sealed_at.is_not(None))
    )
    gone = {**raw, **{row.day: row.events for row in sealed}}
    ledger.add(connection, {(day, "erased"): amount for day, amount in gone.items()})


def _engagement(body: Body | None) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if body is None:
        return columns
    reactions = fields.optional_object(body, "reactions", "engagement.reactions")
    if reactions is not None:
        if len(reactions) > MAX_REACTIONS:
            raise Invalid("engagement.reactions", f"must be at most {MAX_REACTIONS}")
        columns["reactions"] = {
            fields.line(emoji, "engagement.reactions", 64): _number(n, "engagement.reactions")
            for emoji, n in reactions.items()
        }
    if body.get("comments") is not None:
        columns["comments"] = _number(body["comments"], "engagement.comments")
    return columns


def _number(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise Invalid(field, "must be a whole number of 0 or more")
    return value


def _upsert(connection: Connection, name: Name, columns: Mapping[str, Any], now: datetime) -> int:
    statement = insert(Entity).values(entity_type=name[0], external_id=name[1], created_at=now, **columns)
    # an update even if there is nothing to change, so that the key comes back
    changes = columns or {"external_id": statement.excluded.external_id}
    return connection.scalars(
        statement.on_conflict_do_update(
            index_elements=["entity_type", "external_id"], set_=changes
        ).returning(Entity.id)
    ).one()


def _as_json(connection: Connection, entity_id: int) -> dict[str, Any]:
    row = connection.execute(ONE, {"id": entity_id}).one()
    parent = {"entity_type": row.parent_type, "entity_id": row.parent_id} if row.parent_type else None
    return {
        "entity_type": row.entity_type,
        "entity_id": row.external_id,
        "owner_id": row.owner_id,
        "title": row.title,
        "parent": parent,
        "engagement": {"reactions": row.reactions or {}, "comments": row.comments},
    }
