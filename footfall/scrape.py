"""What Prometheus is told, read from the stores when it asks: the same from every process, after any restart.

A store that is away or hangs takes its own numbers with it and no others. Nothing here reads what grows with
the traffic: of large tables, sizes and rows are what PostgreSQL knows without looking.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from itertools import accumulate
from threading import Event, Lock, Thread
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from footfall import cache, ledger, rollup, salts, schema_check, stream, traffic
from footfall.clock import days_back, site_day
from footfall.countries import CountrySource
from footfall.database import read_snapshot
from footfall.metrics import Name, Sample
from footfall.schema import Base, EventDay, RollupDay
from footfall.settings import Settings
from footfall.traffic import Answered, Durations

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 3.0  # with a store; Prometheus waits for 10 s
STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = '2s'")
# It reads all daily rows of its days: of 20,000 entities some 40 ms a day when they are in memory
LEDGER_DAYS = 3  # closed ones
LEDGER_FRESH = timedelta(minutes=15)
DEAD_LETTER_REASONS = ("unreadable", "too_late", "refused")
# Shown of every endpoint from its first request on: a counter that begins with a failure hides that one
FAILURES = (500, 503)

TALLIES: Mapping[str, Name] = {
    "accepted": "footfall_events_accepted_total",
    "settled": "footfall_events_settled_total",
    "duplicates": "footfall_events_duplicates_total",
    "dead_letters": "footfall_events_dead_letters_total",
    "erased": "footfall_events_erased_total",
}
DEAD_LETTERS = text("""
    SELECT reason, count(*) AS amount
    FROM (SELECT reason FROM dead_letters LIMIT 10000) AS letters
    GROUP BY reason
""")
TABLES = text("""
    SELECT coalesce(parent.relname, own.relname) AS name,
        CAST(sum(coalesce(pg_total_relation_size(own.oid), 0)) AS bigint) AS bytes,
        CAST(sum(greatest(own.reltuples, 0)) AS bigint) AS rows
    FROM pg_class AS own
    LEFT JOIN pg_inherits ON pg_inherits.inhrelid = own.oid
    LEFT JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
    WHERE own.relkind = 'r' AND own.relnamespace = current_schema()::regnamespace
    GROUP BY 1
""")

Samples = Iterable[Sample]
Look = Callable[[datetime], Samples]


@dataclass(slots=True)
class _Report:
    """What a store has said so far."""

    questions: int
    answered: int = 0
    seconds: float = 0.0  # over the first question
    samples: list[Sample] = field(default_factory=list)
    ended: Event = field(default_factory=Event)

    def wait(self, deadline: float) -> "_Report":
        """As it is when all was asked, or at `deadline`, a moment of the monotonic clock."""
        self.ended.wait(deadline - time.monotonic())
        return self


class _Questions:
    """Asked one after the other in a thread of their own: a store that hangs costs its own answers only."""

    def __init__(self, *looks: Look) -> None:
        self._looks = looks
        self._lock = Lock()  # one at a time, however many scrapes meet a store that hangs

    def ask(self, now: datetime, patience_seconds: float) -> _Report:
        """Begin to. The first question is the simplest: a store that does not answer it is asked no other."""
        report = _Report(len(self._looks))
        Thread(target=self._ask, args=(now, patience_seconds, report), name="scrape", daemon=True).start()
        return report

    def _ask(self, now: datetime, patience_seconds: float, report: _Report) -> None:
        if self._lock.acquire(timeout=patience_seconds):
            try:
                self._look(now, report)
            finally:
                self._lock.release()
                report.ended.set()

    def _look(self, now: datetime, report: _Report) -> None:
        started = time.perf_counter()
        for look in self._looks:
            try:
                found = list(look(now))
            except (RedisError, SQLAlchemyError) as error:
                extra = {"question": look.__name__, "error": type(error).__name__}
                log.warning("a question for the metrics was not answered", extra=extra)
                if report.answered == 0:
                    return
            else:
                report.seconds = report.seconds or time.perf_counter() - started
                report.samples += found
                report.answered += 1


class Scraper:
    """Reads the stores for one process."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings, countries: CountrySource) -> None:
        self._engine = engine
        self._redis = redis
        self._settings = settings
        self._countries = countries
        self._unbalanced: int | None = None
        self._balanced_at: datetime | None = None
        self._stores = {
            "redis": _Questions(self._ping, self._queue, self._traffic, self._memory),
            "postgresql": _Questions(
                self._select, self._schema, self._tallies, self._days, self._dead_letters, self._tables
            ),
        }
        self._both = _Questions(self._balance)

    def samples(self, now: datetime) -> list[Sample]:
        """All there is to say now. Never raises for a store that is away; takes 3 seconds at the most."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        reports = {name: questions.ask(now, PATIENCE_SECONDS) for name, questions in self._stores.items()}
        found = list(self._own(now))
        for name, report in reports.items():
            found += _of_store(name, report.wait(deadline))
        if all(report.answered for report in reports.values()):
            found += self._both.ask(now, PATIENCE_SECONDS).wait(deadline).samples[:]
        return found

    def _own(self, now: datetime) -> Iterator[Sample]:
        yield Sample("footfall_build_info", 1, {"version": version("footfall")})
        yield Sample("footfall_redis_enabled", int(self._settings.redis_enabled))
        yield Sample("footfall_queue_limit_entries", self._settings.queue_limit_entries)
        countries = self._countries.describe(now)
        yield Sample("footfall_country_source_info", 1, {"source": str(countries["source"])})
        yield Sample("footfall_country_problem", int("problem" in countries))
        built_at = self._countries.built_at()
        if built_at is not None:
            yield Sample("footfall_country_file_built_timestamp_seconds", built_at)

    # Redis

    def _ping(self, _: datetime) -> Samples:
        self._redis.ping()
        return ()

    def _queue(self, now: datetime) -> Samples:
        backlog, tallies = stream.backlog_and_ledger(self._redis, now)
        yield Sample("footfall_queue_entries", backlog.entries)
        yield Sample("footfall_queue_oldest_age_seconds", backlog.oldest_seconds)
        totals: Counter[str] = Counter(
            dict.fromkeys((*TALLIES, *map(traffic.REFUSED.__add__, traffic.REASONS)), 0)
        )
        for name, amount in tallies.items():
            totals[name.partition(":")[2]] += amount
        yield from _tallied(totals, "redis")
        for name, amount in totals.items():
            if name.startswith(traffic.REFUSED):
                yield Sample(
                    "footfall_refusals_total", amount, {"reason": name.removeprefix(traffic.REFUSED)}
                )
        queued = sum(
            tallies.get(f"{day}:accepted", 0) - tallies.get(f"{day}:settled", 0)
            for day in days_back(site_day(now, self._settings.time_zone), 2)
        )
        yield Sample("footfall_queue_events", queued)

    def _traffic(self, _: datetime) -> Samples:
        total = traffic.total(self._redis)
        yield from _answered(total.answers)
        for result, amount in total.countries.items():
            yield Sample("footfall_country_lookups_total", amount, {"result": result})
        for result, amount in zip(("hit", "miss"), cache.tally(self._redis), strict=True):
            yield Sample("footfall_cache_answers_total", amount, {"result": result})

    def _memory(self, _: datetime) -> Samples:
        found: dict[str, Any] = self._redis.info("memory") | self._redis.info("persistence")
        yield Sample("footfall_redis_memory_used_bytes", found["used_memory"])
        if found.get("maxmemory"):
            yield Sample("footfall_redis_memory_limit_bytes", found["maxmemory"])
        is_durable = found.get("aof_enabled") == 1 and found.get("aof_last_write_status") == "ok"
        yield Sample("footfall_redis_durable", int(is_durable))
        yield Sample("footfall_redis_keys", self._redis.dbsize())

    # PostgreSQL

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with read_snapshot(self._engine) as connection:
            connection.execute(STATEMENT_TIMEOUT)
            yield connection

    def _select(self, _: datetime) -> Samples:
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return ()

    def _schema(self, _: datetime) -> Samples:
        with self._snapshot() as connection:
            yield Sample("footfall_schema_ok", int(not schema_check.problems(connection)))

    def _tallies(self, _: datetime) -> Samples:
        with self._snapshot() as connection:
            yield from _tallied(ledger.totals(connection), "postgresql")

    def _days(self, now: datetime) -> Samples:
        today = site_day(now, self._settings.time_zone)
        with self._snapshot() as connection:
            yield Sample("footfall_rollups_waiting", len(rollup.days_to_roll(connection, today)))
            last = connection.scalar(select(func.max(RollupDay.rolled_up_at)))
            if last is not None:
                yield Sample("footfall_rollup_last_timestamp_seconds", last.timestamp())
            kept = connection.scalars(select(EventDay.day).where(EventDay.sealed_at.is_(None))).all()
            first_kept = today - timedelta(days=self._settings.raw_retention_days)
            yield Sample("footfall_partitions", len(kept))
            yield Sample("footfall_partitions_overdue", sum(day < first_kept for day in kept))
            overdue = salts.overdue(connection, now, self._settings.time_zone)
            yield Sample("footfall_salts_overdue", overdue)

    def _dead_letters(self, _: datetime) -> Samples:
        with self._snapshot() as connection:
            found = {row.reason: row.amount for row in connection.execute(DEAD_LETTERS)}
        for reason, letters in (dict.fromkeys(DEAD_LETTER_REASONS, 0) | found).items():
            yield Sample("footfall_dead_letters", letters, {"reason": reason})

    def _tables(self, _: datetime) -> Samples:
        with self._snapshot() as connection:
            found = {row.name: row for row in connection.execute(TABLES)}
        for name in sorted(Base.metadata.tables):
            if name in found:
                yield Sample("footfall_table_size_bytes", found[name].bytes, {"table": name})
                yield Sample("footfall_table_rows", found[name].rows, {"table": name})

    def _balance(self, now: datetime) -> Samples:
        if self._balanced_at is None or not now - self._balanced_at < LEDGER_FRESH:
            self._unbalanced, self._balanced_at = None, now
            self._unbalanced = self._look_at_ledger(now)
        if self._unbalanced is not None:
            yield Sample("footfall_ledger_unbalanced", self._unbalanced)

    def _look_at_ledger(self, now: datetime) -> int:
        """How many closed days do not balance; one that waits to be rolled up is left to its own alarm."""
        zone = self._settings.time_zone
        yesterday = site_day(now, zone) - timedelta(days=1)
        # without the short timeout: what comes too late for this scrape is there for the next
        with read_snapshot(self._engine) as connection:
            waiting = rollup.days_to_roll(connection, yesterday + timedelta(days=1))
            closed = [day for day in days_back(yesterday, LEDGER_DAYS) if day not in waiting]
            return sum(
                not row["balanced"] for row in ledger.ledger(connection, self._redis, closed, now, zone)
            )


def _of_store(name: str, report: _Report) -> Iterator[Sample]:
    store = {"store": name}
    yield Sample("footfall_up", int(report.answered > 0), store)
    if report.answered:
        yield Sample("footfall_scrape_problems", report.questions - report.answered, store)
        yield Sample("footfall_store_answer_seconds", report.seconds, store)
    yield from tuple(report.samples)


def _tallied(totals: Mapping[str, int], way: str) -> Iterator[Sample]:
    """The ledger's totals of one way in. Two counters and never their sum, which would fall with a store."""
    for tally, name in TALLIES.items():
        yield Sample(name, int(totals.get(tally, 0)), {"way": way})


def _answered(answers: Mapping[Answered, Durations]) -> Iterator[Sample]:
    by_endpoint: dict[tuple[str, str, str], dict[int, Durations]] = {}
    for answer, durations in answers.items():
        by_endpoint.setdefault((answer.kind, answer.method, answer.rule), {})[answer.status] = durations
    for (kind, method, rule), by_status in sorted(by_endpoint.items()):
        labels = {"kind": kind, "method": method, "endpoint": rule}
        for status in sorted({*by_status, *FAILURES}):
            requests = sum(by_status[status].amounts) if status in by_status else 0
            yield Sample("footfall_requests_total", requests, {**labels, "status": str(status)})
        yield from _histogram(labels, by_status.values())


def _histogram(labels: Mapping[str, str], durations: Iterable[Durations]) -> Iterator[Sample]:
    name: Name = "footfall_request_duration_seconds"
    summed = [sum(amounts) for amounts in zip(*(one.amounts for one in durations), strict=True)]
    for bound, amount in zip(traffic.BOUNDS, accumulate(summed), strict=True):
        le = "+Inf" if bound == float("inf") else str(bound)
        yield Sample(name, amount, {**labels, "le": le}, "_bucket")
    seconds = sum(one.microseconds for one in durations) / 1e6
    yield Sample(name, seconds, labels, "_sum")
    yield Sample(name, sum(summed), labels, "_count")
