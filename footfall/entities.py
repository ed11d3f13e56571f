"""What is viewed. Events arrive under the host site's names and are stored under small keys."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Row, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from footfall.content_types import PAGE
from footfall.schema import SITE_EXTERNAL_ID, SITE_TYPE, Entity

Name = tuple[str, str]  # entity type, external id
EntityRow = Row[int, str, str, str | None, str | None]

# Pages that come over the day's cap are counted here together: made-up paths must not fill the tables
OVERFLOW_PAGE = "(other)"

UNKNOWN_NAMES = text("""
    SELECT name.entity_type, name.external_id
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS name (entity_type, external_id)
    WHERE NOT EXISTS (
        SELECT FROM entities AS e
        WHERE e.entity_type = name.entity_type AND e.external_id = name.external_id
    )
    ORDER BY 1, 2
""")


def find(connection: Connection, entity_type: str, external_id: str) -> EntityRow | None:
    """The entity of that name with its `id`, `entity_type`, `external_id`, `owner_id` and `title`."""
    return connection.execute(
        select(Entity.id, Entity.entity_type, Entity.external_id, Entity.owner_id, Entity.title).where(
            Entity.entity_type == entity_type,
            Entity.external_id == external_id,
            Entity.deleted_at.is_(None),
        )
    ).one_or_none()


def site(connection: Connection) -> EntityRow:
    """The entity that stands for the whole site."""
    row = find(connection, SITE_TYPE, SITE_EXTERNAL_ID)
    if row is None:
        raise LookupError("the site's own row is missing from entities; the migrations insert it")
    return row


def ensure(
    connection: Connection,
    names: Collection[Name],
    now: datetime,
    day_begin: datetime,
    new_pages_per_day: int,
) -> dict[Name, int]:
    """The keys of all `names`, making those that are new; pages over the day's cap get the overflow's key.

    `day_begin`: when the site's current day began, for counting its new pages. The cap is watched, not
    enforced to the unit: two writers at once may each let their batch pass.
    """
    unknown = _unknown(connection, names)
    new_pages = [name for name in unknown if name[0] == PAGE.name]
    room = max(new_pages_per_day - _pages_since(connection, day_begin), 0) if new_pages else 0
    overflow = new_pages[room:]
    _insert(connection, set(unknown) - set(overflow), now)
    keys = _keys(connection, names)
    if overflow:
        _insert(connection, _unknown(connection, [(PAGE.name, OVERFLOW_PAGE)]), now)
        keys |= dict.fromkeys(
            overflow, _keys(connection, [(PAGE.name, OVERFLOW_PAGE)])[PAGE.name, OVERFLOW_PAGE]
        )
    return keys


def _unknown(connection: Connection, names: Collection[Name]) -> list[Name]:
    # asked before inserting: ON CONFLICT DO NOTHING uses up a key for every row that is there already
    rows = connection.execute(
        UNKNOWN_NAMES, {"types": [name[0] for name in names], "ids": [name[1] for name in names]}
    )
    return [(row.entity_type, row.external_id) for row in rows]


def _pages_since(connection: Connection, moment: datetime) -> int:
    query = select(func.count()).where(Entity.entity_type == PAGE.name, Entity.created_at >= moment)
    return connection.scalar(query) or 0


def _insert(connection: Connection, names: Collection[Name], now: datetime) -> None:
    if names:
        rows = [
            {"entity_type": entity_type, "external_id": external_id, "created_at": now}
            for entity_type, external_id in sorted(names)
        ]
        connection.execute(insert(Entity).on_conflict_do_nothing(), rows)


def _keys(connection: Connection, names: Collection[Name]) -> dict[Name, int]:
    query = select(Entity.entity_type, Entity.external_id, Entity.id).where(
        tuple_(Entity.entity_type, Entity.external_id).in_(list(names))
    )
    return {(row.entity_type, row.external_id): row.id for row in connection.execute(query)}
