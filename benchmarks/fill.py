"""The queue and the writer as they are, without HTTP: how days of any size come about."""

import random
import time
from datetime import date

from benchmarks import machine, traffic
from benchmarks.systems import Stores
from footfall import stream, writer
from footfall.clock import utc_now

PART = 50_000  # events that are queued before the writer begins; a queue in Redis must fit its memory


def write(stores: Stores, day: date, events: int, entities: int, seed: int = 1) -> dict[str, float]:
    """Queue that many events of `day` in groups and let one writer write them. What the writing alone cost:
    seconds, and CPU by part.
    """
    rng = random.Random(seed)
    spent: dict[str, float] = dict.fromkeys(("seconds", "python", *stores.groups), 0.0)
    made = traffic.events(day, events, entities, seed)
    while part := [event for _, event in zip(range(PART), made, strict=False)]:
        for group in traffic.groups(part, rng):
            stream.put(stores.redis, group)
        _add(spent, _drained(stores))
    return spent


def _drained(stores: Stores) -> dict[str, float]:
    before = machine.cpu_seconds(stores.groups)
    python, began = time.process_time(), time.perf_counter()
    while stream.backlog(stores.redis, utc_now()).entries:
        writer.drain(stores.engine, stores.redis, stores.settings, consumer="bench")
    took, python = time.perf_counter() - began, time.process_time() - python
    after = machine.cpu_seconds(stores.groups)
    return {"seconds": took, "python": python, **{name: after[name] - before[name] for name in after}}


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    for name, amount in more.items():
        total[name] += amount
