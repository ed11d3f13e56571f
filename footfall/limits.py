"""How many views one viewer and one network may send within a minute of the clock. Off unless set.

Each process counts in memory, and a view waits for nobody. Once a second a process tells Redis what it has
counted of those who have used up a tenth of their limit, and hears what the others have counted. So over all
processes a minute takes at most the limit, and from each further process a tenth of it and what comes in that
second. Without Redis, or while it is away, each process goes by its own counts.

An address is a hash as soon as it is counted, under a key made of the day's: what Redis is told (for two
minutes) is of nobody, and cannot be held against the visitors that are stored.
"""

import secrets
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime
from hashlib import blake2b
from itertools import islice
from threading import Lock

from redis import Redis

from footfall import keys, scripts, visitors
from footfall.clock import site_day
from footfall.errors import Limited, Unavailable
from footfall.intake import Viewer
from footfall.settings import Settings

WINDOW_SECONDS = 60
KEPT_SECONDS = 2 * WINDOW_SECONDS  # in Redis
TOLD_SHARE = 10  # a tenth of the limit: nearly nobody comes so far
# Of a kind in a process, some 10 MB; then those with no more views than the median are forgotten, so that a
# flood of made-up viewers pushes out itself and not those who have sent much
MOST_COUNTED = 50_000
MOST_TOLD = 10_000  # at once, some 10 ms of Redis' time; the others a second later


class Limits:
    """Counts for one process."""

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        day_keys: Callable[[Set[date], datetime], Mapping[date, bytes]],
    ) -> None:
        self._redis = redis
        self._day_keys = day_keys
        self._zone = settings.time_zone
        limits = (
            (b"visitor", _visitor, settings.views_per_minute_per_visitor),
            (b"network", _network, settings.views_per_minute_per_network),
        )
        self._counts = [Counts(kind, who, limit) for kind, who, limit in limits if limit is not None]
        self._lock = Lock()
        self._exchanging = Lock()
        self._minute = 0

    def admit(self, viewer: Viewer, now: datetime) -> None:
        """Count a view of `viewer` now, by the server's clock. Raises `Limited`; then it is not counted.

        Who can be told from nobody else, without an address or a user id, is not limited.
        """
        if not self._counts:
            return
        seconds = int(now.timestamp())
        if seconds // WINDOW_SECONDS != self._minute:
            self._begin(seconds // WINDOW_SECONDS, now)
        with self._lock:
            names = [(counts, counts.name_of(viewer)) for counts in self._counts]
            for counts, name in names:
                if counts.is_used_up(name):
                    rest = WINDOW_SECONDS - seconds % WINDOW_SECONDS
                    raise Limited("too many views within a minute", retry_after_seconds=rest)
            for counts, name in names:
                counts.add(name)

    def exchange(self) -> None:
        """Tell Redis what is new of this minute, and hear the sums. May be called at any time.

        Raises `RedisError`. What was told then is not told again, since Redis may have it: nobody is refused
        who is within the limit.
        """
        with self._exchanging:
            with self._lock:
                minute = self._minute
                news = [(counts, *new) for counts in self._counts for new in counts.news()]
            if not news:
                return
            arguments: list[int | bytes] = [KEPT_SECONDS]
            for _, name, amount in news:
                arguments += [name, amount]
            sums = scripts.run(self._redis, "add_and_read", [keys.limits(minute)], arguments)
            with self._lock:
                if minute == self._minute:
                    for (counts, name, _), total in zip(news, sums, strict=True):
                        counts.heard(name, total)

    def _begin(self, minute: int, now: datetime) -> None:
        key = self._key_of(site_day(now, self._zone), now)  # not under the lock: it may be asked for
        with self._lock:
            if minute != self._minute:
                self._minute = minute
                for counts in self._counts:
                    counts.begin(key)

    def _key_of(self, day: date, now: datetime) -> bytes:
        try:
            return blake2b(b"limits", key=self._day_keys({day}, now)[day], digest_size=32).digest()
        except Unavailable:
            return secrets.token_bytes(32)  # nobody else's, so that this process' counts rule


def _visitor(viewer: Viewer) -> str | None:
    if viewer.user_id is not None:
        return f"user\0{viewer.user_id}"
    return None if viewer.address is None else f"{viewer.address}\0{viewer.user_agent}"


def _network(viewer: Viewer) -> str | None:
    return None if viewer.address is None else visitors.network(viewer.address)


class Counts:
    """The views of one minute by whom, in bounded memory."""

    def __init__(self, kind: bytes, who: Callable[[Viewer], str | None], limit: int) -> None:
        self._kind = kind
        self._who = who
        self._limit = limit
        self._told_from = max(limit // TOLD_SHARE, 1)
        self._own: dict[bytes, int] = {}
        self._told: dict[bytes, int] = {}  # how many of the own ones Redis knows
        self._others: dict[bytes, int] = {}  # what the other processes had counted
        self._changed: set[bytes] = set()  # since the last exchange

    def begin(self, key: bytes) -> None:
        """Begin a minute, in which names are hashes under `key`."""
        self._hash = blake2b(digest_size=8, key=key, person=self._kind)
        for each in (self._own, self._told, self._others, self._changed):
            each.clear()

    def name_of(self, viewer: Viewer) -> bytes:
        """What the viewer is counted under: 8 bytes, none for who can be told from nobody else."""
        who = self._who(viewer)
        if who is None:
            return b""
        keyed = self._hash.copy()
        keyed.update(who.encode("utf-8", "surrogatepass"))
        return keyed.digest()

    def is_used_up(self, name: bytes) -> bool:
        """Whether `name` has had its views of the minute."""
        return self._own.get(name, 0) + self._others.get(name, 0) >= self._limit

    def add(self, name: bytes) -> None:
        """One more view."""
        if not name:
            return
        own = self._own.get(name, 0) + 1
        if own == 1 and len(self._own) >= MOST_COUNTED:
            self._forget_the_small()
        self._own[name] = own
        if own >= self._told_from:
            self._changed.add(name)

    def news(self) -> list[tuple[bytes, int]]:
        """(name, further views) that the others have to be told; they are taken for told from then on."""
        changed = list(islice(self._changed, MOST_TOLD))
        self._changed.difference_update(changed)
        news = [(name, self._own[name] - self._told.get(name, 0)) for name in changed if name in self._own]
        self._told |= {name: self._own[name] for name, _ in news}
        return news

    def heard(self, name: bytes, total: int) -> None:
        """All processes together have counted `total`."""
        if name in self._told:
            self._others[name] = max(total - self._told[name], 0)

    def _forget_the_small(self) -> None:
        median = sorted(self._own.values())[len(self._own) // 2]
        self._own = {name: own for name, own in self._own.items() if own > median}
        self._told = {name: told for name, told in self._told.items() if name in self._own}
        self._others = {name: others for name, others in self._others.items() if name in self._own}
