"""Whether the numbers add up, day by day: accepted = settled = rows + duplicates + dead letters + erased."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, tzinfo
from typing import Any

from redis import Redis
from sqlalchemy import Connection, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.types import Date

from footfall import liveness, stream, traffic
from footfall.definitions import Seam
from footfall.schema import Tally

OUTCOMES = ("counted", "bot", "own", "repeat")
LOST_WITH_THE_ROW = ("duplicates", "dead_letters", "erased")
BEFORE = date.min  # stands for the days whose own tallies are gone

# Rows by outcome, of the daily rows and of the events that are not in them
RAW_ROWS = """
    SELECT day, outcome, count(*) AS events FROM ({events}) AS raw
    JOIN event_kinds AS kind ON kind.id = kind_id GROUP BY day, outcome
"""
DAILY_ROWS = text("""
    SELECT day, CAST(sum(views) AS bigint) AS counted, CAST(sum(bots) AS bigint) AS bot,
        CAST(sum(own_views) AS bigint) AS own, CAST(sum(repeats) AS bigint) AS repeat
    FROM daily_stats JOIN entities AS e ON e.id = entity_id AND e.entity_type <> 'site'
    WHERE day = ANY(:days) GROUP BY day
""").bindparams(bindparam("days", type_=ARRAY(Date)))
# In one statement, so that every reader finds the tallies either here or there
DROP_TALLIES = text("""
    WITH gone AS (DELETE FROM tallies WHERE day < :first AND day > :before RETURNING name, amount)
    INSERT INTO tallies AS kept (day, name, amount)
    SELECT :before, name, CAST(sum(amount) AS bigint) FROM gone GROUP BY name
    ON CONFLICT (day, name) DO UPDATE SET amount = kept.amount + excluded.amount
""")


def ledger(
    connection: Connection, redis: Redis, days: Sequence[date], now: datetime, zone: tzinfo
) -> list[dict[str, Any]]:
    """A row a day of `days`, from a connection in one snapshot.

    A day that is being written to may be out by what is on its way, which `queued` tells.
    """
    tallies = _tallies(connection, redis)
    rows = _rows(connection, days)
    gaps = liveness.days_with_gap(connection, days, zone, now)
    return [_line(day, tallies, rows.get(day, Counter()), day in gaps) for day in days]


def add(connection: Connection, amounts: Mapping[tuple[date, str], int]) -> None:
    """Add to the tallies that are kept in the database: {(day, tally): amount}. The caller commits."""
    for (day, name), amount in sorted(amounts.items()):
        statement = insert(Tally).values(day=day, name=name, amount=amount)
        more = {"amount": Tally.amount + statement.excluded.amount}
        connection.execute(statement.on_conflict_do_update(index_elements=["day", "name"], set_=more))


def drop_tallies_before(connection: Connection, first_kept: date) -> None:
    """Remove the database's tallies of days before; what they add up to is kept. The caller commits."""
    connection.execute(DROP_TALLIES, {"first": first_kept, "before": BEFORE})


def totals(connection: Connection) -> dict[str, int]:
    """What the database's tallies add up to, over all days ever: {tally: amount}. It never falls."""
    query = select(Tally.name, func.sum(Tally.amount).label("amount")).group_by(Tally.name)
    return {row.name: int(row.amount) for row in connection.execute(query)}


def _line(day: date, tallies: Counter[tuple[str, str]], rows: Counter[str], gap: bool) -> dict[str, Any]:
    of_day = {name: tallies[day.isoformat(), name] for name in ("accepted", "settled", *LOST_WITH_THE_ROW)}
    refusals = {
        name.removeprefix(traffic.REFUSED): amount
        for (of, name), amount in sorted(tallies.items())
        if of == day.isoformat() and name.startswith(traffic.REFUSED)
    }
    accounted = rows.total() + sum(of_day[name] for name in LOST_WITH_THE_ROW)
    return {
        "date": day.isoformat(),
        "accepted": of_day["accepted"],
        "settled": of_day["settled"],
        "rows": {outcome: rows[outcome] for outcome in OUTCOMES},
        "duplicates": of_day["duplicates"],
        "dead_letters": of_day["dead_letters"],
        "erased": of_day["erased"],
        "queued": of_day["accepted"] - of_day["settled"],
        "refusals": refusals,
        "gap": gap,
        "balanced": of_day["accepted"] == of_day["settled"] == accounted,
    }


def _tallies(connection: Connection, redis: Redis) -> Counter[tuple[str, str]]:
    """{(day, tally): amount} of both ways in."""
    found: Counter[tuple[str, str]] = Counter()
    for name, amount in stream.ledger(redis).items():
        day, _, tally = name.partition(":")
        found[day, tally] += amount
    for row in connection.execute(select(Tally.day, Tally.name, Tally.amount)):
        found[row.day.isoformat(), row.name] += row.amount
    return found


def _rows(connection: Connection, days: Sequence[date]) -> dict[date, Counter[str]]:
    seam = Seam.of(connection, days)
    found: dict[date, Counter[str]] = {}
    for row in connection.execute(DAILY_ROWS, {"days": list(seam.rolled)}):
        found[row.day] = Counter({outcome: getattr(row, outcome) for outcome in OUTCOMES})
    for row in connection.execute(text(RAW_ROWS.format(events=seam.events)), seam.parameters):
        found.setdefault(row.day, Counter())[row.outcome] += row.events
    return found
