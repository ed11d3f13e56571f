"""All checks, in the order in which one wants to know; none is done of what an earlier one has found away."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from redis.exceptions import RedisError
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from footfall.doctor import database, drift, queue, tables, work
from footfall.doctor.database import reason_of
from footfall.doctor.report import Check, Finding, Found, Instance, Report


class Entry(NamedTuple):
    """A check, and those without which it has nothing to look at."""

    name: str  # also of scripts that read the JSON: it stays
    look: Callable[[Instance], Found]
    needs: tuple[str, ...] = ()


STORED = ("postgres", "revision")
CHECKS = (
    Entry("postgres", database.postgres),
    Entry("redis", queue.redis),
    Entry("clocks", queue.clocks, ("postgres", "redis")),
    Entry("revision", database.revision, ("postgres",)),
    Entry("columns", database.columns, STORED),
    Entry("unique_keys", database.unique_keys, STORED),
    Entry("duplicates", database.duplicates, (*STORED, "columns")),
    Entry("drift", drift.drift, STORED),
    Entry("site", database.site, STORED),
    Entry("partitions", tables.partitions, STORED),
    Entry("redis_persistence", queue.redis_persistence, ("redis",)),
    Entry("redis_eviction", queue.redis_eviction, ("redis",)),
    Entry("redis_memory", queue.redis_memory, ("redis",)),
    Entry("queue", queue.queue, ("redis",)),
    Entry("tasks", work.tasks, ("redis",)),
    Entry("api", work.api, STORED),
    Entry("rollup", work.rollup, STORED),
    Entry("retention", tables.retention, STORED),
    Entry("dead_letters", tables.dead_letters, STORED),
    Entry("fallback", work.fallback, (*STORED, "redis")),
    Entry("shown_counts", work.shown_counts, (*STORED, "redis")),
    Entry("countries", work.countries),
    Entry("answers", work.answers, ("redis",)),
    Entry("sizes", tables.sizes, STORED),
)


def examine(instance: Instance) -> Report:
    """Do all checks. Changes nothing; raises nothing for a store that is away or a schema not ours."""
    return Report(instance.now, list(_checks(instance)))


def _checks(instance: Instance) -> Iterator[Check]:
    fatal: dict[str, str] = {}  # a check that cannot be built upon, and the one to look at for the reason
    for entry in CHECKS:
        missing = next((name for name in entry.needs if name in fatal), None)
        if missing is not None:
            fatal[entry.name] = fatal[missing]
            yield _skipped(entry, fatal[missing])
            continue
        try:
            found = entry.look(instance)
        except ProgrammingError as error:
            if "columns" in fatal:
                # something that it asks for is not there, which has been said
                yield _skipped(entry, "columns")
                continue
            found = _failed(instance, reason_of(error), "postgres")
        except SQLAlchemyError as error:
            found = _failed(instance, reason_of(error), "postgres")
        except RedisError as error:
            found = _failed(instance, str(error), "redis")
        if found.is_fatal:
            fatal[entry.name] = entry.name
        yield Check.of(entry.name, found)


def _skipped(entry: Entry, reason: str) -> Check:
    return Check(entry.name, "skipped", f"not looked at: see {reason}")


def _failed(instance: Instance, reason: str, part: str) -> Found:
    what = f"this could not be looked at: {reason}"
    return Found("", [Finding("problem", what, instance.commands.read_log(part))], is_fatal=True)
