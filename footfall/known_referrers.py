"""Which referring domains are counted by name. Made-up ones must not make a day's rows grow without end.

A domain is known from its first view on, and a day takes only so many that are new; the views of those that
come over it are stored as referred by `OTHER`. What is stored is what everybody counts: nothing is folded
later, so a day rolled up in steps, as a whole or read raw says the same.
"""

from datetime import date

from sqlalchemy import Connection, text

OTHER = "(other)"  # no domain has parentheses
NEW_PER_DAY = 1_000  # several times what a busy site sees
KEPT = 10_000  # from one day to the next, and so with a day's new ones the most that a day's row can name
MAX_CHARACTERS = 253  # of a domain; what is longer fits no index, and did not come from our edge

# Whether a batch has any that this day has not seen yet; nearly always none. Looked up one by one: OFFSET
# keeps the planner from reading all that are known for the few that came
HAS_UNSEEN = text("""
    SELECT EXISTS (
        SELECT FROM (SELECT DISTINCT referrer_domain FROM incoming WHERE referrer_domain IS NOT NULL) AS came
        LEFT JOIN LATERAL (
            SELECT last_seen_on FROM referrer_domains WHERE domain = came.referrer_domain OFFSET 0
        ) AS known ON true
        WHERE known.last_seen_on IS NULL OR known.last_seen_on < :today
    )
""")
# In the order of the key, as everything that several writers change. Of the new, those with the most views.
NOTE_SEEN = text("""
    WITH came AS (
        SELECT referrer_domain AS domain, count(*) AS views FROM incoming
        WHERE char_length(referrer_domain) <= :longest GROUP BY 1
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
FOLD = text("""
    UPDATE incoming SET referrer_domain = :other
    WHERE referrer_domain IS NOT NULL
      AND NOT EXISTS (SELECT FROM referrer_domains AS known WHERE known.domain = incoming.referrer_domain)
""")
# Who comes every day and has done so for longest stays: a flood that goes on for weeks only drives out itself
FORGET = text("""
    DELETE FROM referrer_domains WHERE last_seen_on < :first_kept OR domain IN (
        SELECT domain FROM referrer_domains ORDER BY last_seen_on DESC, first_seen_on, domain OFFSET :kept
    )
""")


def fold(connection: Connection, today: date) -> None:
    """Bring what stands in the writer's table `incoming` under the cap; the caller commits.

    The cap is watched, not enforced to the unit: two writers at once may each let their batch pass.
    """
    if connection.scalar(HAS_UNSEEN, {"today": today}):
        connection.execute(NOTE_SEEN, {"today": today, "most": NEW_PER_DAY, "longest": MAX_CHARACTERS})
        connection.execute(FOLD, {"other": OTHER})


def forget(connection: Connection, first_kept: date) -> None:
    """Forget the domains that no day from `first_kept` on has seen, and those that are too many."""
    connection.execute(FORGET, {"first_kept": first_kept, "kept": KEPT})
