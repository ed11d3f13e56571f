"""The counts that are shown: one integer an entity and view type in Redis, raised by intake and writer.

They are never above the views that were accepted under different ids, and equal the database's when the
queue is empty. Nothing lowers them but an operator's word.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast
from uuid import UUID

from redis import Redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert

from footfall import keys, scripts
from footfall.content_types import PAGE
from footfall.entities import Name
from footfall.event import ViewEvent
from footfall.schema import ShownBehind
from footfall.scripts import Call
from footfall.stream import Counts

SCAN_COUNT = 1_000

# {name: {view type: count}} of living entities; those without a counter do not appear
COUNTERS = text("""
    SELECT e.entity_type, e.external_id, c.view_type, c.count AS views
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS name (entity_type, external_id)
    JOIN entities AS e ON e.entity_type = name.entity_type AND e.external_id = name.external_id
    JOIN view_counters AS c ON c.entity_id = e.id
    WHERE e.deleted_at IS NULL
""")
# A note that somebody holds is of a count that is being raised now: it is for the next tick
TAKE_NOTES = text("""
    DELETE FROM shown_behind WHERE (entity_id, view_type) IN (
        SELECT entity_id, view_type FROM shown_behind FOR UPDATE SKIP LOCKED
    )
    RETURNING entity_id
""")
NAMES_BEHIND = text("""
    SELECT e.entity_type, e.external_id FROM entities AS e
    WHERE e.id = ANY(:ids) AND e.deleted_at IS NULL
""")


def stored(connection: Connection, names: Collection[Name]) -> dict[Name, Counts]:
    """The database's counts of `names`: {name: {view type: count}}, empty for an entity without views."""
    found: dict[Name, dict[str, int]] = {name: {} for name in names}
    parameters = {"types": [name[0] for name in found], "ids": [name[1] for name in found]}
    for row in connection.execute(COUNTERS, parameters):
        found[row.entity_type, row.external_id][row.view_type] = row.views
    return cast(dict[Name, Counts], found)


def shown(redis: Redis, name: Name) -> Counts | None:
    """What is shown of an entity: {view type: count}; None when nobody has asked for it yet."""
    fields = cast(dict[bytes, bytes], redis.hgetall(keys.count(*name)))
    if b"" not in fields:
        return None
    return {field.decode(): int(count) for field, count in fields.items() if field}


def shown_of(redis: Redis, names: Sequence[Name]) -> dict[Name, Counts]:
    """What is shown of each of `names`; those that nobody has asked for yet are left out."""
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(keys.count(*name))
        found = zip(names, pipeline.execute(), strict=True)
    return {
        name: {field.decode(): int(count) for field, count in fields.items() if field}
        for name, fields in found
        if b"" in fields
    }


def names_shown(redis: Redis) -> Iterator[list[Name]]:
    """Everything that a count is shown of, in parts. What is first shown meanwhile may be left out."""
    batch: list[Name] = []
    for key in redis.scan_iter(match=f"{keys.TAG}:*:count", count=SCAN_COUNT):
        entity = redis.hget(key, "")
        if entity is not None:
            entity_type, _, external_id = cast(bytes, entity).decode().partition("\0")
            batch.append((entity_type, external_id))
        if len(batch) >= SCAN_COUNT:
            yield batch
            batch = []
    yield batch


def raise_to(redis: Redis, counts: Mapping[Name, Counts]) -> None:
    """Raise what is shown to `counts` where these are higher. May be called again."""
    pairs = {name: [item for pair in by_type.items() for item in pair] for name, by_type in counts.items()}
    calls = [Call("raise", [keys.count(*name)], of_name) for name, of_name in pairs.items() if of_name]
    scripts.run_all(redis, calls)


def lower(redis: Redis, by: Mapping[Name, Counts]) -> None:
    """Lower what is shown by `by`, {name: {view type: by how much}}; not for what nobody has asked for yet.

    Only ever because somebody has asked for it: the answers that were given were higher.
    """
    amounts = [(name, view_type, amount) for name, of in by.items() for view_type, amount in of.items()]
    calls = [Call("lower", [keys.count(*name)], [view_type, amount]) for name, view_type, amount in amounts]
    scripts.run_all(redis, calls)


def raise_stored(engine: Engine, redis: Redis, names: Collection[Name]) -> None:
    """Raise what is shown of `names` to what the database counts now."""
    with engine.connect() as connection:
        raise_to(redis, stored(connection, names))


def raise_touched(engine: Engine, redis: Redis, names: Iterable[Name]) -> None:
    """After a commit: raise what is shown of the entities whose events were in it.

    Inserted or not: after a crash between a commit and this, the events come again and insert nothing.
    """
    touched = {name for name in names if name[0] != PAGE.name}  # nobody shows a live count of a page
    if touched:
        raise_stored(engine, redis, touched)


def note_behind(connection: Connection, counters: Iterable[tuple[int, str]]) -> None:
    """Note that these counters, of (entity, view type), were raised past Redis: the next tick raises what is
    shown of them. The caller commits.
    """
    rows = [
        {"entity_id": entity_id, "view_type": view_type} for entity_id, view_type in sorted(set(counters))
    ]
    if rows:
        note = insert(ShownBehind)
        # also if it stands there already: held until the commit, so that no tick takes the note before it
        key = ["entity_id", "view_type"]
        again = note.on_conflict_do_update(index_elements=key, set_={"view_type": note.excluded.view_type})
        connection.execute(again, rows)


def raise_noted(engine: Engine, redis: Redis) -> None:
    """Raise what the fallback or a repair has changed."""
    with engine.begin() as connection:
        behind = connection.scalars(TAKE_NOTES).all()
        if behind:
            rows = connection.execute(NAMES_BEHIND, {"ids": list(behind)})
            raise_to(redis, stored(connection, [(row.entity_type, row.external_id) for row in rows]))


def raise_behind(engine: Engine, redis: Redis) -> None:
    """Raise what the fallback or a repair changed, and all that is shown once when Redis was restarted."""
    raise_noted(engine, redis)
    run = str(cast(dict[str, str], redis.info("server"))["run_id"])
    if redis.get(keys.RUN) != run.encode():
        raise_all(engine, redis)
        redis.set(keys.RUN, run)


def forget(redis: Redis, name: Name) -> int:
    """Remove every key that is named by an entity; how many there were. What its ids were answered is not."""
    gone = list(redis.scan_iter(match=f"{keys.of_entity(*name)}:*", count=SCAN_COUNT))
    return int(redis.delete(*gone)) if gone else 0


def forget_ids(redis: Redis, ids: Sequence[UUID]) -> None:
    """Remove what `ids` were answered."""
    for start in range(0, len(ids), SCAN_COUNT):
        redis.delete(*map(keys.id_slot, ids[start : start + SCAN_COUNT]))


def forget_taken(redis: Redis, events: Iterable[ViewEvent]) -> None:
    """Remove what taking these events has left, without a search: their entities have been deleted."""
    gone = set()
    for event in events:
        gone |= {keys.count(*event.name), keys.id_slot(event.id)}
        if event.slot is not None:
            gone.add(keys.viewer_slot(*event.name, event.slot))
    if gone:
        redis.delete(*gone)


def raise_all(engine: Engine, redis: Redis) -> None:
    """Whatever is shown: a Redis that came back from an older state may show less than is stored."""
    for names in names_shown(redis):
        raise_stored(engine, redis, names)
