"""What every number means, once. The rollup, the readers and whoever comes later use these statements.

- *view*: an event with the outcome `counted`.
- *unique viewers*: the distinct visitors of an entity's views on one day. Over several days their sum is
  called `visitor_days`, because a visitor's key changes every day and nobody is recognised the day after.
- *authenticated*: the same of signed-in viewers.
- the *site*: its views are the views of pages, its visitors the distinct visitors of all of them.

A day's figures are its daily rows and the raw events that came after them. Of a clean day that is none, of
a day that was never rolled up it is all; a day that is still going on has some of both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import Date

UNKNOWN_COUNTRY = "ZZ"  # CLDR's code for a region that is not known; browsers can name it

COUNTS = (
    "views",
    "unique_viewers",
    "views_authenticated",
    "unique_viewers_authenticated",
    "bots",
    "own_views",
    "repeats",
)
DIMENSIONS = ("country", "device", "type", "source", "referrer")
SITE_DIMENSIONS = (*DIMENSIONS, "hour")
AUDIENCES = ("", "_authenticated")  # everybody, and those who were signed in
BREAKDOWNS = tuple(
    f"views_by_{dimension}{audience}" for audience in AUDIENCES for dimension in SITE_DIMENSIONS
)
FIGURES = (*COUNTS, *BREAKDOWNS)
FIGURE_COLUMNS = ", ".join(FIGURES)

# What a view is counted under in each breakdown
SLICES = {
    "country": f"coalesce(country, '{UNKNOWN_COUNTRY}')",
    "device": "device",
    "type": "view_type",
    "source": "view_source",
    "referrer": "referrer_domain",  # a view without one is counted under none
    "hour": "date_bin('1 hour', occurred_at, 'epoch')",
}
HOUR_AS_TEXT = """to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') || '\\:00\\:00+00\\:00'"""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose events are counted under which key: each entity's own, or all pages' under the site's."""

    key: str
    events: str  # FROM raw AS e ...
    dimensions: tuple[str, ...]


EACH_ENTITY = Subject("e.entity_id", "raw AS e", DIMENSIONS)
ONE_ENTITY = Subject(
    "e.entity_id", "(SELECT * FROM raw WHERE raw.entity_id = :entity_id) AS e", DIMENSIONS
)  # `entity_id` is a parameter
THE_SITE = Subject(
    "CAST(:entity_id AS integer)",
    "raw AS e JOIN entities AS page ON page.id = e.entity_id AND page.entity_type = 'page'",
    SITE_DIMENSIONS,
)

# A day is clean when its daily rows hold the version that its raw rows have now. Later events can be added
# to rows whose visitors are known, unless something that they hold was taken away.
SEAM = text("""
    SELECT day, coalesce(rollup_days.version = event_days.version, false) AS clean,
        CASE WHEN visitors_kept AND rollup_days.version >= removed_at_version
            THEN rollup_days.version ELSE -1 END AS after
    FROM event_days LEFT JOIN rollup_days USING (day)
    WHERE day = ANY(:days)
    ORDER BY day
""").bindparams(bindparam("days", type_=ARRAY(Date)))


@dataclass(frozen=True, slots=True)
class Seam:
    """Where the numbers of some days come from: `rolled` days have daily rows that count, and of `raw`
    days the events with a higher version than the one given count (all of them for -1), up to the version
    in `until`, if there is one.
    """

    rolled: tuple[date, ...]
    raw: Mapping[date, int]
    until: Mapping[date, int] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: Connection, days: Sequence[date]) -> "Seam":
        """The seam of `days`, from a connection in one snapshot."""
        rows = connection.execute(SEAM, {"days": list(days)}).all()
        rolled = tuple(row.day for row in rows if row.clean or row.after >= 0)
        return cls(rolled, {row.day: row.after for row in rows if not row.clean})

    @property
    def events(self) -> str:
        """The raw events, as a query; a branch a day, so that each finds its partition and its index."""
        branches = (
            f"SELECT * FROM view_events WHERE day = :day_{n} AND version > :after_{n}"  # noqa: S608
            f"{f' AND version <= :until_{n}' if day in self.until else ''}"
            for n, day in enumerate(self.raw)
        )
        return " UNION ALL ".join(branches) or "SELECT * FROM view_events WHERE false"

    @property
    def parameters(self) -> dict[str, Any]:
        """What `events` names."""
        found: dict[str, Any] = {}
        for n, (day, after) in enumerate(self.raw.items()):
            found |= {f"day_{n}": day, f"after_{n}": after}
            if day in self.until:
                found[f"until_{n}"] = self.until[day]
        return found

    @property
    def seen(self) -> str:
        """A join that finds who of the raw events `e` is counted in the daily rows of `{key}`, as `s`."""
        table = "seen_visitors" if any(after >= 0 for after in self.raw.values()) else NOBODY
        return f"LEFT JOIN {table} AS s ON s.day = e.day AND s.entity_id = {{key}} AND s.visitor = e.visitor"


NOBODY = "(SELECT * FROM seen_visitors WHERE false)"


def figures(subject: Subject, seam: Seam) -> TextClause:
    """One row a subject and day with all figures of the seam's raw events; viewers who are in the daily
    rows already are not counted again.

    Parameters: the seam's, and `entity_id` for one entity or the site. The grouping sets count every
    dimension in one pass; GROUPING() tells by its bits which of them a row belongs to.
    """
    names = subject.dimensions
    statement = f"""
    WITH raw AS ({seam.events}),
    events AS (
        SELECT {subject.key} AS subject, e.*, s.visitor IS NULL AS is_new,
            s.authenticated IS NOT TRUE AS is_newly_authenticated
        FROM {subject.events} {seam.seen.format(key=subject.key)}
    ),
    totals AS (
        SELECT subject, day,
            count(*) FILTER (WHERE outcome = 'counted') AS views,
            count(DISTINCT visitor) FILTER (WHERE outcome = 'counted' AND is_new) AS unique_viewers,
            count(*) FILTER (WHERE outcome = 'counted' AND authenticated) AS views_authenticated,
            count(DISTINCT visitor)
                FILTER (WHERE outcome = 'counted' AND authenticated AND is_newly_authenticated)
                AS unique_viewers_authenticated,
            count(*) FILTER (WHERE outcome = 'bot') AS bots,
            count(*) FILTER (WHERE outcome = 'own') AS own_views,
            count(*) FILTER (WHERE outcome = 'repeat') AS repeats
        FROM events
        GROUP BY subject, day
    ),
    slices AS (
        SELECT subject, day,
            CASE GROUPING({", ".join(names)}) {_grouping_bits(names)} END AS dimension,
            coalesce({", ".join(HOUR_AS_TEXT if name == "hour" else name for name in names)}) AS value,
            count(*) AS views,
            count(*) FILTER (WHERE authenticated) AS views_authenticated
        FROM (
            SELECT subject, day, authenticated, {", ".join(f"{SLICES[name]} AS {name}" for name in names)}
            FROM events WHERE outcome = 'counted'
        ) AS views
        GROUP BY subject, day, GROUPING SETS ({", ".join(f"({name})" for name in names)})
    ),
    breakdowns AS (
        SELECT subject, day, {", ".join(_breakdown_column(*each) for each in _breakdowns(names))}
        FROM slices
        WHERE value IS NOT NULL
        GROUP BY subject, day
    )
    SELECT subject AS entity_id, day, {", ".join(COUNTS)}, {", ".join(_selected(names))}
    FROM totals LEFT JOIN breakdowns USING (subject, day)
    """  # noqa: S608 - put together from this module's constants
    return text(statement)


def _grouping_bits(names: Sequence[str]) -> str:
    """GROUPING() has a bit for each that a row is not grouped by, the last one's the lowest."""
    every = 2 ** len(names) - 1
    return " ".join(
        f"WHEN {every - 2 ** (len(names) - 1 - place)} THEN '{name}'" for place, name in enumerate(names)
    )


def _breakdowns(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, audience) for audience in AUDIENCES for name in names]


def _breakdown_column(dimension: str, audience: str) -> str:
    return (
        f"jsonb_object_agg(value, views{audience})"
        f" FILTER (WHERE dimension = '{dimension}' AND views{audience} > 0)"
        f" AS views_by_{dimension}{audience}"
    )


def _selected(names: Sequence[str]) -> list[str]:
    counted = {f"views_by_{name}{audience}" for name, audience in _breakdowns(names)}
    return [
        f"coalesce({name}, '{{}}') AS {name}" if name in counted else f"CAST('{{}}' AS jsonb) AS {name}"
        for name in BREAKDOWNS
    ]
