"""Writing what is queued now, for whoever does not want to wait for the next tick."""

import time

from redis import Redis
from sqlalchemy import Engine

from footfall import stream, writer
from footfall.errors import Unavailable
from footfall.settings import Settings

FLUSH_SECONDS = 30.0
POLL_SECONDS = 0.05  # while another writer finishes what it holds


def flush(engine: Engine, redis: Redis, settings: Settings, consumer: str) -> int:
    """Write what was queued when this was called; how many counters that were. Commits.

    May be called by several at once, and be killed: what it was at is pending and taken over. Raises
    `Unavailable` when something is still unwritten after 30 s.
    """
    deadline = time.monotonic() + FLUSH_SECONDS
    last = stream.last_id(redis)
    counters = {
        (event.name, event.view_type)
        for entry in stream.entries_until(redis, last)
        for event in writer.events_of(entry)
        if event.outcome == "counted"
    }

    def is_enough() -> bool:  # what comes in meanwhile is for the next tick
        return time.monotonic() > deadline or not stream.is_queued_until(redis, last)

    while stream.is_queued_until(redis, last):
        if time.monotonic() > deadline:
            raise Unavailable("not all could be written in time; the rest is still queued")
        if not writer.drain(engine, redis, settings, consumer, is_enough).entries:
            time.sleep(POLL_SECONDS)
    return len(counters)
