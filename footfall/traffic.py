"""What the processes answered: how often, how fast, with which refusals. The rest is in the stores already.

Each process counts for itself and adds its amounts to Redis' once a second, so that they are everybody's and
outlive it. A process that is killed loses that second.
"""

import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from threading import Lock, Thread, main_thread
from typing import Literal, NamedTuple, cast

from redis import Redis
from redis.exceptions import RedisError

from footfall import keys, scripts

# Upper bounds in seconds; a slower answer has none
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, float("inf"))
FLUSH_SECONDS = 1.0
NUMBER_KEPT_MS = 24 * 3600 * 1000  # of a process' last flush: longer than Redis is away
REFUSED = "refused:"  # a refusal's tally in the ledger, before its reason
REASONS = (
    "invalid",
    "too_large",
    "unsupported_media_type",
    "not_authenticated",
    "not_allowed",
    "not_found",
    "limited",
    "unavailable",
    "internal",
)


class Answered(NamedTuple):
    """What kind of request was answered how. None of it is the client's own words: `rule` is the route's."""

    kind: Literal["tracking", "other"]
    method: str
    rule: str
    status: int


@dataclass(slots=True)
class Durations:
    """How many answers took up to each of the bounds (and longer than the one before), and all their time."""

    amounts: list[int] = field(default_factory=lambda: [0] * len(BOUNDS))
    microseconds: int = 0


@dataclass(frozen=True, slots=True)
class Total:
    """What all processes have counted so far."""

    answers: Mapping[Answered, Durations]
    countries: Mapping[str, int]  # {"known": views, "unknown": views}


class Traffic:
    """Counts for one process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._process = f"{keys.TAG}:flushed:{secrets.token_hex(8)}"
        self._lock = Lock()
        self._durations: dict[Answered, Durations] = {}
        self._amounts: Counter[tuple[str, str]] = Counter()  # {(key, field): amount}
        self._flushing = Lock()
        self._number = 0
        self._unsent: Counter[tuple[str, str]] = Counter()

    def answered(self, answer: Answered, *seconds: float) -> None:
        """As many requests were answered as `seconds` are given, each within its own."""
        with self._lock:
            durations = self._durations.get(answer)
            if durations is None:
                durations = self._durations[answer] = Durations()
            for each in seconds:
                durations.amounts[bisect_left(BOUNDS, each)] += 1
            durations.microseconds += int(sum(seconds) * 1e6)

    def refused(self, day: date, reason: str, amount: int = 1) -> None:
        """So many views were refused on `day`, the site's. `reason` is an error's code."""
        self._count(keys.LEDGER, f"{day}:{REFUSED}{reason}", amount)

    def countries_asked(self, *, known: int, unknown: int) -> None:
        """So many browsers' views got a country, and so many none."""
        for name, amount in (("country known", known), ("country unknown", unknown)):
            if amount:
                self._count(keys.TRAFFIC, name, amount)

    def flush(self) -> None:
        """Add what was counted to Redis. May be called at any time, any often.

        Raises `RedisError`; then nothing is lost, and the next flush brings it. What Redis has taken without
        our knowing, it takes no second time.
        """
        with self._flushing:
            self._send()
            self._unsent = self._collected()
            self._send()

    def flush_forever(self, *also: Callable[[], None]) -> None:
        """Flush every second from a thread of its own, and once more when the process is told to end.

        `also` is what else the processes tell each other through Redis each second.
        """
        Thread(target=self._flush_forever, args=also, name="traffic").start()

    def _count(self, key: str, name: str, amount: int) -> None:
        with self._lock:
            self._amounts[key, name] += amount

    def _collected(self) -> Counter[tuple[str, str]]:
        with self._lock:
            amounts, self._amounts = self._amounts, Counter()
            durations, self._durations = self._durations, {}
        for answer, of_answer in durations.items():
            prefix = f"answer {answer.kind} {answer.method} {answer.rule} {answer.status}"
            for bound, amount in zip(BOUNDS, of_answer.amounts, strict=True):
                if amount:
                    amounts[keys.TRAFFIC, f"{prefix} {bound}"] = amount
            amounts[keys.TRAFFIC, f"{prefix} microseconds"] = of_answer.microseconds
        self._number += 1
        return amounts

    def _send(self) -> None:
        if self._unsent:
            hashes = (keys.LEDGER, keys.TRAFFIC)
            arguments: list[str | int] = [self._number, NUMBER_KEPT_MS]
            for (key, name), amount in self._unsent.items():
                arguments += [hashes.index(key) + 2, name, amount]
            scripts.run(self._redis, "add_once", [self._process, *hashes], arguments)
            self._unsent = Counter()

    def _flush_forever(self, *also: Callable[[], None]) -> None:
        # threads are waited for at the end of a process, before atexit's functions are called
        while main_thread().is_alive():
            main_thread().join(FLUSH_SECONDS)
            with suppress(RedisError):  # who takes views says that Redis is away
                for each in (self.flush, *also):
                    each()


def total(redis: Redis) -> Total:
    """What all processes have brought. Raises `RedisError`."""
    answers: dict[Answered, Durations] = {}
    countries = {"known": 0, "unknown": 0}
    for name, amount in cast(dict[bytes, bytes], redis.hgetall(keys.TRAFFIC)).items():
        what, *words = name.decode().split(" ")
        if what == "country":
            countries[words[0]] += int(amount)
            continue
        kind, method, rule, status, part = words
        answer = Answered(cast(Literal["tracking", "other"], kind), method, rule, int(status))
        durations = answers.setdefault(answer, Durations())
        if part == "microseconds":
            durations.microseconds += int(amount)
        else:  # a bound that another version had counts as the next one
            durations.amounts[bisect_left(BOUNDS, float(part))] += int(amount)
    return Total(answers, countries)
