"""Whether a store is used: while it is away nobody waits for it but one, who looks now and then."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

log = logging.getLogger(__name__)

AWAY_SECONDS = 2.0  # between attempts on a store that is away; nobody waits for it meanwhile


class Breaker:
    """Of one store in one process. Open: the store is away."""

    def __init__(self, store: str, then: str, *, enabled: bool = True) -> None:
        """`then` says what becomes of those who would use `store`, for the log."""
        self._store = store
        self._then = then
        self._enabled = enabled
        self._lock = Lock()
        self._away_since: float | None = None
        self._look_at = 0.0
        self._is_looking = False
        self._is_returning = False

    @property
    def is_closed(self) -> bool:
        """Whether requests may use the store."""
        return self._enabled and self._away_since is None

    @property
    def may_be_used(self) -> bool:
        """Whether somebody may use the store now or is about to: what goes past it has to be told to it."""
        return self._enabled and (self._away_since is None or self._is_returning)

    @property
    def away_seconds(self) -> float:
        """For how long the store has been away; without end when it is not to be used."""
        if not self._enabled:
            return float("inf")
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def open(self, error: Exception) -> None:
        """The store has failed. Warns once for each time that it goes away."""
        with self._lock:
            now = time.monotonic()
            self._look_at = now + AWAY_SECONDS
            if self._away_since is None:
                self._away_since = now
                log.warning(f"{self._store} is away, {self._then}", extra={"error": type(error).__name__})

    def close(self) -> None:
        """The store is back."""
        with self._lock:
            self._away_since = None
        log.warning(f"{self._store} is back")

    @property
    def is_time_to_look(self) -> bool:
        """Whether nobody has looked for a while and nobody does."""
        return self._enabled and not self._is_looking and time.monotonic() >= self._look_at

    @contextmanager
    def looking(self) -> Iterator[bool]:
        """Whether this caller is the one to look until the block ends; the others go on as before."""
        with self._lock:
            is_due = self._enabled and time.monotonic() >= self._look_at
            is_the_one = is_due and not self._is_looking
            self._is_looking = self._is_looking or is_the_one
        try:
            yield is_the_one
        finally:
            if is_the_one:
                with self._lock:
                    self._is_looking = self._is_returning = False
                    self._look_at = time.monotonic() + AWAY_SECONDS

    def begin_return(self) -> None:
        """The store answers the one who looks. From here on, nothing goes past it untold."""
        self._is_returning = True
