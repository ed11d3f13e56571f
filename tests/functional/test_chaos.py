"""A short run of what harms everything (tests/chaos), and whether its verdict finds what it is for."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from footfall.clock import utc_now
from footfall.ids import uuid7
from tests.chaos.traffic import Reading, Seen
from tests.chaos.verdict import Stored, Verdict, compare, database_spans

IDS = [uuid7(utc_now()) for _ in range(4)]
ROWS = [Stored(event_id, "counted") for event_id in IDS[:3]]
SEEN = Seen(
    sent=set(IDS),
    answered=dict.fromkeys(IDS[:2], "counted"),
    readings=[Reading("book", 1.0, 1.1, 5), Reading("book", 1.2, 1.3, 5), Reading("story", 1.4, 1.5, 2)],
)


def test_a_minute_of_chaos_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    words = ["--seed", "1", "--minutes", "1", "--json", str(summary)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words],
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(summary.read_text())
    assert found["good"]
    assert (found["lost"], found["doubled"], found["strangers"]) == (0, 0, 0)
    assert found["answered"] > 500
    assert sum(found["faults"].values()) > 8
    assert found["readings"] > 50
    assert found["days"] >= 2


def test_what_was_not_answered_may_be_there_or_not() -> None:
    verdict = judged(SEEN, ROWS)
    assert verdict.is_good
    assert (verdict.sent, verdict.answered, verdict.stored, verdict.stored_unanswered) == (4, 2, 3, 1)


@pytest.mark.parametrize(
    ("seen", "rows", "problem"),
    [
        (SEEN, ROWS[1:], "lost"),
        (SEEN, [*ROWS, ROWS[0]], "doubled"),
        (SEEN, [*ROWS, Stored(uuid7(utc_now()), "counted")], "strangers"),
        (SEEN, [replace(ROWS[0], outcome="repeat"), *ROWS[1:]], "outcomes_differ"),
        (replace(SEEN, readings=[*SEEN.readings, Reading("book", 2.0, 2.1, 4)]), ROWS, "falls"),
        (replace(SEEN, unexpected=["/api/views: 500"]), ROWS, "/api/views"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_promise_is_found(seen: Seen, rows: list[Stored], problem: str) -> None:
    verdict = judged(seen, rows)
    assert not verdict.is_good
    assert [each.partition(":")[0] for each in verdict.problems] == [problem]


def test_a_count_of_the_database_may_be_lower() -> None:
    seen = replace(
        SEEN, readings=[*SEEN.readings, Reading("book", 2.0, 2.1, 4), Reading("book", 9.0, 9.1, 5)]
    )
    verdict = judged(seen, ROWS, [(1.9, 2.2)])
    assert verdict.is_good
    assert verdict.readings_of_the_database == 1


def test_counts_are_the_databases_from_ten_seconds_after_redis_went_away_until_it_or_a_new_api_is_back() -> (
    None
):
    away = "1970-01-01T00:00:{:02} WARNING footfall.breaker: Redis is {}"
    log = "\n".join(
        away.format(second, what).replace(" WARNING", "Z WARNING")
        for second, what in [(1, "away"), (5, "back"), (10, "away"), (30, "back"), (31, "away")]
    )
    assert database_spans(log, [], 59.0) == [(19.0, 31.0), (40.0, 60.0)]
    assert database_spans(log, [25.0, 35.0], 59.0) == [(19.0, 26.0)]


def judged(seen: Seen, rows: list[Stored], away: list[tuple[float, float]] | None = None) -> Verdict:
    verdict = Verdict(seed=1, minutes=1.0)
    compare(verdict, replace(seen, statuses=Counter(seen.statuses)), rows, away or [])
    return verdict
