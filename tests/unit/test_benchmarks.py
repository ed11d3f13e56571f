"""The parts of the benchmarks that compute: a wrong one would make every figure wrong."""

import json
import random
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import machine, memory, plots, report, traffic, wrk
from footfall.errors import FootfallError
from footfall.visitors import normalise_address

OUTPUT = """Running 2s test @ http://127.0.0.1:8000
  1 threads and 64 connections
Requests/sec:   5000.00
RESULT {"seconds": 2.004, "answers": 99, "refused": 9, "broken": 1, "p50_ms": 9.5, "p99_ms": 31, "max_ms": 8}
"""


def stat(pid: int, parent: int, *times: int, name: str = "python") -> list[str]:
    """/proc/PID/stat, with user and system time, and those of ended children."""
    before = f"S {parent} {pid} {pid} 0 -1 4194304 100 0 0 0"
    return machine.fields(f"{pid} ({name}) {before} {' '.join(map(str, times))} 20 0 4 0 77 1000 200")


def test_wrks_result_is_read() -> None:
    load = wrk.parse(OUTPUT, cpu_seconds=1.234)
    assert (load.seconds, load.accepted, load.broken) == (2.004, 90, 1)
    assert (load.p50_ms, load.p99_ms, load.cpu_seconds) == (9.5, 31, 1.23)


def test_no_result_is_an_error_that_quotes_wrk() -> None:
    with pytest.raises(FootfallError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:8000 Connection refused\n")


def test_cpu_is_that_of_the_living_and_of_the_ended() -> None:
    ticks = machine.TICKS
    stats = {
        10: stat(10, 1, 1 * ticks, 2 * ticks, 30 * ticks, 40 * ticks),
        11: stat(11, 10, 100 * ticks, 0, 0, 0, name="a) b (c"),
        12: stat(12, 11, 0, 200 * ticks, 0, 0),
        20: stat(20, 1, 5000 * ticks, 0, 0, 0),
    }
    assert machine.cpu_seconds({"api": 10, "gone": 99}, stats) == {"api": 373.0, "gone": 0.0}


def test_a_part_of_its_own_is_not_its_starters() -> None:
    stats = {
        1: stat(1, 0, 0, 0, 0, 0),
        10: stat(10, 1, 0, 0, 0, 0),
        11: stat(11, 10, 0, 0, 0, 0),
        20: stat(20, 1, 0, 0, 0, 0),
        21: stat(21, 20, 0, 0, 0, 0),
    }
    found = machine.members({"supervisor": 1, "api": 10}, stats)
    assert found == {"supervisor": {1, 20, 21}, "api": {10, 11}}


def test_the_machine_is_described_without_a_name_or_a_path() -> None:
    about = machine.describe()
    assert {"cpu", "cores", "memory_gb", "kernel", "python", "granian"} <= about.keys()
    assert "/" not in str(about.values()).replace("(R)", "")


def test_paths_follow_zipfs_law() -> None:
    rng = random.Random(7)
    weights = traffic.zipf_weights(1_000, skew=1.0)
    drawn = rng.choices(range(1, 1_001), cum_weights=weights, k=100_000)
    # the harmonic number of a thousand is 7.4855
    assert drawn.count(1) / 100_000 == pytest.approx(1 / 7.4855, rel=0.03)
    assert drawn.count(1) / drawn.count(10) == pytest.approx(10, rel=0.15)


def test_requests_are_what_browsers_of_many_people_send(tmp_path: Path) -> None:
    traffic.write_requests(tmp_path / "requests.txt", n=3_000)
    requests = (tmp_path / "requests.txt").read_bytes().decode().split("\1")
    assert len(requests) == 3_001
    assert requests.pop() == ""
    parts = [request.split("\r\n\r\n") for request in requests]
    fields = [dict(line.split(": ", 1) for line in head.split("\r\n")[1:]) for head, _ in parts]
    bodies = [body + '01a0a5a6-7f4b-7a3c-8a3c-0123456789ab"}' for _, body in parts]
    assert all(json.loads(body).keys() == {"path", "referrer", "id"} for body in bodies)
    assert [int(its["Content-Length"]) for its in fields] == [len(body) for body in bodies]
    found = {its["X-Forwarded-For"] for its in fields}
    assert len(found) > 2_500
    assert {normalise_address(address) for address in found} == found
    assert len({its["User-Agent"] for its in fields}) == len(set(traffic.USER_AGENTS)) == 50
    traffic.write_requests(tmp_path / "again.txt", n=3_000)
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "requests.txt").read_bytes()


def test_events_are_of_their_day_and_groups_lose_none() -> None:
    day = date(2026, 3, 10)
    events = list(traffic.events(day, 2_000, entities=50))
    assert {event.day for event in events} == {event.occurred_at.date() for event in events} == {day}
    assert len({event.id for event in events}) == 2_000
    assert len({event.name for event in events}) <= 50
    groups = list(traffic.groups(events, random.Random(1), mean=16))
    assert [event for group in groups for event in group] == events
    assert 12 < 2_000 / len(groups) < 20


def test_a_trend_is_told_from_noise() -> None:
    amounts = [n * 10_000.0 for n in range(101)]
    flat = memory.trend(amounts, [100.0 + n % 2 for n in range(101)])
    assert abs(flat["mb_per_million_views"]) < 0.1
    leaking = memory.trend(amounts, [100.0 + n * 0.05 for n in range(101)])
    assert leaking["mb_per_million_views"] == pytest.approx(5.0)
    filling = memory.trend(amounts, [min(50.0, n) for n in range(101)])
    assert (filling["mb_per_million_views"], filling["last_quarter_mb"]) == (0, 50)
    assert (leaking["first_quarter_mb"], leaking["last_quarter_mb"]) == (100.62, 104.38)


def test_ratios_say_how_much_better_ours_is() -> None:
    assert report.ratio(0.1, 3.6) == "36 x"
    assert report.ratio(9_000, 300, more_is_better=True) == "30 x"
    assert report.ratio(0, 3.6) == report.ratio(True, True) == report.ratio(1, None) == ""


def test_axes_begin_and_end_on_whole_ticks() -> None:
    log = plots.Axis.over([10_000, 1_000_000], 0, 200, log=True)
    assert log.ticks() == [1e4, 1e5, 1e6]
    assert [log(value) for value in (1e4, 1e5, 1e6)] == [0, 100, 200]
    linear = plots.Axis.over([0.13, 3.6], 0, 400)
    assert linear.ticks() == [0, 1, 2, 3, 4]
    assert linear(3.6) == 360


def test_charts_are_xml_whatever_their_names_are() -> None:
    line = plots.lines("A < B", "x & y", "z", {"<one>": [(1, 2), (10, 3)], "two": [(1, 5)]}, log_x=True)
    bar = plots.bars("A < B", "s", {"ours": {"a & b": 0.1}, "baseline": {"a & b": 3.6, "c": 0.2}})
    for chart in (line, bar):
        root = ElementTree.fromstring(chart)  # noqa: S314 - of our own making
        assert root.get("aria-label") == "A < B"
    assert "3.8" in bar
