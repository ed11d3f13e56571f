"""What every number means, once. The rollup, the readers and whoever comes later use these statements.

- *view*: an event with the outcome `counted`.
- *unique viewers*: the distinct visitors of an entity's views on one day. Over several days their sum is
  called `visitor_days`, because a visitor's key changes every day and nobody is recognised the day after.
- *authenticated*: the same of signed-in viewers.
- the *site*: its views are the views of pages, its visitors the distinct visitors of all of them.
"""

from sqlalchemy import bindparam, text
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
BREAKDOWNS = tuple(
    f"views_by_{dimension}{audience}" for audience in ("", "_authenticated") for dimension in DIMENSIONS
)
FIGURES = (*COUNTS, *BREAKDOWNS)
FIGURE_COLUMNS = ", ".join(FIGURES)

# Whose events are counted under which key: each entity's own, or all pages' under the site's
EACH_ENTITY = "SELECT e.entity_id AS subject, e.* FROM view_events AS e WHERE e.day = ANY(:days)"
ONE_ENTITY = f"{EACH_ENTITY} AND e.entity_id = :entity_id"
THE_SITE = """
    SELECT CAST(:entity_id AS integer) AS subject, e.*
    FROM view_events AS e JOIN entities AS page ON page.id = e.entity_id AND page.entity_type = 'page'
    WHERE e.day = ANY(:days)
"""


def figures(events: str) -> TextClause:
    """One row a subject and day with all figures, counted from raw events.

    Parameters: `days` (list of dates) and, for one entity or the site, `entity_id`. The grouping sets count
    every dimension in one pass; GROUPING() tells by its bits which of them a row belongs to.
    """
    statement = f"""
    WITH events AS ({events}),
    totals AS (
        SELECT subject, day,
            count(*) FILTER (WHERE outcome = 'counted') AS views,
            count(DISTINCT visitor) FILTER (WHERE outcome = 'counted') AS unique_viewers,
            count(*) FILTER (WHERE outcome = 'counted' AND authenticated) AS views_authenticated,
            count(DISTINCT visitor) FILTER (WHERE outcome = 'counted' AND authenticated)
                AS unique_viewers_authenticated,
            count(*) FILTER (WHERE outcome = 'bot') AS bots,
            count(*) FILTER (WHERE outcome = 'own') AS own_views,
            count(*) FILTER (WHERE outcome = 'repeat') AS repeats
        FROM events
        GROUP BY subject, day
    ),
    slices AS (
        SELECT subject, day,
            CASE GROUPING(known_country, device, view_type, view_source, referrer_domain)
                WHEN 15 THEN 'country' WHEN 23 THEN 'device' WHEN 27 THEN 'type'
                WHEN 29 THEN 'source' ELSE 'referrer' END AS dimension,
            coalesce(known_country, device, view_type, view_source, referrer_domain) AS value,
            count(*) AS views,
            count(*) FILTER (WHERE authenticated) AS views_authenticated
        FROM (
            SELECT *, coalesce(country, '{UNKNOWN_COUNTRY}') AS known_country
            FROM events WHERE outcome = 'counted'
        ) AS views
        GROUP BY subject, day, GROUPING SETS
            ((known_country), (device), (view_type), (view_source), (referrer_domain))
    ),
    breakdowns AS (
        SELECT subject, day, {", ".join(_breakdown_columns())}
        FROM slices
        WHERE value IS NOT NULL -- a view without a referrer has none to be counted under
        GROUP BY subject, day
    )
    SELECT subject AS entity_id, day, {", ".join(COUNTS)},
        {", ".join(f"coalesce({name}, '{{}}') AS {name}" for name in BREAKDOWNS)}
    FROM totals LEFT JOIN breakdowns USING (subject, day)
    """  # noqa: S608 - put together from this module's constants
    return text(statement).bindparams(bindparam("days", type_=ARRAY(Date)))


def _breakdown_columns() -> list[str]:
    return [
        f"jsonb_object_agg(value, views{audience})"
        f" FILTER (WHERE dimension = '{dimension}' AND views{audience} > 0)"
        f" AS views_by_{dimension}{audience}"
        for audience in ("", "_authenticated")
        for dimension in DIMENSIONS
    ]


# A day is clean when its daily rows were computed from the version that its raw rows have now.
CLEAN_DAYS = text("""
    SELECT day FROM event_days JOIN rollup_days USING (day, version) WHERE day = ANY(:days)
""").bindparams(bindparam("days", type_=ARRAY(Date)))
