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
from sqlalchemy.types import Date, Float, Integer

from footfall.definitions import Seam

FIRST_DEPTH = 64  # rows of each day's head, at first, and how many of those found are looked at
MORE = 8
MANY = 4_000  # from here on, all are cheaper than more
EVERYBODY = 1 << 40

Ranked = Row[Any]  # id, external_id, title, views, visitor_days


@dataclass(frozen=True, slots=True)
class Figure:
    """What is ranked by, in SQL: of a daily row, where it is at most the row's views, and which events it
    counts; `view_type` is a parameter.
    """

    of_row: str
    of_events: str


VIEWS = Figure("views", "true")
VIEWS_AUTHENTICATED = Figure("views_authenticated", "e.authenticated")
VIEWS_OF_TYPE = Figure(
    "coalesce(CAST(views_by_type ->> :view_type AS bigint), 0)", "e.view_type = :view_type"
)

# Added up as float8, which is exact up to 2^53 and faster than the numeric that bigints add up to
CANDIDATES = """
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
    found AS (
        SELECT entity_id, sum(above_end) AS above_ends
        FROM (
            SELECT entity_id, heads.views - ends.views AS above_end FROM heads JOIN ends USING (day)
            UNION ALL
            SELECT * FROM unnest(:keys, :views)
        ) AS each GROUP BY entity_id
    ),
    unseen AS (SELECT coalesce(sum(views), 0) AS at_most FROM ends)
    SELECT entity_id, above_ends + unseen.at_most AS at_most, unseen.at_most AS unseen_at_most
    FROM found, unseen
    ORDER BY 2 DESC LIMIT :most + 1
"""
COUNTED = """
    SELECT e.id, e.external_id, e.title, CAST(counted.views AS bigint) AS views,
        CAST(counted.viewers AS bigint) AS visitor_days
    FROM (
        SELECT entity_id, sum(views) AS views, sum(viewers) AS viewers
        FROM (
            SELECT entity_id, CAST({of_row} AS float8) AS views, CAST(unique_viewers AS float8) AS viewers
            FROM daily_stats WHERE entity_id = ANY(:candidates) AND day = ANY(:rolled)
            UNION ALL
            SELECT * FROM unnest(:keys, :views, :viewers) AS raw (entity_id)
            WHERE entity_id = ANY(:candidates)
        ) AS parts
        GROUP BY entity_id
    ) AS counted
    JOIN entities AS e ON e.id = counted.entity_id
    WHERE counted.views > 0
    ORDER BY counted.views DESC, e.external_id LIMIT :limit
"""
# What came after the daily rows
RAW = """
    SELECT e.entity_id, count(*) AS views,
        count(DISTINCT (e.day, e.visitor))
            FILTER (WHERE e.visitor IS NOT NULL AND s.visitor IS NULL) AS viewers
    FROM ({events}) AS e
    JOIN entities AS of_type ON of_type.id = e.entity_id AND of_type.entity_type = :entity_type {seen}
    WHERE e.outcome = 'counted' AND {of_events}
    GROUP BY e.entity_id
"""
ROLLED = bindparam("rolled", type_=ARRAY(Date))
RAW_COUNTS = (
    bindparam("keys", type_=ARRAY(Integer)),
    bindparam("views", type_=ARRAY(Float)),
    bindparam("viewers", type_=ARRAY(Float)),
)


def most_viewed(
    connection: Connection,
    entity_type: str,
    days: Sequence[date],
    figure: Figure,
    limit: int,
    view_type: str | None = None,
) -> Sequence[Ranked]:
    """The entities of a type with the most of `figure` over `days`, most first, equals by external id; at
    most `limit`, and none that has nothing. From a connection in one snapshot.
    """
    seam = Seam.of(connection, days)
    asked = {"entity_type": entity_type, "view_type": view_type, "rolled": list(seam.rolled), "limit": limit}
    asked |= _raw(connection, seam, figure, asked)
    candidates = text(CANDIDATES).bindparams(ROLLED, *RAW_COUNTS[:2])
    counted = text(COUNTED.format(of_row=figure.of_row)).bindparams(ROLLED, *RAW_COUNTS)
    depth = most = max(FIRST_DEPTH, 2 * limit)
    while True:
        found = connection.execute(candidates, {**asked, "depth": depth, "most": most}).all()
        keys = [row.entity_id for row in found[:most]]
        ranked = connection.execute(counted, {**asked, "candidates": keys}).all()
        last = ranked[limit - 1].views if len(ranked) == limit else 0
        unseen = found[0].unseen_at_most if found else 0
        others = found[most].at_most if len(found) > most else unseen
        if last > others or others == 0:
            return ranked
        if last <= unseen:
            depth = _more(depth)
        else:
            most = _more(most)


def _raw(connection: Connection, seam: Seam, figure: Figure, asked: dict[str, Any]) -> dict[str, Any]:
    """What the raw events count, as three arrays of one length."""
    rows: Sequence[Row[Any]] = []
    if seam.raw:
        statement = RAW.format(
            events=seam.events, seen=seam.seen.format(key="e.entity_id"), of_events=figure.of_events
        )
        rows = connection.execute(text(statement), {**asked, **seam.parameters}).all()
    return {
        "keys": [row.entity_id for row in rows],
        "views": [row.views for row in rows],
        "viewers": [row.viewers for row in rows],
    }


def _more(n: int) -> int:
    return n * MORE if n < MANY else EVERYBODY
