"""Events that could not be stored, kept with the reason: what they would have counted."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from footfall.entities import Name
from footfall.event import ViewEvent, decode
from footfall.schema import DeadLetter
from footfall.stream import Counts

PART = 1_000


def views_of(connection: Connection, names: Collection[Name]) -> dict[Name, Counts]:
    """The views of `names` among the readable dead letters, {name: {view type: views}}: they were shown when
    they were taken, and are in no counter.
    """
    found: dict[Name, dict[str, int]] = {name: {} for name in names}
    payloads = connection.execution_options(yield_per=PART).scalars(
        select(DeadLetter.payload).where(DeadLetter.day.is_not(None))
    )
    for payload in payloads:
        (event,) = decode(payload)
        if isinstance(event, ViewEvent) and event.outcome == "counted" and event.name in found:
            by_type = found[event.name]
            by_type[event.view_type] = by_type.get(event.view_type, 0) + 1
    return dict(found)
