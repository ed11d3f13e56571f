"""Which referring domains are counted by name. Made-up ones must not make a day's rows grow without end.

A domain is known from its first view on, and a day takes only so many that are new; the views of those that
come over it are stored as referred by `OTHER`. What is stored is what everybody counts: nothing is folded
later, so a day rolled up in steps, as a whole or read raw says the same.
"""

from collections.abc import Mapping, Set
from datetime import date

from sqlalchemy import Connection, text

from footfall import copying

OTHER = "(other)"  # no domain has parentheses
NEW_PER_DAY = 1_000  # several times what a busy site sees
KEPT = 10_000  # from one day to the next, and so with a day's new ones the most that a day's row can name
MAX_CHARACTERS = 253  # of a domain; what is longer fits no index, and did not come from our edge

# Those of today: nearly always all that came. LIMIT makes it look them up one by one, however many are known
SEEN_TODAY = text("""
    SELECT seen.domain FROM unnest(CAST(:domains AS text[])) AS came (domain)
    CROSS JOIN LATERAL (
        SELECT known.domain FROM referrer_domains AS known
        WHERE known.domain = came.domain AND known.last_seen_on >= :today LIMIT 1
    ) AS seen
""")
# In the order of the key, as everything that several writers change. Of the new, those with the most views.
NOTE_SEEN = text("""
    WITH came AS (
        SELECT * FROM unnest(CAST(:domains AS text[]), CAST(:views AS int[])) AS came (domain, views)
        WHERE char_length(domain) <= :longest
    ),
    seen AS (
        SELECT domain FROM came JOIN referrer_domains USING (domain) WHERE last_seen_on < :today
    ),
    new AS (
        SELECT domain FROM came
        WHERE NOT EXISTS (SELECT FROM referrer_domains AS known WHERE known.domain = came.domain)
        ORDER BY views DESC, domain
        LIMIT (SELECT greatest(:most - count(*), 0) FROM referrer_domains WHERE first_seen_on = :today)
    )
    INSERT INTO referrer_domains AS known (domain, first_seen_on, last_seen_on)
    SELECT domain, :today, :today FROM (SELECT * FROM seen UNION ALL SELECT * FROM new) AS named
    ORDER BY domain
    ON CONFLICT (domain) DO UPDATE SET last_seen_on = excluded.last_seen_on
    WHERE known.last_seen_on < excluded.last_seen_on
""")
# Who comes every day and has done so for longest stays: a flood that goes on for weeks only drives out itself
FORGET = text("""
    DELETE FROM referrer_domains WHERE last_seen_on < :first_kept OR domain IN (
        SELECT domain FROM referrer_domains ORDER BY last_seen_on DESC, first_seen_on, domain OFFSET :kept
    )
""")


def named(connection: Connection, views: Mapping[str, int], today: date) -> Set[str]:
    """Which of the domains of a batch, {domain: its views}, are counted by name; the caller commits.

    The cap is watched, not enforced to the unit: two writers at once may each let their batch pass.
    """
    if not views:
        return set()
    came = {"domains": copying.array(views), "today": today}
    seen = set(connection.scalars(SEEN_TODAY, came))
    if len(seen) == len(views):
        return seen
    more = {"views": copying.numbers(views.values()), "most": NEW_PER_DAY, "longest": MAX_CHARACTERS}
    connection.execute(NOTE_SEEN, came | more)
    return set(connection.scalars(SEEN_TODAY, came))


def forget(connection: Connection, first_kept: date) -> None:
    """Forget the domains that no day from `first_kept` on has seen, and those that are too many."""
    connection.execute(FORGET, {"first_kept": first_kept, "kept": KEPT})
