"""Somebody who has pepper, database and Redis, and guesses who was here: for two days, then never."""

from datetime import timedelta
from typing import Any

from freezegun.api import FrozenDateTimeFactory

from api.parts import KEY
from footfall import retention, rollup, visitors
from footfall.clock import utc_now
from tests.integration.api import ADDRESS, FIREFOX
from tests.integration.conftest import NOW
from tests.integration.content import Site

STORY = ("story", "s1")


def everything(site: Site) -> set[bytes]:
    """Every value that the database and Redis still hold, as bytes; of numbers the 64 bits."""
    tables = site.rows(
        "SELECT quote_ident(relname) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    values = [value for (table,) in tables for row in site.rows(f"SELECT * FROM {table}") for value in row]
    for key in site.redis.scan_iter():
        values += [*key.split(b":"), site.redis.dump(key)]
        if site.redis.type(key) == b"hash":
            values += [part for pair in site.redis.hgetall(key).items() for part in pair]
    return {as_bytes(value) for value in values}


def as_bytes(value: Any) -> bytes:
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value.to_bytes(8, "big", signed=True)
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def guessed(site: Site) -> set[str]:
    """Which of what is left the right guess of a viewer leads to, with any 32 bytes left for a salt."""
    left = everything(site)
    found = set()
    for salt in (value for value in left if len(value) == 32):
        key = visitors.day_key(site.settings.pepper, salt)
        guesses = {
            "address": visitors.visitor(key, ADDRESS, FIREFOX),
            "user": visitors.visitor_of_user(key, "ann"),
        }
        for who, visitor in guesses.items():
            slot = visitors.slot(key, visitor, STORY)
            if as_bytes(visitor) in left:
                found.add(who)
            if {slot, slot.hex().encode()} & left:
                found.add(f"slot of {who}")
    return found


def test_two_days_later_the_right_guess_is_as_good_as_any(either: Site, clock: FrozenDateTimeFactory) -> None:
    site = either
    site.story("s1")
    site.story("s1", user="ann")
    site.write()
    rollup.roll_forward(site.engine, NOW.date(), utc_now())
    assert guessed(site) == {"address", "user", "slot of address", "slot of user"}
    clock.move_to(NOW + timedelta(hours=47))
    retention.turn_days(site.engine, site.settings, utc_now())
    assert guessed(site) >= {"address", "user"}, "the attack goes on working as long as is said"
    clock.move_to(NOW + timedelta(hours=48, minutes=1))
    retention.turn_days(site.engine, site.settings, utc_now())
    site.story("s2", agent="Another")
    assert site.rows("SELECT count(*) FROM view_events WHERE visitor IS NOT NULL") >= [(2,)]
    assert guessed(site) == set()
    held = site.client.application.extensions[KEY].salts
    assert NOW.date() not in {*held._held, *held._keys}
