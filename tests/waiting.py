"""Waiting for something to be so, instead of sleeping."""

import time
from collections.abc import Callable

from sqlalchemy import Engine, text

WAITING = text("""
    SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, :part) > 0
""")


def wait_until(condition: Callable[[], object], what: str = "something", seconds: float = 30.0) -> None:
    """Poll until `condition` holds; fails naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def wait_for_growth(number: Callable[[], int], by: int = 50) -> None:
    """Until something has grown since now."""
    more = number() + by
    wait_until(lambda: number() >= more)


def transactions_waiting(engine: Engine, part: str = "") -> int:
    """How many wait for another's lock, with a statement that has this `part`."""
    with engine.connect() as connection:
        return int(connection.execute(WAITING, {"part": part}).scalar_one())
