"""A replayed log comes out as an independent count of it says, whatever happens on the way."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from footfall.cli import geo
from footfall.cli.data_dir import DataDir
from footfall.clock import utc_now
from tests.functional.instance import Instance, Process, alive, descendants
from tests.log_count import (
    SITE,
    Count,
    answer_differences,
    count,
    row_differences,
    stored_rows,
)
from tests.unit import mmdb
from tests.waiting import wait_until

YESTERDAY = utc_now().date() - timedelta(days=1)
BIG_LOG_LINES = 20_000

AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 11; KFTRWI) Silk/132.4.1 like Chrome/132.0.0.0 Safari/537.36",
    "Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) Version/7.0 TV Safari/537.36",
    r"A browser that calls itself \"the \\ best\" one",
    "Größenwahn 1.0 ünïcödé \u2603",
    "not \udcff\udcfe UTF-8",
    "-",
    "",
    " ",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.14.1",
)
ADDRESSES = (
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.77",
    "2001:db8::1",
    "2001:DB8:0:0::1",
    "::ffff:192.0.2.1",
    "no-address.example",
)
TARGETS = (
    "/",
    "/a",
    "/A",
    "/a/",
    "/a?x=1",
    "/a#b?c",
    "/?",
    "//a",
    "/a b",
    "/caf%C3%A9",
    "/café",
    "/caf\udce9",
    r"/quo\"te",
    "/'; DROP TABLE entities; --",
    "/%00",
    "/a\x01b",
    "/..;/x",
    "/a.png",
    "/a.PNG?x",
    "/a.png/",
    "/feed.xml",
    "/png",
    "/a,b{c}\u2028d",
    "/" + "long/" * 400,
    "/" + "x" * 2047,
    "/" + "x" * 2048,
    "/" + "é" * 1024,
    "http://example.com/a",
    "*",
    "",
)
METHODS = ("GET",) * 12 + ("HEAD", "POST", "get", "")
STATUSES = (200,) * 8 + (304, 206, 301, 404, 500)
REFERRERS = (
    "-",
    "",
    "https://Example.com/x",
    "http://example.com.:8080/",
    'https://news.example/a?b=\\"c\\"',
    "android-app://com.example",
    "/relative",
    "http://[broken",
    "x" * 3000,
)
TIMES = (
    "16/May/2015:00:00:00 +0000",
    "16/May/2015:23:59:59 +0000",
    "17/May/2015:00:00:00 +0000",
    "17/May/2015:02:00:00 +0500",
    "17/May/2015:12:34:56 +0000",
    "18/May/2015:03:00:00 +0330",
)


def nasty_log(lines: int) -> bytes:
    """Every oddity that logs have, in every combination that comes up, many lines equal."""
    chance = random.Random(17)
    rows = [
        f"{chance.choice(ADDRESSES)} - - [{chance.choice(TIMES)}] "
        f'"{chance.choice(METHODS)} {chance.choice(TARGETS)} HTTP/1.1" {chance.choice(STATUSES)} 5 '
        f'"{chance.choice(REFERRERS)}" "{chance.choice(AGENTS)}"'
        for _ in range(lines)
    ]
    odd = ["", "garbage", '192.0.2.1 - - [x] "GET /a HTTP/1.1" 200 5 "-" "-"', "\udcff" * 100]
    rows += [*odd, *rows[: lines // 10]]
    chance.shuffle(rows)
    return "\n".join(rows).encode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="footfall-replay-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def instance(folder: Path) -> Iterator[Instance]:
    """An instance that holds one log and nothing else."""
    with Instance(folder / "data").running() as running:
        yield running


def test_a_nasty_log_replayed_twice_is_what_counting_it_gives(instance: Instance, folder: Path) -> None:
    log = write_log(folder, nasty_log(6_000))
    counted = count(log.read_bytes().split(b"\n"), YESTERDAY)
    assert sum(row["views"] for (subject, _), row in counted.items() if subject == SITE) > 1_000
    for _ in range(2):
        output = replay(instance, log)
        assert "ip: must be an IP address" in output
        assert "path is not UTF-8" in output
        settle(instance)
        assert differences(instance, counted) == []
    token = instance.cli("token", "--role", "moderator", "--subject", "tester").stdout.strip()
    subjects = sorted({subject for subject, _ in counted})
    assert answer_differences(counted, instance.url, token, subjects, days=7) == []


def test_killing_the_writer_in_the_middle_loses_and_doubles_nothing(instance: Instance, folder: Path) -> None:
    log = write_log(folder, nasty_log(BIG_LOG_LINES))
    counted = count(log.read_bytes().split(b"\n"), YESTERDAY)
    sending = subprocess.Popen(
        instance.command("replay", str(log), "--shift-to", str(YESTERDAY)),
        env=instance.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    events = sum(row["views"] + row["bots"] for (subject, _), row in counted.items() if subject == SITE)
    for share in (0.1, 0.5):
        wait_until(partial(more_rows_than, instance, share * events), "rows", 60)
        kill_writer(instance)
        assert not more_rows_than(instance, events - 1)  # else it was not in the middle
    output, _ = sending.communicate(timeout=120)
    assert sending.returncode == 0, output
    settle(instance)
    assert differences(instance, counted) == []


def test_what_is_too_old_is_told(instance: Instance, folder: Path) -> None:
    result = instance.cli("replay", str(write_log(folder, nasty_log(300))))
    assert result.returncode == 1
    assert f"--shift-to {utc_now().date() - timedelta(days=1)}" in result.stdout
    assert "every event was refused" in result.stderr


def test_a_wrong_key_is_told(instance: Instance, folder: Path) -> None:
    result = instance.cli("replay", str(write_log(folder, nasty_log(300))), "--key", "ffk_wrong")
    assert result.returncode == 1
    assert "401" in result.stderr


@pytest.mark.parametrize("countries", [True, False], ids=["countries", "offline"])
def test_the_demo_shows_numbers_and_leaves_nothing_behind(tmp_path: Path, countries: bool) -> None:
    with demo(tmp_path if countries else None) as (process, temporary):
        started = watch(process, lambda _: process.poll() is not None)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert f"{utc_now().date()}" in output
        assert "/field-notes/" in output
        assert ("IP to country: DB-IP" in output) is countries
        assert ("no countries in this demo: npm could not bring" in output) is not countries
        assert len(started) > 6
        assert not alive(started)
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "parts"),
    [(signal.SIGINT, 6), (signal.SIGTERM, 15)],
    ids=["ctrl-c-while-starting", "sigterm-while-running"],
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(number: signal.Signals, parts: int) -> None:
    with demo() as (process, temporary):
        started = watch(process, lambda found: len(found) > parts)
        process.send_signal(number)
        started |= watch(process, lambda _: process.poll() is not None)
        output, _ = process.communicate()
        assert process.returncode == 1, output
        assert not alive(started)
        assert list(temporary.iterdir()) == []


@contextmanager
def demo(data_dir: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A demo under way and the folder for its folder; it must not care for the operator's database.

    In `data_dir` a country file is installed; without one it is offline.
    """
    temporary = Path(tempfile.mkdtemp(prefix="ffd-", dir="/tmp"))
    programs = Path(tempfile.mkdtemp(prefix="ffd-bin-", dir="/tmp"))
    (programs / "npm").write_text("#!/bin/sh\nexit 1\n")
    (programs / "npm").chmod(0o755)
    if data_dir:
        mmdb.write(programs / "dbip.mmdb", "8.8.8.8", {"country_code": "US"})
        geo.install(DataDir(data_dir), programs / "dbip.mmdb")
    process = subprocess.Popen(
        [sys.executable, "-m", "footfall", "demo"],
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "DATABASE_URL": "postgresql://not.used/x",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FOOTFALL_DATA_DIR": str(data_dir or temporary / "none"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, temporary
    finally:
        process.terminate()
        process.communicate(timeout=90)
        shutil.rmtree(temporary)
        shutil.rmtree(programs)


def watch(process: subprocess.Popen[str], end: Callable[[set[Process]], bool]) -> set[Process]:
    """All processes that were seen below `process` until `end` was reached."""
    seen: set[Process] = set()

    def ended() -> bool:
        seen.update(descendants(process.pid))
        return end(seen)

    wait_until(ended, "the demo", 120)
    return seen


def write_log(folder: Path, content: bytes) -> Path:
    log = folder / "access.log"
    log.write_bytes(content)
    return log


def replay(instance: Instance, log: Path, shift_to: date = YESTERDAY) -> str:
    result = instance.cli("replay", str(log), "--shift-to", str(shift_to))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def settle(instance: Instance) -> None:
    """Wait until everything is written, and roll up."""
    wait_until(lambda: queue_length(instance) == 0, "the queue to be empty", 90)
    result = instance.cli("rollup")
    assert result.returncode == 0, result.stderr


def queue_length(instance: Instance) -> int:
    checks = instance.get("/api/health/ready").json["checks"]
    return int(checks["queue"].get("entries", -1))


def differences(instance: Instance, counted: Count) -> list[str]:
    return row_differences(counted, stored_rows(instance.run["postgres"]["url"]))


def kill_writer(instance: Instance) -> None:
    pid = instance.run["worker"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: instance.run["worker"]["pid"] != pid, "another writer")


def more_rows_than(instance: Instance, least: float) -> bool:
    engine = instance.engine()
    try:
        with engine.connect() as connection:
            query = text("SELECT count(*) FROM view_events")
            return int(connection.execute(query).scalar_one()) > least
    finally:
        engine.dispose()
