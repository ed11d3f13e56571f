"""What events have in common, under small numbers.

A site's events are of a few hundred kinds. A row that names its kind is a fifth shorter than one that spells
it out, and is counted by one number in place of five texts.
"""

from collections.abc import Collection, Mapping
from datetime import date

from sqlalchemy import Connection, text

from footfall import copying
from footfall.event import Kind

COLUMNS = ", ".join(Kind._fields)
CAME = f"unnest({', '.join(f'CAST(:{name} AS text[])' for name in Kind._fields)}) AS came ({COLUMNS})"
KNOWN = f"""event_kinds AS known
    WHERE {" AND ".join(f"known.{name} = came.{name}" for name in Kind._fields)} AND last_seen_on >= :today"""
# Those of today: nearly always all that came. LIMIT makes it look them up one by one, however many are known
SEEN_TODAY = text(f"""
    SELECT seen.id, {", ".join(f"came.{name}" for name in Kind._fields)} FROM {CAME}
    CROSS JOIN LATERAL (SELECT known.id FROM {KNOWN} LIMIT 1) AS seen
""")  # noqa: S608 - constants
# In the order of the key, as everything that several writers change
NOTE_SEEN = text(f"""
    INSERT INTO event_kinds AS noted ({COLUMNS}, last_seen_on)
    SELECT {COLUMNS}, :today FROM {CAME} WHERE NOT EXISTS (SELECT FROM {KNOWN})
    ORDER BY {COLUMNS}
    ON CONFLICT ({COLUMNS}) DO UPDATE SET last_seen_on = excluded.last_seen_on
    WHERE noted.last_seen_on < excluded.last_seen_on
""")  # noqa: S608 - constants
FORGET = text("DELETE FROM event_kinds WHERE last_seen_on < :first_kept")


def ensure(connection: Connection, kinds: Collection[Kind], today: date) -> Mapping[Kind, int]:
    """The numbers of `kinds`, making those that are new; the caller commits.

    They stay what they are until long after `today`: nobody forgets a kind that was seen lately.
    """
    if not kinds:
        return {}
    columns = zip(Kind._fields, map(copying.array, zip(*kinds, strict=True)), strict=True)
    came = {**dict(columns), "today": today}
    seen = _seen_today(connection, came)
    if len(seen) == len(kinds):
        return seen
    connection.execute(NOTE_SEEN, came)
    return _seen_today(connection, came)


def forget(connection: Connection, first_kept: date) -> None:
    """Forget the kinds that nobody has seen from `first_kept` on."""
    connection.execute(FORGET, {"first_kept": first_kept})


def _seen_today(connection: Connection, came: Mapping[str, object]) -> dict[Kind, int]:
    return {Kind(*texts): number for number, *texts in connection.execute(SEEN_TODAY, came)}
