"""Of many who would look whether a store is back, one does, in time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import psycopg2
import pytest

from footfall import breaker, patience
from footfall.breaker import Breaker


def test_one_looks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.0)
    one = Breaker("It", "nobody minds")
    one.open(OSError())
    together = Barrier(8)

    def look(_: int) -> bool:
        together.wait()
        with one.looking() as is_the_one:
            together.wait()
            return is_the_one

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(look, range(8))) == 1


def test_a_look_at_postgresql_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "AWAY_SECONDS", 0.0)
    door = patience.Door(30.0)
    door._breaker.open(OSError())
    looking, may_end, looks = Event(), Event(), []

    def connect(*_: Any) -> None:
        looks.append(1)
        looking.set()
        may_end.wait(30)
        raise psycopg2.OperationalError

    monkeypatch.setattr(door, "_connect", connect)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(door._look, [], {})
        looking.wait(30)
        door._look([], {})
        for _ in range(3):
            with pytest.raises(psycopg2.OperationalError, match="somebody looks"):
                door.connect(None, None, [], {})
        may_end.set()
        first.result()
    assert len(looks) == 1
    assert door._breaker.is_closed  # it failed at once
