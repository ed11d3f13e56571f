"""What the run comes to: the clients' knowledge beside what is stored."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.chaos.traffic import Reading, Seen

COUNTS_REFUSED_SECONDS = 10.0  # after which the database's counts are read
LOG_SECONDS = 1.0  # what the log's times leave out
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) WARNING footfall.breaker: Redis is (away|back)")
MOST_EXAMPLES = 10

Span = tuple[float, float]  # of the wall clock


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as the database has it."""

    id: UUID
    outcome: str


@dataclass(slots=True)
class Verdict:
    """The numbers of a run, and whether the promises were kept."""

    seed: int
    minutes: float
    faults: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0
    refused_answers: int = 0
    no_answers: int = 0
    stored: int = 0
    stored_unanswered: int = 0
    days: int = 0
    lost: int = 0
    doubled: int = 0
    strangers: int = 0
    dead_letters: int = 0
    outcomes_differ: int = 0
    readings: int = 0
    readings_of_the_database: int = 0
    falls: int = 0
    longest_wait_seconds: float = 0.0
    never_answered: int = 0
    rollups_of_the_closed_day: int = 0
    shown_above: int = 0
    left_out: Sequence[str] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "faults": dict(self.faults), "good": self.is_good}


def compare(verdict: Verdict, seen: Seen, rows: Sequence[Stored], away: Sequence[Span]) -> None:
    """Add to `verdict` what the clients' knowledge and the rows say of each other."""
    ids = Counter(row.id for row in rows)
    outcomes = {row.id: row.outcome for row in rows}
    verdict.sent, verdict.answered, verdict.stored = len(seen.sent), len(seen.answered), len(ids)
    verdict.refused_answers, verdict.no_answers = seen.statuses[503], seen.statuses[0]
    verdict.longest_wait_seconds = round(seen.longest_wait_seconds, 1)
    verdict.stored_unanswered = len(ids.keys() - seen.answered.keys())
    _add(verdict, "lost", seen.answered.keys() - ids.keys())
    _add(verdict, "doubled", [event_id for event_id, rows_of_it in ids.items() if rows_of_it > 1])
    _add(verdict, "strangers", ids.keys() - seen.sent)
    answered_differently = [
        f"{event_id} answered {outcome}, stored {outcomes[event_id]}"
        for event_id, outcome in seen.answered.items()
        if outcome and event_id in outcomes and outcome != outcomes[event_id]
    ]
    _add(verdict, "outcomes_differ", answered_differently)
    of_redis = [reading for reading in seen.readings if not _is_within(reading, away)]
    verdict.readings = len(of_redis)
    verdict.readings_of_the_database = len(seen.readings) - len(of_redis)
    _add(verdict, "falls", falls(of_redis))
    verdict.problems += seen.unexpected[:MOST_EXAMPLES]


def falls(readings: Iterable[Reading]) -> list[str]:
    """Readings of a count that were followed by a lower one."""
    highest: dict[str, Reading] = {}
    found = []
    for reading in readings:
        before = highest.get(reading.what)
        if before is not None and reading.count < before.count:
            times = f"{before.read_at:.3f} and {reading.read_at:.3f}"
            found.append(f"{reading.what}: {before.count}, then {reading.count}, at {times}")
        else:
            highest[reading.what] = reading
    return found


def database_spans(log: str, starts: Sequence[float], ends_at: float) -> list[Span]:
    """When counts may have been read from the database: Redis had been away for long enough by the API's log.

    An API that is killed says nothing of it; one that begins, at one of `starts`, takes Redis to be there.
    """
    found: list[Span] = []
    away_at: float | None = None
    lines = [
        (datetime.fromisoformat(match[1]).astimezone(UTC).timestamp(), match[2])
        for match in LINE.finditer(log)
    ]
    for at, what in sorted([*lines, *((start, "start") for start in starts)]):
        if away_at is not None:
            found.append((away_at, at))
        away_at = at if what == "away" else None
    if away_at is not None:
        found.append((away_at, ends_at))
    return [
        (away_at + COUNTS_REFUSED_SECONDS - LOG_SECONDS, back_at + LOG_SECONDS)
        for away_at, back_at in found
        if back_at + LOG_SECONDS > away_at + COUNTS_REFUSED_SECONDS - LOG_SECONDS
    ]


def table(verdict: Verdict) -> str:
    """The summary as people read it."""
    lines = [("faults injected", str(sum(verdict.faults.values())))]
    lines += [(f"  {kind}", str(amount)) for kind, amount in sorted(verdict.faults.items())]
    lines += [
        ("views sent", f"{verdict.sent:,}"),
        ("answered with success", f"{verdict.answered:,}"),
        ("  longest wait for it", f"{verdict.longest_wait_seconds} s"),
        ("answers 503", f"{verdict.refused_answers:,}"),
        ("tries without an answer", f"{verdict.no_answers:,}"),
        ("stored", f"{verdict.stored:,} on {verdict.days} days"),
        ("  of which nobody saw the answer", f"{verdict.stored_unanswered:,}"),
        ("lost", str(verdict.lost)),
        ("doubled", str(verdict.doubled)),
        ("stored, but never sent", str(verdict.strangers)),
        ("stored otherwise than answered", str(verdict.outcomes_differ)),
        ("dead letters", str(verdict.dead_letters)),
        ("counts read from Redis", f"{verdict.readings:,}"),
        ("  that had fallen", str(verdict.falls)),
        ("rollups of the closed day meanwhile", str(verdict.rollups_of_the_closed_day)),
        ("shown counts one too many", str(verdict.shown_above)),
    ]
    width = max(len(name) for name, _ in lines) + 2
    text = [f"{name:<{width}}{value}" for name, value in lines]
    text += [f"left out: {what}" for what in verdict.left_out]
    return "\n".join([*text, *verdict.problems])


def _add(verdict: Verdict, name: str, found: Iterable[object]) -> None:
    """So many of them, and the first of them named as problems."""
    every = sorted(map(str, found))
    setattr(verdict, name, len(every))
    verdict.problems += [f"{name}: {each}" for each in every[:MOST_EXAMPLES]]


def _is_within(reading: Reading, spans: Sequence[Span]) -> bool:
    return any(reading.read_at > start and reading.asked_at < end for start, end in spans)
