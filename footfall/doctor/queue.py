"""Redis: whether it keeps what it has answered, has room, and what waits in it; and everybody's clocks."""

import time
from datetime import UTC, datetime
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError
from sqlalchemy import text

from footfall import stream
from footfall.clock import utc_now
from footfall.doctor.report import Finding, Found, Instance, Severity, ago, size
from footfall.readiness import OLDEST_ENTRY_SECONDS

OLDEST_VERSION = (6, 2)  # XAUTOCLAIM
QUEUE_SHARE = 0.5  # of the limit, from which on somebody should look
MEMORY_SHARE = 0.6  # of maxmemory; at `stream.MEMORY_SHARE` views are refused
CLOCK_SECONDS = 2.0  # more is no delay of an answer
# Ticks that nobody took within 60 s are dropped: by a clock that is so far ahead, every one of them
CLOCK_PROBLEM_SECONDS = 30.0


def redis(instance: Instance) -> Found:
    """Does it answer, is it new enough, may one write?"""
    if reason := instance.unknown.get("redis"):
        return Found("", [Finding("problem", reason, instance.commands.own("up"))], is_fatal=True)
    try:
        info = _info(instance, "server") | _info(instance, "replication")
    except RedisError as error:
        what = f"Redis does not answer: {error}; is REDIS_URL right? Views go straight to PostgreSQL"
        return Found("", [Finding("problem", what, instance.commands.start)], is_fatal=True)
    version = str(info["redis_version"])
    found = []
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        what = f"Redis {version} is too old, 6.2 is needed"
        found.append(Finding("problem", what, "docker compose pull redis"))
    if info.get("role") == "slave":
        what = "this Redis is a replica and takes no views"
        found.append(Finding("problem", what, instance.commands.redis("REPLICAOF NO ONE")))
    return Found(f"Redis {version} answers", found, {"version": version})


def redis_persistence(instance: Instance) -> Found:
    """Is what it has answered on disk?"""
    info = _info(instance, "persistence")
    fsync = _config(instance, "appendfsync")
    if not int(info["aof_enabled"]):
        what = "Redis keeps no append-only file: views that were answered are lost when it stops"
        mend = instance.commands.redis("CONFIG SET appendonly yes")
        return Found("", [Finding("problem", what, mend)], {"appendonly": False, "appendfsync": fsync})
    found = []
    if fsync in {"everysec", "no"}:
        lost = "of a second and more" if fsync == "everysec" else "of half a minute"
        severity: Severity = "warning" if fsync == "everysec" else "problem"
        what = f"appendfsync is {fsync}: a crash of Redis can lose answered views {lost}"
        found.append(Finding(severity, what, instance.commands.redis("CONFIG SET appendfsync always")))
    if info.get("aof_last_write_status", "ok") != "ok":
        what = "Redis could not write its append-only file; is its disk full?"
        found.append(Finding("problem", what, instance.commands.redis("INFO persistence")))
    elif info.get("aof_last_bgrewrite_status", "ok") != "ok":
        what = "Redis could not rewrite its append-only file, which grows; is its disk full?"
        found.append(Finding("warning", what, instance.commands.redis("BGREWRITEAOF")))
    return Found(
        f"append-only file, appendfsync {fsync or 'is not told'}",
        found,
        {"appendonly": True, "appendfsync": fsync},
    )


def redis_eviction(instance: Instance) -> Found:
    """Does a full Redis refuse, or throw views away?"""
    policy = _info(instance, "memory")["maxmemory_policy"]
    found = []
    if policy != "noeviction":
        evicted = int(_info(instance, "stats").get("evicted_keys", 0))
        what = f"maxmemory-policy is {policy}: a full Redis throws away views that wait"
        what += f"; it has evicted {evicted} keys" if evicted else ""
        mend = instance.commands.redis("CONFIG SET maxmemory-policy noeviction")
        found.append(Finding("problem", what, mend))
    return Found("a full Redis refuses and evicts nothing", found, {"policy": policy})


def redis_memory(instance: Instance) -> Found:
    """How much room is left?"""
    memory = _info(instance, "memory")
    used, limit = int(memory["used_memory"]), int(memory["maxmemory"])
    figures = {"used_bytes": used, "limit_bytes": limit or None}
    if not limit:
        what = "Redis has no maxmemory: views cannot be refused before the machine's memory is full"
        mend = instance.commands.redis("CONFIG SET maxmemory 512mb")
        return Found("", [Finding("warning", what, mend)], figures)
    share = used / limit
    text_ = f"{size(used)} of {size(limit)} are used, {share:.0%}"
    look = instance.commands.redis("--bigkeys")
    found = []
    if share > stream.MEMORY_SHARE:
        what = f"Redis uses {share:.0%} of its {size(limit)}: views are refused from 75 % on"
        found.append(Finding("problem", what, look))
    elif share > MEMORY_SHARE:
        what = f"Redis uses {share:.0%} of its {size(limit)}; from 75 % on views are refused"
        found.append(Finding("warning", what, look))
    return Found(text_, found, figures)


def queue(instance: Instance) -> Found:
    """Is what was taken also written?"""
    backlog = stream.backlog(instance.redis, instance.now)
    limit = instance.settings.queue_limit_entries
    oldest = backlog.oldest_seconds
    log = instance.commands.read_log("worker")
    found = []
    if oldest > OLDEST_ENTRY_SECONDS:
        what = f"{backlog.entries} entries wait to be written, the oldest for {ago(oldest)}"
        found.append(Finding("problem", f"{what}; {_holder(instance)}", log))
    if backlog.entries >= limit:
        what = f"the queue is full with {backlog.entries} entries: views are refused"
        found.append(Finding("problem", what, log))
    elif backlog.entries > QUEUE_SHARE * limit:
        what = f"the queue is filling up: {backlog.entries} of {limit} entries"
        found.append(Finding("warning", what, log))
    memory = int(instance.redis.memory_usage(stream.STREAM_KEY) or 0)
    return Found(
        f"{backlog.entries} entries wait, of {limit} that may; {size(memory)}",
        found,
        {
            "entries": backlog.entries,
            "limit": limit,
            "oldest_seconds": round(oldest, 3),
            "stream_bytes": memory,
        },
    )


def _holder(instance: Instance) -> str:
    """Who has the oldest entry, and how often it was tried."""
    try:
        pending = cast(
            list[dict[str, Any]],
            instance.redis.xpending_range(stream.STREAM_KEY, stream.GROUP, "-", "+", 1),
        )
    except ResponseError:  # no group yet
        pending = []
    if not pending:
        return "no writer has read it"
    name, times = pending[0]["consumer"].decode(), pending[0]["times_delivered"]
    held = ago(pending[0]["time_since_delivered"] / 1_000)
    return f"{name} has read it {times} times, last {held} ago, and not written it"


def clocks(instance: Instance) -> Found:
    """Do this host, Redis and PostgreSQL agree on what time it is?"""
    figures = {}
    found = []
    for name, ask in {"Redis": _redis_time, "PostgreSQL": _postgres_time}.items():
        before, started = utc_now(), time.perf_counter()
        told = ask(instance)
        # it was asked somewhere between
        took = time.perf_counter() - started
        ahead = (told - before).total_seconds() - took / 2
        figures[f"{name.lower()}_ahead_seconds"] = round(ahead, 3)
        if abs(ahead) > CLOCK_SECONDS + took / 2:
            severity: Severity = "problem" if abs(ahead) > CLOCK_PROBLEM_SECONDS else "warning"
            what = f"the clock of {name} is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"
            found.append(Finding(severity, f"{what} of this host's", "timedatectl status"))
    most = max(map(abs, figures.values()), default=0.0)
    return Found(f"this host, Redis and PostgreSQL agree within {most:.2f} s", found, figures)


def _redis_time(instance: Instance) -> datetime:
    seconds, microseconds = instance.redis.time()
    return datetime.fromtimestamp(seconds + microseconds / 1_000_000, UTC)


def _postgres_time(instance: Instance) -> datetime:
    with instance.engine.connect() as connection:
        # The one place that asks the database what time it is: about its clock, not about what happened
        told: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return told


def _info(instance: Instance, section: str) -> dict[str, Any]:
    return instance.redis.info(section)


def _config(instance: Instance, name: str) -> str | None:
    """A setting, if one may ask; who rents a Redis often may not."""
    try:
        return cast(dict[str, str], instance.redis.config_get(name)).get(name)
    except ResponseError:
        return None
