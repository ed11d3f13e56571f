"""The most viewed over some days: exactly, and without adding up everybody's days.

The threshold algorithm of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware" (2001):
an index holds each day's rows in the order of their views, and only the heads of the days' lists are read.
Who stands in none of them has at most as many views as the heads' ends together; who stands in some, at most
what is seen there and the ends of the others. When as many as are asked for have more than everybody else
can have, they are the first; else the heads were too short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Date

from footfall.definitions import Seam

HEAD = 3  # rows of each day that are read at first, for every one that is asked for
DEEPER = 4  # times, when that was not enough
DEEPEST = 4_000  # from here on, reading the lists to their ends is cheaper than another try
TO_THE_ENDS = 1 << 40

Ranked = Row[Any]  # external_id, title, views, visitor_days


@dataclass(frozen=True, slots=True)
class Figure:
    """What is ranked by, in SQL: of a daily row, where it is at most the row's views, and which of the raw
    events `e` of a `kind` count; `view_type` is a parameter.
    """

    of_row: str
    of_events: str


VIEWS = Figure("views", "true")
VIEWS_AUTHENTICATED = Figure("views_authenticated", "e.authenticated")
VIEWS_OF_TYPE = Figure(
    "coalesce(CAST(views_by_type ->> :view_type AS bigint), 0)", "kind.view_type = :view_type"
)

DAYS = bindparam("rolled", type_=ARRAY(Date))
# Arrays go to and fro as text: parsing a statement with a thousand numbers takes longer than running it.
# Views are added up as float8, which is exact up to 2^53 and faster than the numeric that bigints add up to.
RAW = """
    SELECT coalesce(CAST(array_agg(entity_id) AS text), '{{}}') AS raw_keys,
        coalesce(CAST(array_agg(views) AS text), '{{}}') AS raw_views,
        coalesce(CAST(array_agg(viewers) AS text), '{{}}') AS raw_viewers
    FROM (
        SELECT e.entity_id, count(*) AS views, {viewers} AS viewers
        FROM ({events}) AS e
        JOIN event_kinds AS kind ON kind.id = e.kind_id
            AND kind.entity_type = :entity_type AND kind.outcome = 'counted' {seen}
        WHERE {of_events}
        GROUP BY e.entity_id
    ) AS counted
"""
NEW_VIEWERS = """
    count(DISTINCT (e.day, e.visitor)) FILTER (WHERE e.visitor IS NOT NULL AND s.authenticated IS NULL)
"""
# Who may have at least `at_least`, and how many nobody outside the heads has; at least one row
CANDIDATES = text("""
    WITH heads AS MATERIALIZED (
        SELECT days.day, head.entity_id, CAST(head.views AS float8) AS views
        FROM unnest(:rolled) AS days (day) CROSS JOIN LATERAL (
            SELECT entity_id, views FROM daily_stats
            WHERE day = days.day AND entity_type = :entity_type
            ORDER BY views DESC LIMIT :depth
        ) AS head
    ),
    ends AS MATERIALIZED (
        SELECT day, CASE WHEN count(*) < :depth THEN 0 ELSE min(views) END AS views FROM heads GROUP BY day
    ),
    unseen AS (SELECT coalesce(sum(views), 0) AS at_most FROM ends),
    seen AS (
        SELECT entity_id, sum(above_end) AS above_ends
        FROM (
            SELECT entity_id, heads.views - ends.views AS above_end FROM heads JOIN ends USING (day)
            UNION ALL
            SELECT * FROM unnest(CAST(:raw_keys AS integer[]), CAST(:raw_views AS float8[]))
        ) AS each
        GROUP BY entity_id
    )
    SELECT entity_id, above_ends + unseen.at_most AS at_most, unseen.at_most AS unseen_at_most
    FROM unseen LEFT JOIN seen ON above_ends + unseen.at_most >= :at_least
    ORDER BY above_ends DESC LIMIT :most
""").bindparams(DAYS)
COUNTED = """
    SELECT e.external_id, e.title, CAST(counted.views AS bigint) AS views,
        CAST(counted.viewers AS bigint) AS visitor_days
    FROM (
        SELECT entity_id, sum(views) AS views, sum(viewers) AS viewers
        FROM (
            SELECT entity_id, CAST({of_row} AS float8) AS views, CAST(unique_viewers AS float8) AS viewers
            FROM daily_stats
            WHERE entity_id = ANY(CAST(:candidates AS integer[])) AND day = ANY(:rolled)
            UNION ALL
            SELECT * FROM unnest(
                CAST(:raw_keys AS integer[]), CAST(:raw_views AS float8[]), CAST(:raw_viewers AS float8[])
            ) AS raw (entity_id)
            WHERE entity_id = ANY(CAST(:candidates AS integer[]))
        ) AS parts
        GROUP BY entity_id
    ) AS counted
    JOIN entities AS e ON e.id = counted.entity_id
    WHERE counted.views > 0
    ORDER BY counted.views DESC, e.external_id LIMIT :limit
"""


def most_viewed(
    connection: Connection,
    entity_type: str,
    days: Sequence[date],
    figure: Figure,
    limit: int,
    view_type: str | None = None,
    *,
    has_visitors: bool = False,
) -> Sequence[Ranked]:
    """The entities of a type with the most of `figure` over `days`, most first, equals by external id; at
    most `limit`, and none that has nothing. From a connection in one snapshot.

    Without `has_visitors` nobody looks at the raw events' visitors, and `visitor_days` means nothing.
    """
    seam = Seam.of(connection, days)
    asked = {"entity_type": entity_type, "view_type": view_type, "rolled": list(seam.rolled), "limit": limit}
    asked |= _raw(connection, seam, figure, asked, has_visitors)
    counted = text(COUNTED.format(of_row=figure.of_row)).bindparams(DAYS)
    depth = HEAD * limit
    needed = 1  # to be among the first, as far as is known
    while True:
        bounds = {"depth": depth, "at_least": needed, "most": depth + 1}
        found = connection.execute(CANDIDATES, {**asked, **bounds}).all()
        keys = ",".join(str(row.entity_id) for row in found[:depth] if row.entity_id is not None)
        first = connection.execute(counted, {**asked, "candidates": f"{{{keys}}}"}).all()
        needed = first[-1].views if len(first) == limit else 1
        others_at_most = found[depth].at_most if len(found) > depth else found[0].unseen_at_most
        if others_at_most < needed:
            return first
        depth = depth * DEEPER if depth < DEEPEST else TO_THE_ENDS


def _raw(
    connection: Connection, seam: Seam, figure: Figure, asked: dict[str, Any], has_visitors: bool
) -> dict[str, str]:
    """Views and viewers in the raw events: three arrays of one length."""
    statement = RAW.format(
        events=seam.events,
        of_events=figure.of_events,
        viewers=NEW_VIEWERS if has_visitors else "0",
        seen=seam.seen.format(key="e.entity_id") if has_visitors else "",
    )
    return connection.execute(text(statement), {**asked, **seam.parameters}).one()._asdict()
