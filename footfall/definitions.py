"""What every number means, once. The rollup, the readers and whoever comes later use these statements.

- *view*: an event with the outcome `counted`.
- *unique viewers*: the distinct visitors of an entity's views on one day. Over several days their sum is
  called `visitor_days`, because a visitor's key changes every day and nobody is recognised the day after.
- *authenticated*: the same of signed-in viewers.
- the *site*: its views are the views of pages, its visitors the distinct visitors of all of them.

A day's figures are its daily rows and the raw events that came after them. Of a clean day that is none, of
a day that was never rolled up it is all; a day that is still going on has some of both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import Date

COUNTS = (
    "views",
    "unique_viewers",
    "views_authenticated",
    "unique_viewers_authenticated",
    "bots",
    "own_views",
    "repeats",
)
# What an event is counted as, by its outcome
OUTCOME_COUNTS = {"views": "counted", "bots": "bot", "own_views": "own", "repeats": "repeat"}
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
    "country": ("kinds", "kind.country"),
    "device": ("kinds", "kind.device"),
    "type": ("kinds", "kind.view_type"),
    "source": ("kinds", "kind.view_source"),
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
    of_kinds: tuple[str, ...]  # which of them: conditions on their `kind`
    of_events: tuple[str, ...]  # and on the event `e`
    counts: Mapping[str, str]
    counts_of_cells: Mapping[str, str]  # the same of several cells together

    def counted(self, subject: "Subject", rows: str) -> str:
        """The cells of a subject, of `rows` that are events."""
        source = subject.events.format(rows=rows)
        if of_kinds := [*self.of_kinds, *subject.of_kinds]:
            source += f" JOIN event_kinds AS kind ON {' AND '.join(['kind.id = e.kind_id', *of_kinds])}"
        if self.of_events:
            source += f" WHERE {' AND '.join(self.of_events)}"
        return self._grouped(subject, source, {**self.columns, **self.counts})

    def counted_again(self, subject: "Subject", rows: str) -> str:
        """The same, of `rows` that are cells with another subject."""
        columns = {name: name for name in self.columns}
        return self._grouped(subject, subject.cells_of.format(rows=rows), {**columns, **self.counts_of_cells})

    def _grouped(self, subject: "Subject", source: str, named: Mapping[str, str]) -> str:
        columns = ", ".join(f"{of} AS {name}" for name, of in named.items())
        return f"""
            SELECT {subject.key} AS entity_id, e.day, {columns}
            FROM {source}
            GROUP BY {", ".join(str(n) for n in range(1, len(self.columns) + 3))}
            """  # noqa: S608 - put together from this module's constants


COUNT_VIEWS = {
    "views": "count(*)",
    "views_authenticated": "count(*) FILTER (WHERE e.authenticated)",
}
ADD_VIEWS = {"views": "sum(views)", "views_authenticated": "sum(views_authenticated)"}
VIEWS = ("kind.outcome = 'counted'",)
AT_LEAST_ONCE = {"authenticated": "bool_or(e.authenticated)"}
# Few numbers, which stand for what four breakdowns are of: one look at the events for all of these
KINDS = Cells("kinds", {"kind_id": "e.kind_id"}, (), (), COUNT_VIEWS, ADD_VIEWS)
REFERRERS = Cells(
    "referrers",
    {"referrer_domain": "e.referrer_domain"},
    VIEWS,
    ("e.referrer_domain IS NOT NULL",),
    COUNT_VIEWS,
    ADD_VIEWS,
)
HOURS = Cells(
    "hours", {"hour": "date_bin('1 hour', e.occurred_at, 'epoch')"}, VIEWS, (), COUNT_VIEWS, ADD_VIEWS
)
VIEWERS = Cells(
    "viewers", {"visitor": "e.visitor"}, VIEWS, ("e.visitor IS NOT NULL",), AT_LEAST_ONCE, AT_LEAST_ONCE
)
EVERY_CELL = (KINDS, REFERRERS, VIEWERS)
RUN = 100  # visitors in a row of `seen_runs`: one that needs no place outside of its table


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose events are counted under which key: each entity's own, or all pages' under the site's."""

    key: str
    events: str  # FROM {rows}, which are all events, AS e
    dimensions: tuple[str, ...]
    of_kinds: tuple[str, ...] = ()  # whose events: conditions on their `kind`
    cells_of: str = "{rows} AS e"  # FROM {rows}, which are the cells of each entity

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
    "{rows} AS e",
    SITE_DIMENSIONS,
    of_kinds=("kind.entity_type = 'page'",),
    cells_of="{rows} AS e JOIN entities AS page ON page.id = e.entity_id AND page.entity_type = 'page'",
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
        if all(after < 0 for after in self.raw.values()):
            return "LEFT JOIN (SELECT * FROM seen_visitors WHERE false) AS s ON false"
        # One at a time by the indexes, whatever the planner believes: of a day that has just begun it knows
        # nothing, and may then go through all of them for each (no join can be seen through bool_or)
        return """LEFT JOIN LATERAL (
            SELECT bool_or(authenticated) AS authenticated FROM (
                SELECT authenticated FROM seen_visitors AS s
                WHERE s.day = e.day AND s.entity_id = {key} AND s.visitor = e.visitor
                UNION ALL
                SELECT run.authenticated[array_position(run.visitors, e.visitor)] FROM (
                    SELECT * FROM seen_runs AS s
                    WHERE s.day = e.day AND s.entity_id = {key} AND s.first <= e.visitor
                    ORDER BY s.first DESC LIMIT 1
                ) AS run WHERE e.visitor = ANY(run.visitors)
            ) AS s
        ) AS s ON true"""


def figures(subject: Subject, seam: Seam) -> TextClause:
    """One row a subject and day with all figures of the seam's raw events; viewers who are in the daily
    rows already are not counted again.

    Parameters: the seam's, and `entity_id` for one entity or the site.
    """
    cells = {each.name: each.counted(subject, "raw") for each in subject.cells}
    of_viewers = f"(SELECT e.*, s.authenticated AS seen FROM viewers AS e {seam.seen}) AS e"  # noqa: S608
    slices = [*_slices(subject.dimensions, ""), audience_of_viewers(of_viewers.format(key="e.entity_id"))]
    return text(_with({"raw": seam.events, **cells}) + _assembled(slices))


def viewers_of_all(seam: Seam) -> TextClause:
    """Who viewed each entity, and the site: one row a viewer and day, whether signed in (`authenticated`),
    and the same of the daily rows (`seen`), NULL when they do not count the viewer.

    Parameters: the seam's, and `entity_id` for the site.
    """
    cells = {
        "raw": seam.events,
        "viewers": VIEWERS.counted(EACH_ENTITY, "raw"),
        "site_viewers": VIEWERS.counted_again(THE_SITE, "viewers"),
    }
    return text(
        f"""{_with(cells)}
        SELECT e.entity_id, e.day, e.visitor, e.authenticated, s.authenticated AS seen
        FROM (SELECT * FROM viewers UNION ALL SELECT * FROM site_viewers) AS e
        {seam.seen.format(key="e.entity_id")}
        """  # noqa: S608 - put together from this module's constants
    )


def runs_of_all(seam: Seam) -> TextClause:
    """Who viewed each entity, and the site, as rows of `seen_runs`; nobody is looked for in daily rows.

    Parameters: the seam's, and `entity_id` for the site.
    """
    runs = (
        f"""
        SELECT entity_id, day, visitors[n] AS first, visitors[n : n + {RUN - 1}] AS visitors,
            authenticated[n : n + {RUN - 1}] AS authenticated
        FROM (
            SELECT entity_id, day, array_agg(visitor ORDER BY visitor) AS visitors,
                array_agg(authenticated ORDER BY visitor) AS authenticated
            FROM ({VIEWERS.counted(subject, "raw")}) AS viewers GROUP BY entity_id, day
        ) AS whole CROSS JOIN generate_series(1, cardinality(visitors), {RUN}) AS n
        """  # noqa: S608 - put together from this module's constants
        for subject in (EACH_ENTITY, THE_SITE)
    )
    return text(_with({"raw": seam.events}) + " UNION ALL ".join(runs))


def figures_of_all(seam: Seam, audience: str) -> TextClause:
    """`figures` of each entity and of the site together; `audience` is a slice with their viewers.

    Parameters: the seam's, and `entity_id` for the site.
    """
    shared = [each for each in EACH_ENTITY.cells if each is not VIEWERS]
    cells = {each.name: each.counted(EACH_ENTITY, "raw") for each in shared}
    of_site = {f"site_{each.name}": each.counted_again(THE_SITE, each.name) for each in shared}
    of_site["site_hours"] = HOURS.counted(THE_SITE, "raw")
    slices = [*_slices(EACH_ENTITY.dimensions, ""), *_slices(THE_SITE.dimensions, "site_"), audience]
    return text(_with({"raw": seam.events, **cells, **of_site}) + _assembled(slices))


def _with(queries: Mapping[str, str]) -> str:
    # the events are read again for each kind of cells: cheaper than keeping them, and done in parallel
    named = (
        f"{name} AS {'NOT ' if name == 'raw' else ''}MATERIALIZED ({query})"
        for name, query in queries.items()
    )
    return f"WITH {', '.join(named)}"


def _assembled(slices: Sequence[str]) -> str:
    """The figures from slices: grouped once, with nothing to join. The planner knows nothing of how many
    cells there are, and of the ways to join them some take hours.
    """
    counts = {name: _sum("views", f"part = '{outcome}'") for name, outcome in OUTCOME_COUNTS.items()} | {
        "views_authenticated": _sum("views_authenticated", "part = 'counted'"),
        "unique_viewers": _sum("views", "part = 'viewers'"),
        "unique_viewers_authenticated": _sum("views_authenticated", "part = 'viewers'"),
    }
    breakdowns = (
        f"coalesce((array_agg(by_value{audience}) FILTER (WHERE part = '{name}'))[1], '{{}}')"
        f" AS views_by_{name}{audience}"
        for audience in AUDIENCES
        for name in SITE_DIMENSIONS
    )
    return f"""
    SELECT entity_id, day, {", ".join(f"{counts[name]} AS {name}" for name in COUNTS)},
        {", ".join(breakdowns)}
    FROM ({" UNION ALL ".join(slices)}) AS slices
    GROUP BY entity_id, day
    """  # noqa: S608


def _sum(column: str, condition: str) -> str:
    return f"CAST(coalesce(sum({column}) FILTER (WHERE {condition}), 0) AS bigint)"


def _slices(dimensions: Sequence[str], of: str) -> Iterator[str]:
    """Views by outcome, and of each dimension the views by its values, from the cells whose names begin
    with `of`.
    """
    added = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in ADD_VIEWS)
    yield f"""
        SELECT entity_id, day, kind.outcome AS part, {added},
            {", ".join(f"CAST(NULL AS jsonb) AS by_value{audience}" for audience in AUDIENCES)}
        FROM {of}kinds JOIN event_kinds AS kind ON kind.id = kind_id GROUP BY entity_id, day, kind.outcome
        """  # noqa: S608
    # put together here, where there is one dimension: of all at once, each row would be looked at for each
    by_value = ", ".join(
        f"jsonb_object_agg(value, views{audience}) FILTER (WHERE views{audience} > 0) AS by_value{audience}"
        for audience in AUDIENCES
    )
    for name in dimensions:
        cells, value = SLICES[name]
        views = f"SELECT entity_id, day, {value} AS value"
        if cells == KINDS.name:
            views += f""", {added} FROM {of}{cells}
                JOIN event_kinds AS kind ON kind.id = kind_id AND kind.outcome = 'counted'
                GROUP BY entity_id, day, {value}"""  # noqa: S608
        else:
            views += f", {', '.join(ADD_VIEWS)} FROM {of}{cells}"  # noqa: S608
        yield f"""
        SELECT entity_id, day, '{name}' AS part, CAST(NULL AS bigint) AS views,
            CAST(NULL AS bigint) AS views_authenticated, {by_value}
        FROM ({views}) AS views GROUP BY entity_id, day
        """  # noqa: S608


AUDIENCE = """
    SELECT e.entity_id, e.day, 'viewers' AS part, {everybody} AS views, {signed_in} AS views_authenticated,
        CAST(NULL AS jsonb) AS by_value, CAST(NULL AS jsonb) AS by_value_authenticated
    FROM {viewers} GROUP BY e.entity_id, e.day
    """


def audience_of_viewers(viewers: str) -> str:
    """The viewers that the daily rows do not count yet, `seen` by them or not, as a slice."""
    return AUDIENCE.format(
        everybody="count(*) FILTER (WHERE seen IS NULL)",
        signed_in="count(*) FILTER (WHERE e.authenticated AND seen IS NOT TRUE)",
        viewers=viewers,
    )


def audience_of_runs(runs: str) -> str:
    """The viewers of a table of `runs_of_all`, as a slice."""
    return AUDIENCE.format(
        everybody="CAST(sum(cardinality(visitors)) AS bigint)",
        signed_in="CAST(sum(cardinality(array_positions(authenticated, true))) AS bigint)",
        viewers=f"{runs} AS e",
    )
