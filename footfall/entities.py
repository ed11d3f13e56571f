"""What is viewed. Events arrive under the host site's names and are stored under small keys."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from footfall import copying
from footfall.clock import day_start, site_day
from footfall.content_types import PAGE
from footfall.errors import Unavailable
from footfall.schema import SITE_EXTERNAL_ID, SITE_TYPE, Entity
from footfall.settings import Settings

Name = tuple[str, str]  # entity type, external id
EntityRow = Row[int, str, str, str | None, str | None, dict[str, Any] | None, int | None]

# Writers hold it together, who deletes an entity alone: no batch in flight brings back what is deleted
DELETION_LOCK = 7108622
HOLD_OFF_DELETIONS = text(f"SELECT pg_advisory_xact_lock_shared({DELETION_LOCK})")
HOLD_OFF_WRITERS = text(f"SELECT pg_advisory_xact_lock({DELETION_LOCK})")

# Pages that come over the day's cap are counted here together: made-up paths must not fill the tables
OVERFLOW_PAGE = "(other)"

REMEMBERED = 10_000  # entities, for when the database is away

FACTS = text("""
    SELECT e.owner_id, parent.entity_type AS parent_type, parent.external_id AS parent_id
    FROM entities AS e LEFT JOIN entities AS parent ON parent.id = e.parent_id AND parent.deleted_at IS NULL
    WHERE e.entity_type = :type AND e.external_id = :id AND e.deleted_at IS NULL
""")
# Of names that are stored, deleted or not. Joined to arrays: a long list of pairs in an IN takes longer to
# parse and plan than to answer.
KNOWN = text("""
    SELECT e.entity_type, e.external_id, e.id, e.deleted_at IS NOT NULL AS is_deleted
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS name (entity_type, external_id)
    JOIN entities AS e ON e.entity_type = name.entity_type AND e.external_id = name.external_id
""")
# In key order, so that two writers with the same names wait for each other instead of deadlocking
INSERT = text("""
    INSERT INTO entities (entity_type, external_id, created_at)
    SELECT entity_type, external_id, :now
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS name (entity_type, external_id)
    ORDER BY entity_type, external_id
    ON CONFLICT DO NOTHING
""")


def find(connection: Connection, entity_type: str, external_id: str) -> EntityRow | None:
    """The living entity of that name, with its key, owner, title and engagement."""
    return connection.execute(
        select(
            Entity.id,
            Entity.entity_type,
            Entity.external_id,
            Entity.owner_id,
            Entity.title,
            Entity.reactions,
            Entity.comments,
        ).where(
            Entity.entity_type == entity_type,
            Entity.external_id == external_id,
            Entity.deleted_at.is_(None),
        )
    ).one_or_none()


def deleted(connection: Connection, names: Collection[Name]) -> set[Name]:
    """Those of `names` that the host site has deleted."""
    return {name for name, key in _known(connection, names).items() if key is None}


class Facts:
    """What the host site has told of entities: asked of the database each time, so that it is never old,
    and remembered for when the database is away.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._remembered: OrderedDict[Name, tuple[str | None, Name | None]] = OrderedDict()
        self._lock = Lock()

    def owner_of(self, entity_type: str, external_id: str) -> str | None:
        """The user who owns the entity; None when nobody has told. Raises `Unavailable` when not known."""
        return self._of((entity_type, external_id))[0]

    def parent_of(self, name: Name) -> Name | None:
        """What the entity is a part of; None when nobody has told, or it is not known now."""
        try:
            return self._of(name)[1]
        except Unavailable:
            return None

    def _of(self, name: Name) -> tuple[str | None, Name | None]:
        try:
            with self._engine.connect() as connection:
                row = connection.execute(FACTS, {"type": name[0], "id": name[1]}).one_or_none()
        except SQLAlchemyError as error:
            if name not in self._remembered:
                raise Unavailable("the entity's owner cannot be read now") from error
            return self._remembered[name]
        has_parent = row is not None and row.parent_type is not None
        facts = (
            row.owner_id if row else None,
            (row.parent_type, row.parent_id) if row and has_parent else None,
        )
        with self._lock:
            self._remembered[name] = facts
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return facts


def site(connection: Connection) -> EntityRow:
    """The entity that stands for the whole site."""
    row = find(connection, SITE_TYPE, SITE_EXTERNAL_ID)
    if row is None:
        raise LookupError("the site's own row is missing from entities; the migrations insert it")
    return row


def ensure(
    connection: Connection, names: Collection[Name], now: datetime, settings: Settings
) -> dict[Name, int]:
    """The keys of `names`, making those that are new; pages over the day's cap get the overflow's key, and
    what was deleted has none.

    The cap is watched, not enforced to the unit: two writers at once may each let their batch pass.
    """
    known = _known(connection, names)
    unknown = sorted(set(names) - known.keys())
    if not unknown:
        return _living(known)
    new_pages = [name for name in unknown if name[0] == PAGE.name]
    overflow = new_pages[_room(connection, PAGE.name, now, settings) :] if new_pages else []
    made = set(unknown) - set(overflow)
    _insert(connection, made, now)
    found = _living(known) | keys(connection, made)
    if overflow:
        other = (PAGE.name, OVERFLOW_PAGE)
        _insert(connection, _unknown(connection, [other]), now)
        found |= dict.fromkeys(overflow, keys(connection, [other])[other])
    return found


def keys(connection: Connection, names: Collection[Name]) -> dict[Name, int]:
    """The keys of those of `names` that live."""
    return _living(_known(connection, names)) if names else {}


def over_cap(connection: Connection, names: Collection[Name], now: datetime, settings: Settings) -> set[Name]:
    """Those of `names` that are unknown and of a type that has had its new ids of the day."""
    unknown = _unknown(connection, names)
    types = {name[0] for name in unknown}
    full = {each for each in types if _room(connection, each, now, settings) == 0}
    return {name for name in unknown if name[0] in full}


def _room(connection: Connection, entity_type: str, now: datetime, settings: Settings) -> int:
    """How many new entities of that type the site's day may still see."""
    zone = settings.time_zone
    query = select(func.count()).where(
        Entity.entity_type == entity_type, Entity.created_at >= day_start(site_day(now, zone), zone)
    )
    return max(settings.new_entities_per_day - (connection.scalar(query) or 0), 0)


def _known(connection: Connection, names: Collection[Name]) -> dict[Name, int | None]:
    """The keys of those of `names` that are stored; None of what was deleted."""
    return {
        (entity_type, external_id): None if is_deleted else key
        for entity_type, external_id, key, is_deleted in connection.execute(KNOWN, _arrays(names))
    }


def _arrays(names: Collection[Name]) -> dict[str, str]:
    types, ids = zip(*names, strict=True) if names else ((), ())
    return {"types": copying.array(types), "ids": copying.array(ids)}


def _living(known: Mapping[Name, int | None]) -> dict[Name, int]:
    return {name: key for name, key in known.items() if key is not None}


def _unknown(connection: Connection, names: Collection[Name]) -> list[Name]:
    # asked before inserting: ON CONFLICT DO NOTHING uses up a key for every row that is there already
    return sorted(set(names) - _known(connection, names).keys())


def _insert(connection: Connection, names: Collection[Name], now: datetime) -> None:
    if names:
        connection.execute(INSERT, {**_arrays(names), "now": now})
