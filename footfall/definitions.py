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

# What is known of a subject and day comes in parts, told by their numbers: cheaper to group by than names
PARTS = {name: n for n, name in enumerate(("viewers", "outcome", *SITE_DIMENSIONS))}

# What an event is counted under
LABELS = {
    "outcome": "kind.outcome",
    "country": "kind.country",
    "device": "kind.device",
    "type": "kind.view_type",
    "source": "kind.view_source",
    "hour": """to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') || '\\:00\\:00+00\\:00'""",
}
# Integers are enough for the events of one kind and entity on a day; of those the sum is a bigint, which is
# cheap, and of bigints it would be a numeric
COUNT_VIEWS = """CAST(count(*) AS integer) AS views,
            CAST(count(*) FILTER (WHERE e.authenticated) AS integer) AS views_authenticated"""
ADD_VIEWS = "sum(views) AS views, sum(views_authenticated) AS views_authenticated"
RUN = 100  # visitors in a row of `seen_runs`: one that needs no place outside of its table


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose events are counted under which key: each entity's own, or all pages' under the site's."""

    key: str
    events: str  # FROM {rows}, which are all events, AS e
    dimensions: tuple[str, ...]
    of_kinds: tuple[str, ...] = ()  # whose events: conditions on their `kind`

    @property
    def are_views(self) -> str:
        """Whether events of a `kind` are views."""
        return " AND ".join(("kind.outcome = 'counted'", *self.of_kinds))

    def views(self, rows: str) -> str:
        """FROM those of `rows`, which are events, that are views, AS e."""
        events = self.events.format(rows=rows)
        return f"{events} JOIN event_kinds AS kind ON kind.id = e.kind_id AND {self.are_views}"


EACH_ENTITY = Subject("e.entity_id", "{rows} AS e", DIMENSIONS)
ONE_ENTITY = Subject(
    "e.entity_id", "(SELECT * FROM {rows} WHERE entity_id = :entity_id) AS e", DIMENSIONS
)  # `entity_id` is a parameter
THE_SITE = Subject(
    "CAST(:entity_id AS integer)", "{rows} AS e", SITE_DIMENSIONS, of_kinds=("kind.entity_type = 'page'",)
)
# A whole day is counted for, by the parameter that has the kinds of their views
SUBJECTS_OF_DAY = {"views": EACH_ENTITY, "page_views": THE_SITE}

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
        """A join that finds who of the viewers `e` is counted in the daily rows of their entity, as `s`; as
        signed in, of those who are now.
        """
        if all(after < 0 for after in self.raw.values()):
            return "LEFT JOIN (SELECT * FROM seen_visitors WHERE false) AS s ON false"
        # One at a time by the indexes, whatever the planner believes: of a day that has just begun it knows
        # nothing, and may then go through all of them for each (no join can be seen through bool_or)
        return """LEFT JOIN LATERAL (
            SELECT bool_or(authenticated) AS authenticated FROM (
                SELECT authenticated FROM seen_visitors AS s
                WHERE s.day = e.day AND s.entity_id = e.entity_id AND s.visitor = e.visitor
                UNION ALL
                SELECT authenticated FROM (VALUES (false), (true)) AS audience (authenticated), LATERAL (
                    SELECT visitors FROM seen_runs AS s
                    WHERE s.day = e.day AND s.entity_id = e.entity_id
                        AND s.authenticated = audience.authenticated AND s.first <= e.visitor
                    ORDER BY s.first DESC LIMIT 1
                ) AS run
                WHERE e.visitor = ANY(run.visitors) AND (e.authenticated OR NOT audience.authenticated)
            ) AS s
        ) AS s ON true"""


def figures(subject: Subject, seam: Seam) -> TextClause:
    """One row a subject and day with all figures of the seam's raw events; viewers who are in the daily
    rows already are not counted again.

    Parameters: the seam's, and `entity_id` for one entity or the site.
    """
    viewers = _with_seen(seam, _viewers(subject, "raw"))
    slices = " UNION ALL ".join([*_slices(subject, "raw"), AUDIENCE.format(viewers=f"({viewers})")])
    return text(_with_raw(seam) + figures_of(f"({slices})"))


def figures_of(slices: str) -> str:
    """The figures, as a query, from a table of slices: grouped once, with nothing to join. The planner knows
    nothing of how many slices there are, and of the ways to join them some take hours.
    """
    counts = {
        **{
            name: _sum(f"CAST(by_value ->> '{of}' AS bigint)", "outcome")
            for name, of in OUTCOME_COUNTS.items()
        },
        "views_authenticated": _sum("CAST(by_value_authenticated ->> 'counted' AS bigint)", "outcome"),
        "unique_viewers": _sum("viewers", "viewers"),
        "unique_viewers_authenticated": _sum("viewers_authenticated", "viewers"),
    }
    breakdowns = (
        f"coalesce((array_agg(by_value{audience}) FILTER (WHERE part = {PARTS[name]}))[1], '{{}}')"
        f" AS views_by_{name}{audience}"
        for audience in AUDIENCES
        for name in SITE_DIMENSIONS
    )
    return f"""
    SELECT entity_id, day, {", ".join(f"{counts[name]} AS {name}" for name in COUNTS)},
        {", ".join(breakdowns)}
    FROM {slices} AS slices GROUP BY entity_id, day
    """  # noqa: S608 - put together from this module's constants


def slices_of_day(table: str) -> TextClause:
    """All of a day's events, those of `table`, as slices of the figures of each entity and of the site. The
    viewers are a slice a row of `seen_runs`; nobody is looked for in daily rows.

    Parameters: `day`, `entity_id` for the site, and those of `kinds_of_views`: whether a number is among some
    is told faster than by a join.
    """
    rows = f"(SELECT * FROM {table} WHERE day = :day)"  # noqa: S608 - a name of `days`
    viewers, slices = [], []
    for kinds, subject in SUBJECTS_OF_DAY.items():
        views = f"(SELECT * FROM {rows} AS e WHERE kind_id = ANY(CAST(:{kinds} AS integer[]))) AS e"  # noqa: S608
        viewers.append(_runs(subject, views))
        slices += [_by_labels(subject, rows, ()), _by_referrer(subject, views, ())]
    return text(" UNION ALL ".join([*viewers, *slices]))


def kinds_of_views(connection: Connection) -> dict[str, list[int]]:
    """The ids in `event_kinds` of views, whosever: parameters of `slices_of_day`."""
    ids = "SELECT id FROM event_kinds AS kind WHERE {}"
    return {
        name: list(connection.scalars(text(ids.format(subject.are_views))))
        for name, subject in SUBJECTS_OF_DAY.items()
    }


def viewers_of_all(seam: Seam) -> TextClause:
    """Who viewed each entity, and the site: one row a viewer and day, whether signed in (`authenticated`),
    and `seen`: NULL when the daily rows do not count the viewer, else whether as signed in, of those who are.

    Parameters: the seam's, and `entity_id` for the site.
    """
    viewers = " UNION ALL ".join(f"({_viewers(subject, 'raw')})" for subject in (EACH_ENTITY, THE_SITE))
    return text(_with_raw(seam) + _with_seen(seam, viewers))


def slices_of_all(seam: Seam, viewers: str) -> TextClause:
    """The seam's raw events as slices of the figures of each entity and of the site; `viewers` is a table of
    `viewers_of_all`.

    Parameters: the seam's, and `entity_id` for the site.
    """
    slices = [*_slices(EACH_ENTITY, "raw"), *_slices(THE_SITE, "raw"), AUDIENCE.format(viewers=viewers)]
    return text(_with_raw(seam) + " UNION ALL ".join(slices))


def _with_raw(seam: Seam) -> str:
    # the events are read again for each slice: cheaper than keeping them, and done in parallel
    return f"WITH raw AS NOT MATERIALIZED ({seam.events})"


def _with_seen(seam: Seam, viewers: str) -> str:
    return f" SELECT e.*, s.authenticated AS seen FROM ({viewers}) AS e {seam.seen}"  # noqa: S608


def _sum(column: str, part: str) -> str:
    return f"CAST(coalesce(sum({column}) FILTER (WHERE part = {PARTS[part]}), 0) AS bigint)"


BY_VALUE = ", ".join(
    f"jsonb_object_agg(value, views{audience}) FILTER (WHERE views{audience} > 0) AS by_value{audience}"
    for audience in AUDIENCES
)
# The columns of a slice: a part of what is known of a subject and day, {value: views} ...
VIEWS = f"""{BY_VALUE}, CAST(NULL AS bigint) AS viewers, CAST(NULL AS bigint) AS viewers_authenticated,
        CAST(NULL AS bigint[]) AS visitors, CAST(NULL AS boolean) AS authenticated"""
# ... or some or all of the viewers that the daily rows do not count yet: how many, and perhaps who
NO_VIEWS = f"""{PARTS["viewers"]} AS part,
        CAST(NULL AS jsonb) AS by_value, CAST(NULL AS jsonb) AS by_value_authenticated"""
AUDIENCE = f"""
    SELECT entity_id, day, {NO_VIEWS}, count(*) FILTER (WHERE seen IS NULL) AS viewers,
        count(*) FILTER (WHERE authenticated AND seen IS NOT TRUE) AS viewers_authenticated,
        CAST(NULL AS bigint[]) AS visitors, CAST(NULL AS boolean) AS authenticated
    FROM {{viewers}} AS viewers GROUP BY entity_id, day
    """  # noqa: S608


def _slices(subject: Subject, rows: str) -> tuple[str, str]:
    """Slices of `rows`, which are events of any days."""
    return _by_labels(subject, rows, ("day",)), _by_referrer(subject, subject.views(rows), ("day",))


def _by_labels(subject: Subject, rows: str, days: tuple[str, ...]) -> str:
    """Slices of `rows`, which are events: how many by outcome, and the views by each dimension. `days` is the
    day's column, or nothing when all are of the day that is a parameter: then none need be told apart.
    """
    # by kind first, which leaves much less to be looked at for each label
    cells = [f"{subject.key} AS entity_id", *(f"e.{day}" for day in days), "e.kind_id"]
    if "hour" in subject.dimensions:
        cells.append("date_bin('1 hour', e.occurred_at, 'epoch') AS hour")
    labels = ", ".join(
        f"({PARTS[part]}, {value})"
        for part, value in LABELS.items()
        if part == "outcome" or part in subject.dimensions
    )
    of_kinds = " AND ".join(("kind.id = kind_id", *subject.of_kinds))
    by = ", ".join(("entity_id", *days, "part"))
    return f"""
        SELECT entity_id, {_day(days)} AS day, part, {VIEWS}
        FROM (
            SELECT {by}, value, {ADD_VIEWS}
            FROM (
                SELECT {", ".join(cells)}, {COUNT_VIEWS}
                FROM {subject.events.format(rows=rows)}
                GROUP BY {_first(len(cells))}
            ) AS cells
            JOIN event_kinds AS kind ON {of_kinds}
            CROSS JOIN LATERAL (VALUES {labels}) AS label (part, value)
            WHERE kind.outcome = 'counted' OR part = {PARTS["outcome"]}
            GROUP BY {by}, value
        ) AS by_value GROUP BY {by}
        """  # noqa: S608 - put together from this module's constants


def _by_referrer(subject: Subject, views: str, days: tuple[str, ...]) -> str:
    """Slices of `views`: how many by referring domain. One without a referrer is counted under none."""
    cells = [f"{subject.key} AS entity_id", *(f"e.{day}" for day in days), "e.referrer_domain AS value"]
    return f"""
        SELECT entity_id, {_day(days)} AS day, {PARTS["referrer"]} AS part, {VIEWS}
        FROM (
            SELECT {", ".join(cells)}, {COUNT_VIEWS}
            FROM {views} WHERE e.referrer_domain IS NOT NULL GROUP BY {_first(len(cells))}
        ) AS by_value GROUP BY {", ".join(("entity_id", *days))}
        """  # noqa: S608


def _day(days: tuple[str, ...]) -> str:
    return "day" if days else "CAST(:day AS date)"


def _first(columns: int) -> str:
    return ", ".join(str(n) for n in range(1, columns + 1))


def _viewers(subject: Subject, rows: str) -> str:
    """Who viewed, of `rows`, which are events: a row a viewer and day, in order, and whether signed in at
    least once. Most viewers are seen once: sorting them costs less than to look each up among all.
    """
    return f"""
        SELECT DISTINCT ON (1, 2, 3) {subject.key} AS entity_id, e.day, e.visitor, e.authenticated
        FROM {subject.views(rows)} WHERE e.visitor IS NOT NULL
        ORDER BY 1, 2, 3, 4 DESC
        """  # noqa: S608


def _runs(subject: Subject, views: str) -> str:
    """The viewers of one day, which is a parameter, as slices of their own: those of everybody, and those of
    who was signed in at least once.
    """
    visitors = "array_agg(DISTINCT e.visitor ORDER BY e.visitor)"
    return f"""
        SELECT entity_id, {_day(())} AS day, {NO_VIEWS},
            CASE WHEN NOT authenticated THEN CAST(cardinality(run) AS bigint) END AS viewers,
            CASE WHEN authenticated THEN CAST(cardinality(run) AS bigint) END AS viewers_authenticated,
            run AS visitors, authenticated
        FROM (
            SELECT entity_id, authenticated, visitors[n : n + {RUN - 1}] AS run
            FROM (
                SELECT {subject.key} AS entity_id, {visitors} AS everybody,
                    {visitors} FILTER (WHERE e.authenticated) AS signed_in
                FROM {views} WHERE e.visitor IS NOT NULL GROUP BY 1
            ) AS whole
            CROSS JOIN LATERAL (
                VALUES (false, everybody), (true, signed_in)
            ) AS audience (authenticated, visitors)
            CROSS JOIN generate_series(1, cardinality(visitors), {RUN}) AS n
        ) AS runs
        """  # noqa: S608
