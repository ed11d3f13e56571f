"""The random part of a day's visitor keys. When it is gone, nobody can tell again who was who.

Salts are rows in PostgreSQL, so that all processes hash alike. Each process holds those of the days
that views happen on, tomorrow's included: midnight then passes also while the database is away.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Set
from datetime import UTC, date, datetime, timedelta, tzinfo
from threading import Lock

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from footfall import visitors
from footfall.clock import day_start, site_day
from footfall.errors import Unavailable
from footfall.schema import Salt

SALT_BYTES = 32
LIFETIME = timedelta(hours=48)  # from the day's beginning, or from the row's if that is later
RETRY = timedelta(seconds=5)  # between attempts on a database that is away
NEVER = datetime.min.replace(tzinfo=UTC)


class SaltCache:
    """The salts that one process holds: tomorrow's, today's and those of days begun within 48 h."""

    def __init__(self, engine: Engine, zone: tzinfo, pepper: bytes = b"") -> None:
        self._engine = engine
        self._zone = zone
        self._pepper = pepper
        self._keys: dict[date, bytes] = {}  # of days held, and never longer
        self._held: Mapping[date, bytes] = {}  # replaced, never changed: readers take no lock
        self._lock = Lock()
        # between these two moments there is nothing to fetch and nothing to drop
        self._settled_from = NEVER
        self._settled_until = NEVER
        self._away = False

    def for_day(self, day: date, now: datetime) -> bytes:
        """The salt of `day`, made if there is none. Raises `Unavailable` without the database."""
        return self.for_days((day,), now)[day]

    def for_days(self, days: Collection[date], now: datetime) -> dict[date, bytes]:
        """The salts of `days`, made where there are none, in at most one transaction.

        Those of days too old to be held are fetched at each call. Raises `Unavailable` when one is
        neither in memory nor to be had from the database.
        """
        self._hold_current(now)
        held = self._held
        found = {day: held[day] for day in days if day in held}
        missing = [day for day in days if day not in found]
        if missing and self._away:
            raise Unavailable("the visitor keys of the day cannot be read now")
        return found | self._fetch(missing, now) if missing else found

    def are_at_hand(self, now: datetime) -> bool:
        """Whether the salts of yesterday to tomorrow are held, so that nobody has to wait for them."""
        return self._settled_from <= now < self._settled_until and site_day(now, self._zone) in self._held

    def keys_for_days(self, days: Set[date], now: datetime) -> Mapping[date, bytes]:
        """The keys of `days`' visitors, perhaps with others. Raises `Unavailable` as above."""
        if self._settled_from <= now < self._settled_until and self._keys.keys() >= days:
            return self._keys
        salts, keys, held = self.for_days(days, now), self._keys, self._held
        found = {}
        for day, salt in salts.items():
            key = keys.get(day)
            if key is None:
                key = visitors.day_key(self._pepper, salt)
                if day in held:
                    keys[day] = key
            found[day] = key
        return found

    def _hold_current(self, now: datetime) -> None:
        if self._settled_from <= now < self._settled_until:
            return
        today = site_day(now, self._zone)
        # while one thread tries the database, the others go on with what is held
        if self._lock.acquire(blocking=today not in self._held):
            try:
                if not self._settled_from <= now < self._settled_until:
                    self._renew(today, now)
            finally:
                self._lock.release()

    def _renew(self, today: date, now: datetime) -> None:
        """Drop what is past, fetch yesterday's to tomorrow's, note until when that is enough.

        Yesterday's too: ids reach back a day, and a slot may be of the day before.
        """
        yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
        kept = {day: salt for day, salt in self._held.items() if now < self._end_of(day)}
        until = day_start(tomorrow, self._zone)
        try:
            self._held = kept | self._fetch({yesterday, today, tomorrow} - kept.keys(), now)
            self._away = False
        except Unavailable:
            self._held = kept
            self._away = True
            until = now + RETRY
        self._keys = {}  # after the salts: who still has the old ones writes into the old keys
        self._settled_from = now
        self._settled_until = min([until, *map(self._end_of, kept)])

    def _end_of(self, day: date) -> datetime:
        return day_start(day, self._zone) + LIFETIME

    def _fetch(self, days: Collection[date], now: datetime) -> dict[date, bytes]:
        if not days:
            return {}
        try:
            with self._engine.begin() as connection:
                return ensure(connection, days, now)
        except SQLAlchemyError as error:
            raise Unavailable("the visitor keys of the day cannot be read now") from error


def ensure(connection: Connection, days: Collection[date], now: datetime) -> dict[date, bytes]:
    """The salts of `days`, made where there are none. The caller commits; may be called twice.

    Whoever inserts first decides: the others wait for that commit and read the same salt.
    """
    found = _read(connection, days)
    missing = sorted(set(days) - found.keys())  # sorted: two processes wait, and do not deadlock
    if not missing:
        return found
    connection.execute(
        insert(Salt).on_conflict_do_nothing(index_elements=["day"]),
        [{"day": day, "salt": secrets.token_bytes(SALT_BYTES), "created_at": now} for day in missing],
    )
    return found | _read(connection, missing)


def make_ahead(connection: Connection, today: date, now: datetime) -> None:
    """Make today's and tomorrow's salts. The caller commits; may be called twice."""
    ensure(connection, (today, today + timedelta(days=1)), now)


def delete_expired(connection: Connection, now: datetime, zone: tzinfo) -> int:
    """Delete salts 48 h after their day began or their row was made, whichever is later; how many.

    The caller commits; may be called twice.
    """
    return connection.execute(delete(Salt).where(*_expired(now, zone))).rowcount


def overdue(connection: Connection, now: datetime, zone: tzinfo) -> int:
    """How many salts there are that should have been deleted by now."""
    return connection.scalars(select(func.count()).select_from(Salt).where(*_expired(now, zone))).one()


def _expired(now: datetime, zone: tzinfo) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    limit = now - LIFETIME
    # a day began at or before a moment exactly if it is not after the moment's own day
    return Salt.day <= site_day(limit, zone), Salt.created_at <= limit


def kept(connection: Connection) -> dict[date, bytes]:
    """The salts that there still are."""
    return {row.day: bytes(row.salt) for row in connection.execute(select(Salt.day, Salt.salt))}


def _read(connection: Connection, days: Iterable[date]) -> dict[date, bytes]:
    rows = connection.execute(select(Salt.day, Salt.salt).where(Salt.day.in_(list(days))))
    return {row.day: bytes(row.salt) for row in rows}
