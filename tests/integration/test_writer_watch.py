"""When the supervisor takes the writer for stuck: by the queue, not by the process."""

import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from footfall import stream
from footfall.cli import up
from footfall.cli.up import Part, Progress, Running
from footfall.clock import utc_now
from footfall.settings import Settings
from tests.factory import make_settings


@pytest.fixture
def writer() -> Iterator[Running]:
    """A process that has been running for long; what it does plays no part."""
    command = ["sleep", "600"]
    part = Part("worker", lambda: subprocess.Popen(command), subprocess.Popen.kill, Path("/dev/null"))
    process = part.start()
    yield Running(part, process, started_at=time.monotonic() - 3600)
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "PROGRESS_LOOK_SECONDS", 0.0)


def add_entry(redis: Redis, age_seconds: float) -> None:
    moment = utc_now() - timedelta(seconds=age_seconds)
    redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"[]"}, id=f"{int(moment.timestamp() * 1000)}-0")


def test_an_old_entry_that_stays_the_oldest_means_stuck(
    settings: Settings, redis: Redis, writer: Running
) -> None:
    add_entry(redis, age_seconds=40)
    progress = Progress(settings)
    assert not progress.writer_is_stuck(writer)  # the first look has nothing to compare
    assert progress.writer_is_stuck(writer)


def test_a_backlog_that_moves_is_progress(settings: Settings, redis: Redis, writer: Running) -> None:
    progress = Progress(settings)
    for age_seconds in (900, 600, 300):
        redis.delete(stream.STREAM_KEY)
        add_entry(redis, age_seconds)
        assert not progress.writer_is_stuck(writer)


@pytest.mark.parametrize("age_seconds", [20, None], ids=["a young entry", "an empty queue"])
def test_nothing_old_is_no_reason(
    settings: Settings, redis: Redis, writer: Running, age_seconds: float | None
) -> None:
    if age_seconds is not None:
        add_entry(redis, age_seconds)
    progress = Progress(settings)
    assert not any(progress.writer_is_stuck(writer) for _ in range(3))


def test_a_writer_that_has_just_started_is_left_alone(
    settings: Settings, redis: Redis, writer: Running
) -> None:
    add_entry(redis, age_seconds=3600)
    writer.started_at = time.monotonic() - 20
    progress = Progress(settings)
    assert not any(progress.writer_is_stuck(writer) for _ in range(3))


@pytest.mark.parametrize("away", ["DATABASE_URL", "REDIS_URL"])
def test_without_a_store_it_is_not_the_writer_s_fault(
    migrated_url: str, redis_url: str, redis: Redis, writer: Running, away: str
) -> None:
    add_entry(redis, age_seconds=3600)
    nowhere = {
        "DATABASE_URL": "postgresql://footfall@/footfall?host=/nowhere",
        "REDIS_URL": "unix:///nowhere",
    }
    values = {"DATABASE_URL": migrated_url, "REDIS_URL": redis_url, away: nowhere[away]}
    progress = Progress(make_settings(**values))
    assert not any(progress.writer_is_stuck(writer) for _ in range(3))
