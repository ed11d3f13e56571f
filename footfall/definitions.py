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
# Of an entity that only crawlers have seen, there is no audience
ASSEMBLED = {
    "unique_viewers": "coalesce(viewers, 0) AS unique_viewers",
    "unique_viewers_authenticated": "coalesce(viewers_authenticated, 0) AS unique_viewers_authenticated",
}
DIMENSIONS = ("country", "device", "type", "source", "referrer")
SITE_DIMENSIONS = (*DIMENSIONS, "hour")
AUDIENCES = ("", "_authenticated")  # everybody, and those who were signed in
BREAKDOWNS = tuple(
    f"views_by_{dimension}{audience}" for audience in AUDIENCES for dimension in SITE_DIMENSIONS
)
FIGURES = (*COUNTS, *BREAKDOWNS)
FIGURE_COLUMNS = ", ".join(FIGURES)

# What a view is counted under in each breakdown, and which of the cells know
SLICES = {
    "country": ("countries", "country"),
    "device": ("kinds", "device"),
    "type": ("kinds", "view_type"),
    "source": ("kinds", "view_source"),
    "referrer": ("referrers", "referrer_domain"),  # a view without one is counted under none
    "hour": ("hours", """to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') || '\\:00\\:00+00\\:00'"""),
}


@dataclass(frozen=True, slots=True)
class Cells:
    """Events that have something in common, counted together: a first step that leaves much less to do.

    `columns` are {name: what it is of an event}.
    """

    name: str
    columns: Mapping[str, str]
    events: str  # which of them
    counts: Mapping[str, str]
    counts_of_cells: Mapping[str, str]  # the same of several cells together

    def counted(self, subject: "Subject", rows: str, *, are_cells: bool = False) -> str:
        """The cells of a subject, of `rows` that are events, or cells with another subject."""
        columns = {name: name for name in self.columns} if are_cells else self.columns
        counts = self.counts_of_cells if are_cells else self.counts
        named = ", ".join(f"{value} AS {name}" for name, value in {**columns, **counts}.items())
        return f"""
            SELECT {subject.key} AS entity_id, e.day, {named} FROM {subject.events.format(rows=rows)}
            {"" if are_cells else self.events}
            GROUP BY {", ".join(str(n) for n in range(1, len(columns) + 3))}
            """  # noqa: S608 - put together from this module's constants


COUNT_VIEWS = {
    "views": "count(*)",
    "views_authenticated": "count(*) FILTER (WHERE e.authenticated)",
}
ADD_VIEWS = {"views": "sum(views)", "views_authenticated": "sum(views_authenticated)"}
VIEWS = "WHERE e.outcome = 'counted'"
AT_LEAST_ONCE = {"authenticated": "bool_or(e.authenticated)"}
KINDS = Cells(
    "kinds",
    {name: f"e.{name}" for name in ("outcome", "device", "view_type", "view_source")},
    "",
    COUNT_VIEWS,
    ADD_VIEWS,
)
COUNTRIES = Cells(
    "countries", {"country": f"coalesce(e.country, '{UNKNOWN_COUNTRY}')"}, VIEWS, COUNT_VIEWS, ADD_VIEWS
)
REFERRERS = Cells(
    "referrers",
    {"referrer_domain": "e.referrer_domain"},
    f"{VIEWS} AND e.referrer_domain IS NOT NULL",
    COUNT_VIEWS,
    ADD_VIEWS,
)
HOURS = Cells("hours", {"hour": "date_bin('1 hour', e.occurred_at, 'epoch')"}, VIEWS, COUNT_VIEWS, ADD_VIEWS)
VIEWERS = Cells(
    "viewers", {"visitor": "e.visitor"}, f"{VIEWS} AND e.visitor IS NOT NULL", AT_LEAST_ONCE, AT_LEAST_ONCE
)
EVERY_CELL = (KINDS, COUNTRIES, REFERRERS, VIEWERS)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose events are counted under which key: each entity's own, or all pages' under the site's."""

    key: str
    events: str  # FROM {rows} AS e ...
    dimensions: tuple[str, ...]

    @property
    def cells(self) -> tuple[Cells, ...]:
        """What has to be known of its events."""
        return (*EVERY_CELL, HOURS) if "hour" in self.dimensions else EVERY_CELL


EACH_ENTITY = Subject("e.entity_id", "{rows} AS e", DIMENSIONS)
ONE_ENTITY = Subject(
    "e.entity_id", "(SELECT * FROM {rows} WHERE entity_id = :entity_id) AS e", DIMENSIONS
)  # `entity_id` is a parameter
THE_SITE = Subject(
    "CAST(:entity_id AS integer)",
    "{rows} AS e JOIN entities AS page ON page.id = e.entity_id AND page.entity_type = 'page'",
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

    Parameters: the seam's, and `entity_id` for one entity or the site.
    """
    cells = {each.name: each.counted(subject, "raw") for each in subject.cells}
    return text(_with({"raw": seam.events, **cells}) + _assembled(subject, seam, ""))


def figures_of_all(seam: Seam) -> TextClause:
    """`figures` of each entity and of the site together, from one look at the events.

    Parameters: the seam's, and `entity_id` for the site.
    """
    cells = {each.name: each.counted(EACH_ENTITY, "raw") for each in EACH_ENTITY.cells}
    of_site = {
        f"site_{each.name}": each.counted(THE_SITE, each.name, are_cells=True) for each in EACH_ENTITY.cells
    }
    of_site["site_hours"] = HOURS.counted(THE_SITE, "raw")
    return text(
        _with({"raw": seam.events, **cells, **of_site})
        + _assembled(EACH_ENTITY, seam, "")
        + " UNION ALL "
        + _assembled(THE_SITE, seam, "site_")
    )


def _with(queries: Mapping[str, str]) -> str:
    # the events are read again for each kind of cells: cheaper than keeping them, and done in parallel
    named = (
        f"{name} AS {'NOT ' if name == 'raw' else ''}MATERIALIZED ({query})"
        for name, query in queries.items()
    )
    return f"WITH {', '.join(named)}"


def _assembled(subject: Subject, seam: Seam, of: str) -> str:
    """The figures from the cells, whose names begin with `of`."""
    breakdowns = "".join(
        f" LEFT JOIN ({_breakdown(name, of)}) AS by_{name} USING (entity_id, day)"
        for name in subject.dimensions
    )
    return f"""
    SELECT entity_id, day, {", ".join(ASSEMBLED.get(name, name) for name in COUNTS)},
        {", ".join(_selected(subject.dimensions))}
    FROM (
        SELECT entity_id, day,
            {_sum("views", "counted")} AS views,
            {_sum("views_authenticated", "counted")} AS views_authenticated,
            {_sum("views", "bot")} AS bots,
            {_sum("views", "own")} AS own_views,
            {_sum("views", "repeat")} AS repeats
        FROM {of}kinds GROUP BY entity_id, day
    ) AS totals
    LEFT JOIN (
        SELECT e.entity_id, e.day,
            count(*) FILTER (WHERE s.visitor IS NULL) AS viewers,
            count(*) FILTER (WHERE e.authenticated AND s.authenticated IS NOT TRUE) AS viewers_authenticated
        FROM {of}viewers AS e {seam.seen.format(key="e.entity_id")}
        GROUP BY e.entity_id, e.day
    ) AS audience USING (entity_id, day)
    {breakdowns}
    """  # noqa: S608


def _sum(column: str, outcome: str) -> str:
    return f"CAST(coalesce(sum({column}) FILTER (WHERE outcome = '{outcome}'), 0) AS bigint)"


def _breakdown(dimension: str, of: str) -> str:
    """{value: views} of each subject and day, for both audiences."""
    cells, value = SLICES[dimension]
    slices = f"SELECT entity_id, day, {value} AS value, views, views_authenticated FROM {of}{cells}"  # noqa: S608
    if cells == KINDS.name:
        slices = f"""
            SELECT entity_id, day, {value} AS value, sum(views) AS views,
                sum(views_authenticated) AS views_authenticated
            FROM {of}{cells} WHERE outcome = 'counted' GROUP BY entity_id, day, {value}
            """  # noqa: S608
    columns = (
        f"jsonb_object_agg(value, views{audience}) FILTER (WHERE views{audience} > 0)"
        f" AS views_by_{dimension}{audience}"
        for audience in AUDIENCES
    )
    return f"SELECT entity_id, day, {', '.join(columns)} FROM ({slices}) AS slices GROUP BY entity_id, day"  # noqa: S608


def _selected(dimensions: Sequence[str]) -> list[str]:
    counted = {f"views_by_{name}{audience}" for name in dimensions for audience in AUDIENCES}
    return [
        f"coalesce({name}, '{{}}') AS {name}" if name in counted else f"CAST('{{}}' AS jsonb) AS {name}"
        for name in BREAKDOWNS
    ]
