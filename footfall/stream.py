"""The queue between the edge and the writer: a Redis stream. Nobody else knows how events are queued.

An entry carries a group of events that was sent together. It leaves the stream after the writer's commit, so
whatever is in the stream is not yet written, or was written in the second before a crash.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, Literal, NamedTuple, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from footfall import keys, scripts
from footfall.content_types import PAGE
from footfall.errors import Unavailable
from footfall.event import DAY_FIELD, EPOCH, Fields, Outcome, View, ViewEvent, encode, envelope, fields_of
from footfall.loop_redis import ANSWER_SECONDS, CONNECT_SECONDS, LoopRedis
from footfall.scripts import Call
from footfall.settings import Settings

STREAM_KEY = keys.STREAM
LEDGER_KEY = keys.LEDGER
GROUP = "writers"
FIELD = b"e"  # the events' envelope
OUTCOME_FIELD = b"o"  # what was decided after the envelope was made, of all its events

LOOK_ENTRIES = 1_000
ENTRY_EVENTS = 50  # a larger group is split, so that what a writer reads at once stays bounded
TAKE_OVER_IDLE_MS = 30_000  # longer than any statement of a living writer may run
MEMORY_SHARE = 0.75  # of maxmemory; the rest is for ticks and acknowledgements
PRESSURE_INTERVAL_SECONDS = 1.0
MILLISECOND = timedelta(milliseconds=1)
SEQUENCE_BITS = 20  # of an entry's number within its millisecond, in the packed entry id

ID_SLOT = timedelta(hours=24)  # how long an id is answered as it was the first time
COUNT_KEPT = timedelta(days=30)  # a shown count that nobody raises or reads; it is seeded again when needed
MOST_VIEW_TYPES = 50  # of one entity: types come from outside
BEFORE = "before"  # stands for the days whose own tallies are gone; sorts after every day

Tally = Literal["accepted", "settled", "duplicates", "dead_letters", "erased"]
Counts = Mapping[str, int]  # {view type: views}


class Entry(NamedTuple):
    """One entry as read: its id in the stream, the envelope in it, and what was decided after."""

    id: str
    payload: bytes
    outcome: Outcome | None = None

    @property
    def number(self) -> int:
        """The id in 63 bits, for a bigint column: milliseconds, then the number within them."""
        milliseconds, _, sequence = self.id.partition("-")
        return (int(milliseconds) << SEQUENCE_BITS) | min(int(sequence), (1 << SEQUENCE_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be written."""

    entries: int
    oldest_seconds: float  # age of the oldest unwritten entry; 0 when there is none


@dataclass(frozen=True, slots=True)
class Taken:
    """What the atomic step did with a view; only with `taken` and `retry` is it safe."""

    status: Literal["taken", "retry", "seed", "limited", "unavailable"]
    outcome: Outcome
    views: int  # of the entity, of all types, as shown


def connect(settings: Settings) -> Redis:
    """A client that connects when first used and gives up soon: a request must not hang on a dead Redis.

    It never sends a command again by itself. After an error nobody knows whether the first one was carried
    out, and appending twice is for those to decide who know the ids.
    """
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 0),
    )


def put(redis: Redis, events: Sequence[ViewEvent]) -> None:
    """Append `events` durably, all or none; returns once Redis has them on disk.

    Raises `RedisError`. Then the outcome is unknown: the same events may be put again, or written another
    way, under their ids; the writer finds the second copy.
    """
    if events:
        scripts.run_all(redis, [_put([fields_of(event) for event in events])])


async def put_from_loop(redis: LoopRedis, events: Sequence[Fields]) -> None:
    """The same from an event loop, with the events as they stand in an envelope."""
    await redis.run(_put(events))


def take(redis: Redis, views: Sequence[View], seeds: Sequence[Counts | None], now: datetime) -> list[Taken]:
    """Append views in one round trip; parallel to them. Pages go together, all or none; content by the
    piece, each with its dedup and its count in one atomic step.

    `seeds` are the database's counts for entities whose shown count is to be seeded, else None. Raises
    `RedisError`; then any of them may have been taken.
    """
    pages = [fields_of(view.event) for view in views if view.event.entity_type == PAGE.name]
    calls = [_put(pages)] if pages else []
    calls += [
        _take(view, seed, now)
        for view, seed in zip(views, seeds, strict=True)
        if view.event.entity_type != PAGE.name
    ]
    replies = scripts.run_all(redis, calls)
    of_content = (_taken(reply) for reply in (replies[1:] if pages else replies))
    return [
        Taken("taken", view.event.outcome, 0) if view.event.entity_type == PAGE.name else next(of_content)
        for view in views
    ]


def _put(events: Sequence[Fields]) -> Call:
    payloads = [
        envelope(events[start : start + ENTRY_EVENTS]) for start in range(0, len(events), ENTRY_EVENTS)
    ]
    accepted = Counter(event[DAY_FIELD] for event in events)
    tallies = [item for day, amount in accepted.items() for item in (f"{day}:accepted", amount)]
    return Call("put", [STREAM_KEY, LEDGER_KEY], [len(payloads), *payloads, *tallies])


def _taken(reply: Any) -> Taken:
    status, outcome, shown = reply
    return Taken(status.decode(), outcome.decode() or "counted", shown)


def _take(view: View, seed: Counts | None, now: datetime) -> Call:
    event = view.event
    name = (event.entity_type, event.external_id)
    window_ms = (event.slot_ends_at - now) // MILLISECOND if event.slot_ends_at and event.slot else 0
    touched = [
        STREAM_KEY,
        LEDGER_KEY,
        keys.count(*name),
        keys.id_slot(event.id),
        keys.viewer_slot(*name, event.slot or b""),
        keys.viewer_slot(*name, view.slot_of_yesterday or b""),
    ]
    arguments = [
        (now - EPOCH) // MILLISECOND,
        event.id.hex,
        encode([event]),
        f"{event.day}:accepted",
        event.outcome,
        event.view_type,
        ID_SLOT // MILLISECOND if view.has_clients_id else 0,
        window_ms,
        COUNT_KEPT // MILLISECOND,
        MOST_VIEW_TYPES,
        "\0".join(name),
        0 if seed is None else 1,
        *(item for pair in (seed or {}).items() for item in pair),
    ]
    return Call("take", touched, arguments)


class Pressure:
    """Whether the queue can take more, asked of Redis at most once a second by each process.

    A full Redis refuses Celery's own messages and would never drain, so intake stops well before.
    """

    def __init__(self, limit_entries: int) -> None:
        self._limit_entries = limit_entries
        self._checked_at = -PRESSURE_INTERVAL_SECONDS
        self._problem: str | None = None

    @property
    def is_known_to_be_low(self) -> bool:
        """Whether there was room when somebody looked, and that was just now."""
        return self._problem is None and time.monotonic() - self._checked_at < PRESSURE_INTERVAL_SECONDS

    def refuse_when_full(self, redis: Redis) -> None:
        """Raise `Unavailable` when the queue or Redis' memory is nearly full, `RedisError` without Redis."""
        now = time.monotonic()
        if now - self._checked_at >= PRESSURE_INTERVAL_SECONDS:
            self._checked_at = now
            self._problem = self._look(redis)
        if self._problem is not None:
            raise Unavailable(self._problem)

    def _look(self, redis: Redis) -> str | None:
        with redis.pipeline(transaction=False) as pipeline:
            pipeline.info("memory")
            pipeline.xlen(STREAM_KEY)
            memory, entries = pipeline.execute()
        if entries >= self._limit_entries:
            return "the queue is full; the writers have to catch up"
        if memory["maxmemory"] and memory["used_memory"] > MEMORY_SHARE * memory["maxmemory"]:
            return "the queue's memory is nearly full; the writers have to catch up"
        return None


def backlog(redis: Redis, now: datetime) -> Backlog:
    """How much is unwritten, and for how long the oldest of it has been waiting."""
    return backlog_and_ledger(redis, now)[0]


def backlog_and_ledger(redis: Redis, now: datetime) -> tuple[Backlog, dict[str, int]]:
    """The backlog and all tallies, {"<day>:<tally>": amount}, of one moment."""
    with redis.pipeline(transaction=True) as transaction:
        transaction.xlen(STREAM_KEY)
        transaction.xrange(STREAM_KEY, "-", "+", count=1)
        transaction.hgetall(LEDGER_KEY)
        entries, oldest, fields = transaction.execute()
    return _backlog(entries, oldest, now), _tallies(fields)


def _backlog(entries: int, oldest: list[Any], now: datetime) -> Backlog:
    if not oldest:
        return Backlog(entries=0, oldest_seconds=0.0)
    milliseconds = int(oldest[0][0].partition(b"-")[0])
    age = (now - EPOCH).total_seconds() - milliseconds / 1000
    return Backlog(entries=entries, oldest_seconds=max(age, 0.0))


def last_id(redis: Redis) -> str:
    """The id of the newest entry; nothing that is queued later has a smaller one."""
    newest = cast(list[Any], redis.xrevrange(STREAM_KEY, count=1))
    return newest[0][0].decode() if newest else "0-0"


def is_queued_until(redis: Redis, entry_id: str) -> bool:
    """Whether anything up to and including `entry_id` is still unwritten."""
    return bool(redis.xrange(STREAM_KEY, "-", entry_id, count=1))


def entries_until(redis: Redis, entry_id: str) -> Iterator[Entry]:
    """The unwritten entries up to and including `entry_id`, only looked at."""
    start = "-"
    while part := _entries(
        redis, cast(list[Any], redis.xrange(STREAM_KEY, start, entry_id, count=LOOK_ENTRIES))
    ):
        yield from part
        start = f"({part[-1].id}"


def read(redis: Redis, consumer: str, count: int) -> list[Entry]:
    """Up to `count` entries for `consumer`: its own unfinished ones first, then those of writers that
    have died, then new ones. Empty when there is nothing to do.
    """
    try:
        return (
            _own_unfinished(redis, consumer, count)
            or _taken_over(redis, consumer, count)
            or _read_group(redis, consumer, count, ">")
        )
    except ResponseError as error:
        if not str(error).startswith("NOGROUP"):
            raise
        _create_group(redis)
        return _read_group(redis, consumer, count, ">")


def settle(redis: Redis, tallies: Mapping[str, Mapping[str, int]]) -> int:
    """Acknowledge and remove entries after the commit: {entry id: {"<day>:<tally>": amount}}.

    Returns how many this call acknowledged first. May be called again.
    """
    alike: defaultdict[tuple[tuple[str, int], ...], list[str]] = defaultdict(list)
    for entry_id, fields in tallies.items():
        alike[tuple(fields.items())].append(entry_id)
    arguments: list[Any] = [GROUP]
    for amounts, ids in alike.items():  # most have few events and the same tallies
        arguments += [len(ids), *ids, len(amounts), *chain.from_iterable(amounts)]
    return int(scripts.run(redis, "settle", [STREAM_KEY, LEDGER_KEY], arguments))


def forget_idle_consumers(redis: Redis, idle_ms: int = 24 * 3600 * 1000) -> int:
    """Remove the names of writers that have been gone for a day and left nothing behind."""
    try:
        consumers = redis.xinfo_consumers(STREAM_KEY, GROUP)
    except ResponseError:
        return 0  # no stream or no group yet
    return sum(
        int(scripts.run(redis, "forget_consumer", [STREAM_KEY], [GROUP, consumer["name"]]))
        for consumer in consumers
        if consumer["idle"] > idle_ms
    )


def ledger(redis: Redis) -> dict[str, int]:
    """All tallies, {"<day>:<tally>": amount}."""
    return _tallies(cast(dict[bytes, bytes], redis.hgetall(LEDGER_KEY)))


def drop_tallies_before(redis: Redis, first_kept: date) -> None:
    """Remove the tallies of days that nobody asks about any more; what they add up to is kept."""
    scripts.run(redis, "drop_tallies", [LEDGER_KEY], [first_kept.isoformat(), BEFORE])


def _tallies(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(amount) for name, amount in fields.items()}


def _own_unfinished(redis: Redis, consumer: str, count: int) -> list[Entry]:
    return _read_group(redis, consumer, count, "0")


def _taken_over(redis: Redis, consumer: str, count: int) -> list[Entry]:
    reply = redis.xautoclaim(
        STREAM_KEY, GROUP, consumer, min_idle_time=TAKE_OVER_IDLE_MS, start_id="0-0", count=count
    )
    return _entries(redis, reply[1])


def _read_group(redis: Redis, consumer: str, count: int, start: str) -> list[Entry]:
    reply = redis.xreadgroup(GROUP, consumer, {STREAM_KEY: start}, count=count)
    if not reply:
        return []
    streams = reply.items() if isinstance(reply, dict) else reply
    ((_, raw_entries),) = streams
    return _entries(redis, raw_entries)


def _entries(redis: Redis, raw_entries: Iterable[Any]) -> list[Entry]:
    entries = []
    for raw in raw_entries:
        if raw is None or raw[0] is None:
            continue
        entry_id, fields = raw
        if not fields:
            # removed from the stream while pending on a dead writer: settled, only the mark is left
            redis.xack(STREAM_KEY, GROUP, entry_id)
            continue
        outcome = fields.get(OUTCOME_FIELD)
        entries.append(Entry(entry_id.decode(), fields.get(FIELD, b""), outcome and outcome.decode()))
    return entries


def _create_group(redis: Redis) -> None:
    try:
        redis.xgroup_create(STREAM_KEY, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
