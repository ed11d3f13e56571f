"""The audit: whether everything that is stored says the same.

Daily rows are computed once more from the raw events that they hold, counters are added up, shown counts and
the ledger are compared with what was written. Views may come in meanwhile: what is on its way is no
difference. Nothing is repaired but shown counts that are behind, which are raised.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, text
from sqlalchemy.sql.elements import TextClause

from footfall import counts, dead_letters, entities, ledger, stream
from footfall.clock import days_back, site_day
from footfall.database import read_snapshot
from footfall.definitions import EACH_ENTITY, FIGURE_COLUMNS, THE_SITE, Seam, Subject, figures
from footfall.entities import Name
from footfall.schema import Audit, DailyStats, EventDay, RollupDay, ViewCounter
from footfall.settings import Settings
from footfall.stream import Counts

log = logging.getLogger(__name__)

MOST = 20  # differences that are named; the others are counted
KEPT = timedelta(days=30)  # audits
WRITTEN_SECONDS = 30.0  # for what is queued to be written; a tick takes a second
POLL_SECONDS = 0.1
LOOKS = 5  # at a day that is being written to
UNWRITTEN = "views are queued and nobody writes them"

# A large day takes longer to compute than a writer's statement may
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '15min'")
# No day is dropped while it is looked at: a snapshot keeps rows, not tables. A lock that only dropping waits
# for, and taken first, before there is a snapshot.
HOLD_DAYS = text("LOCK TABLE view_events IN ACCESS SHARE MODE")

# {figures} of the events, beside the rows that are stored of the same day. Rows are compared as a whole;
# figure by figure only those that differ.
DAILY_ROWS = """
    WITH recomputed AS ({figures}),
    stored AS (
        SELECT entity_id, day, {columns} FROM daily_stats
        WHERE day = :day_0 AND (entity_id = :entity_id) = :is_site
    ),
    different AS (
        SELECT entity_id, to_jsonb(stored) AS stored, to_jsonb(recomputed) AS recomputed
        FROM stored FULL JOIN recomputed USING (entity_id)
        WHERE (stored.*) IS DISTINCT FROM (recomputed.*)
    )
    SELECT entity_type, external_id, figure.*, count(*) OVER () AS found
    FROM different LEFT JOIN entities ON entities.id = entity_id
    CROSS JOIN LATERAL (
        SELECT 'row' AS figure, different.stored -> 'views' AS stored,
            different.recomputed -> 'views' AS recomputed
        WHERE different.stored IS NULL OR different.recomputed IS NULL
        UNION ALL
        SELECT key, of_row.value, of_events.value
        FROM jsonb_each(different.stored) AS of_row
        JOIN jsonb_each(different.recomputed) AS of_events USING (key)
        WHERE of_row.value <> of_events.value
    ) AS figure
    ORDER BY entity_type, external_id, figure
    LIMIT :most
"""
COUNTERS = text("""
    WITH raw AS (
        SELECT entity_id, view_type, count(*) AS views
        FROM view_events JOIN event_kinds AS kind ON kind.id = kind_id AND outcome = 'counted'
        GROUP BY entity_id, view_type
    )
    SELECT entity_type, external_id, view_type AS figure, c.count AS stored,
        coalesce(c.sealed, 0) + coalesce(raw.views, 0) AS recomputed, count(*) OVER () AS found
    FROM view_counters AS c FULL JOIN raw USING (entity_id, view_type)
    LEFT JOIN entities ON entities.id = entity_id
    WHERE c.count IS DISTINCT FROM coalesce(c.sealed, 0) + coalesce(raw.views, 0)
    ORDER BY entity_type, external_id, view_type
    LIMIT :most
""")

Where = Literal["daily row", "counter", "shown count", "ledger"]
Tell = Callable[[str], object]
Line = Mapping[str, Any]  # of the ledger


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that is not what it should be. None: there is no such row."""

    where: Where
    figure: str
    stored: Any
    recomputed: Any
    day: date | None = None
    entity_type: str | None = None
    entity_id: str | None = None


@dataclass(slots=True)
class Verdict:
    """What was looked at, and the differences: how many, and the first of them."""

    audited_at: datetime
    days: list[date] = field(default_factory=list)  # whose daily rows were compared
    looked_at: dict[Where, int] = field(default_factory=dict)  # how many
    not_looked_at: list[str] = field(default_factory=list)  # and why
    found: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs of what was looked at."""
        return self.found == 0

    def add(self, differences: Sequence[Difference], found: int | None = None) -> None:
        """Note differences; `found` says how many there are if these are only the first."""
        self.found += len(differences) if found is None else found
        self.differences += differences[: MOST - len(self.differences)]

    def as_json(self) -> dict[str, Any]:
        """All of it, days and moments as texts."""
        return {
            "ok": self.ok,
            "audited_at": self.audited_at.isoformat(),
            "days": [day.isoformat() for day in self.days],
            "looked_at": self.looked_at,
            "not_looked_at": self.not_looked_at,
            "found": self.found,
            "differences": [_as_json(each) for each in self.differences],
        }


def audit(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    now: datetime,
    *,
    lower_shown: bool = False,
    tell: Tell = lambda _: None,
) -> Verdict:
    """Compare everything and keep the verdict. Commits. May be called at any time, by several at once.

    `lower_shown` lowers the shown counts that are above; answers fall then. `tell` is told what comes next.
    """
    verdict = Verdict(now)
    with read_snapshot(engine) as connection:
        connection.execute(STATEMENT_TIMEOUT)
        connection.execute(HOLD_DAYS)
        _daily_rows(connection, verdict, tell)
        tell("counters")
        _counters(connection, verdict)
    try:
        tell("shown counts")
        _shown_counts(engine, redis, verdict, lower_shown)
        tell("ledger")
        _ledger(engine, redis, settings, verdict)
    except RedisError:
        verdict.not_looked_at.append("shown counts and ledger: Redis does not answer; check REDIS_URL")
    with engine.begin() as connection:
        _keep(connection, verdict)
    level = logging.INFO if verdict.ok else logging.WARNING
    log.log(level, "audited", extra={"found": verdict.found, "not_looked_at": len(verdict.not_looked_at)})
    return verdict


def last(connection: Connection) -> Row[datetime, int, bool] | None:
    """The latest audit: when, how many differences, ok."""
    query = select(Audit.audited_at, Audit.found, Audit.ok).order_by(Audit.id.desc()).limit(1)
    return connection.execute(query).one_or_none()


def _keep(connection: Connection, verdict: Verdict) -> None:
    connection.execute(delete(Audit).where(Audit.audited_at < verdict.audited_at - KEPT))
    kept = {name: getattr(verdict, name) for name in ("audited_at", "days", "not_looked_at", "found", "ok")}
    differences = [_as_json(each) for each in verdict.differences]
    connection.execute(insert(Audit).values(**kept, differences=differences))


def _as_json(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {"day": difference.day.isoformat() if difference.day else None}


def _daily_rows(connection: Connection, verdict: Verdict, tell: Tell) -> None:
    """Each raw day's rows beside what the events up to the rows' version give."""
    site_id = entities.site(connection).id
    verdict.looked_at["daily row"] = 0
    days = connection.execute(
        select(EventDay.day, EventDay.removed_at_version, RollupDay.version)
        .join(RollupDay, RollupDay.day == EventDay.day)
        .where(EventDay.sealed_at.is_(None))
        .order_by(EventDay.day)
    )
    for day, removed_at_version, version in days.all():
        if version < removed_at_version:
            # nobody reads these rows until then
            verdict.not_looked_at.append(f"{day}: events were removed, and it is to be rolled up again")
            continue
        tell(str(day))
        seam = Seam(rolled=(), raw={day: -1}, until={day: version})
        for subject in (EACH_ENTITY, THE_SITE):
            parameters = {"entity_id": site_id, "is_site": subject is THE_SITE, "most": MOST}
            rows = connection.execute(_rows_that_differ(subject, seam), {**seam.parameters, **parameters})
            _add_rows(verdict, "daily row", rows, day)
        verdict.days.append(day)
        rows_of_day = select(func.count()).where(DailyStats.day == day)
        verdict.looked_at["daily row"] += connection.scalar(rows_of_day) or 0


def _rows_that_differ(subject: Subject, seam: Seam) -> TextClause:
    return text(DAILY_ROWS.format(figures=figures(subject, seam).text, columns=FIGURE_COLUMNS))


def _counters(connection: Connection, verdict: Verdict) -> None:
    """Each counter beside what was sealed of it and the raw rows' views."""
    _add_rows(verdict, "counter", connection.execute(COUNTERS, {"most": MOST}))
    verdict.looked_at["counter"] = connection.scalar(select(func.count()).select_from(ViewCounter)) or 0


def _add_rows(verdict: Verdict, where: Where, rows: Iterable[Row[Any]], day: date | None = None) -> None:
    found = list(rows)
    differences = [
        Difference(where, row.figure, row.stored, row.recomputed, day, row.entity_type, row.external_id)
        for row in found
    ]
    verdict.add(differences, found[0].found if found else 0)


def _shown_counts(engine: Engine, redis: Redis, verdict: Verdict, lower_shown: bool) -> None:
    """What is shown beside the counters. What seems to differ is looked at again when it is written."""
    counts.raise_behind(engine, redis)  # what is known to be behind, as every tick does
    verdict.looked_at["shown count"] = 0
    suspects: set[Name] = set()
    for names in counts.names_shown(redis):
        shown = counts.shown_of(redis, names)
        with engine.connect() as connection:
            stored = counts.stored(connection, shown)
        suspects |= {name for name in shown if shown[name] != stored[name]}
        verdict.looked_at["shown count"] += len(shown)
    if suspects:
        _compare_shown(engine, redis, verdict, sorted(suspects), lower_shown)


def _compare_shown(
    engine: Engine, redis: Redis, verdict: Verdict, names: Sequence[Name], lower_shown: bool
) -> None:
    """Read in this order, views that come meanwhile make no difference: what was shown before stands in
    the counters that are read when it is written, and what stands in those is shown when that is done.
    """
    before = counts.shown_of(redis, names)
    is_written = _is_written(redis)
    stored, parked = _counted(engine, names)
    if not (is_written and _is_written(redis)):
        verdict.not_looked_at.append(f"shown counts of {len(names)} entities: {UNWRITTEN}")
        return
    after = _shown_when_raised(engine, redis, stored)
    above: dict[Name, dict[str, int]] = {}
    behind: set[Name] = set()
    for name in before.keys() & stored.keys() & after.keys():
        for view_type in sorted(before[name].keys() | stored[name].keys()):
            counted = stored[name].get(view_type, 0)
            was, now = (shown[name].get(view_type, 0) for shown in (before, after))
            # what was taken and could not be stored was shown, too
            most = counted + parked[name].get(view_type, 0)
            if was > most:
                above.setdefault(name, {})[view_type] = was - most
                verdict.add([Difference("shown count", view_type, was, most, None, *name)])
            elif now < counted:
                behind.add(name)
                verdict.add([Difference("shown count", view_type, now, counted, None, *name)])
    if lower_shown:
        counts.lower(redis, above)
    counts.raise_stored(engine, redis, behind | above.keys())


def _shown_when_raised(engine: Engine, redis: Redis, stored: Mapping[Name, Counts]) -> dict[Name, Counts]:
    """What is shown of `stored` once it was raised to that, if somebody is about to do so."""
    for look in range(1, LOOKS + 1):
        counts.raise_noted(engine, redis)
        shown = counts.shown_of(redis, list(stored))
        if look == LOOKS or not any(Counter(stored[name]) - Counter(shown[name]) for name in shown):
            return shown
        time.sleep(POLL_SECONDS)
    raise AssertionError("unreachable")


def _counted(engine: Engine, names: Collection[Name]) -> tuple[dict[Name, Counts], dict[Name, Counts]]:
    """Of `names` that are not deleted: the counters, and the views among the dead letters."""
    with read_snapshot(engine) as connection:
        deleted = entities.deleted(connection, names)
        living = set(names) - deleted  # of a deleted one the writer takes away what a late view leaves
        return counts.stored(connection, living), dead_letters.views_of(connection, living)


def _ledger(engine: Engine, redis: Redis, settings: Settings, verdict: Verdict) -> None:
    """Each closed day. Some of them still get events: one that does not balance is looked at again."""

    def lines(days: Iterable[date]) -> dict[date, Line]:
        with read_snapshot(engine) as connection:
            found = ledger.ledger(connection, redis, list(days), verdict.audited_at, settings.time_zone)
        return {date.fromisoformat(line["date"]): line for line in found}

    today = site_day(verdict.audited_at, settings.time_zone)
    closed = lines(days_back(today, settings.daily_retention_days)[:-1])
    unknown = [day for day, line in closed.items() if _is_unknown(line)]
    if unknown:
        verdict.not_looked_at.append(f"ledger of {_spoken(unknown)}: Redis is newer than these days")
    closed = {day: line for day, line in closed.items() if day not in unknown}
    verdict.looked_at["ledger"] = len(closed)
    suspects = _unbalanced(closed)
    for _ in range(LOOKS):
        if not suspects:
            return
        before = lines(suspects)
        if not _is_written(redis):
            verdict.not_looked_at.append(f"ledger of {_spoken(suspects)}: {UNWRITTEN}")
            return
        suspects, after = lines(suspects), lines(suspects)
        found = {day: _out_of_balance(day, before[day], suspects[day], after[day]) for day in suspects}
        for differences in found.values():
            verdict.add(differences)
        suspects = _unbalanced({day: line for day, line in suspects.items() if not found[day]})
    if suspects:
        verdict.not_looked_at.append(f"ledger of {_spoken(suspects)}: new events came at every look")


def _is_unknown(line: Line) -> bool:
    """Whether Redis has never heard of a day that has rows: it was replaced, or a backup was restored."""
    return bool(line["accepted"] == line["settled"] == 0 and sum(line["rows"].values()))


def _unbalanced(lines: Mapping[date, Line]) -> dict[date, Line]:
    return {day: line for day, line in lines.items() if not line["balanced"]}


def _out_of_balance(day: date, before: Line, line: Line, after: Line) -> list[Difference]:
    """What no event that is on its way explains. All that was accepted `before` has been written by the
    time of `line`, and all that is written by then was accepted by the time of `after`.
    """
    accepted, settled = line["accepted"], line["settled"]
    accounted = sum(line["rows"].values()) + sum(line[name] for name in ledger.LOST_WITH_THE_ROW)
    found = []
    if before["accepted"] > settled or settled > after["accepted"]:
        found.append(Difference("ledger", "accepted", accepted, settled, day))
    if settled > accounted or accounted > after["accepted"]:
        found.append(Difference("ledger", "settled", settled, accounted, day))
    return found


def _is_written(redis: Redis) -> bool:
    """Whether all that is queued now is written, after waiting for it for a while."""
    until = stream.last_id(redis)
    for _ in range(round(WRITTEN_SECONDS / POLL_SECONDS)):
        if not stream.is_queued_until(redis, until):
            return True
        time.sleep(POLL_SECONDS)
    return not stream.is_queued_until(redis, until)


def _spoken(days: Iterable[date]) -> str:
    return ", ".join(map(str, sorted(days)))
