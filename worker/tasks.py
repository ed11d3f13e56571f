"""The tasks: a clock, the connections, a plain function. What they do stands in `footfall`."""

import contextlib
import gc
import os
from functools import cache
from typing import Any, NamedTuple

from celery import Task
from celery.signals import task_failure, task_success, worker_init
from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from footfall import liveness, retention, rollup, schema_check, stream, verify, writer
from footfall.answers import Answers
from footfall.clock import site_day, utc_now
from footfall.database import make_engine
from footfall.errors import SchemaError
from footfall.settings import Settings
from worker.celery import app


class Stores(NamedTuple):
    """What every task needs; made at the first task of a process, never before a fork."""

    settings: Settings
    engine: Engine
    redis: Redis


@cache
def stores() -> Stores:
    """The process' settings and lazily connecting clients."""
    settings = Settings.from_mapping(os.environ)
    return Stores(settings, make_engine(settings), stream.connect(settings))


def is_stopping() -> bool:
    """Whether this worker was told to stop; a long drain looks at it between batches."""
    # an exit status when it was told to, 0 among them
    flags: list[Any] = [state.should_stop, state.should_terminate]
    return any(flag is not None and flag is not False for flag in flags)


@worker_init.connect
def _refuse_a_drifted_schema(**_: Any) -> None:
    engine = make_engine(stores().settings)
    try:
        schema_check.require_at_start(engine)
    except SchemaError as error:
        # Celery only logs what else a signal's receiver raises
        raise SystemExit(f"error: {error}") from error
    finally:
        engine.dispose()  # a pool's processes must not inherit its connections


@worker_init.connect
def spare_the_garbage_collector(**_: Any) -> None:
    """Let it look less often."""
    # the writer makes and drops objects by the ten thousand, none of them in a cycle: looking through all
    # that the process has for each few hundred of them takes a sixth of its time
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@task_success.connect
def _note_success(sender: Task[..., None], **_: Any) -> None:
    _note_run(sender, "")


@task_failure.connect
def _note_failure(sender: Task[..., None], exception: Exception, **_: Any) -> None:
    _note_run(sender, type(exception).__name__)


def _note_run(task: Task[..., None], error: str) -> None:
    """What the doctor compares with the schedule. Without Redis there is no schedule either."""
    with contextlib.suppress(RedisError):
        liveness.note_run(stores().redis, task.name or "", utc_now(), error)


@app.task(name="footfall.write_events", bind=True)
def write_events(self: Task[[], None]) -> None:
    """Every second: write what is queued. The worker's name is its place in the consumer group, so that a
    restarted worker goes on with its own unfinished entries at once.
    """
    settings, engine, redis = stores()
    writer.drain(engine, redis, settings, self.request.hostname or "writer", is_stopping)


@app.task(name="footfall.turn_days")
def turn_days() -> None:
    """Make partitions and salts ahead, delete the salts past their time."""
    settings, engine, _ = stores()
    retention.turn_days(engine, settings, utc_now())


@app.task(name="footfall.roll_up")
def roll_up() -> None:
    """Nightly: roll up the day that is over, and every closed day that is not clean."""
    settings, engine, _ = stores()
    now = utc_now()
    rollup.roll_up_closed_days(engine, site_day(now, settings.time_zone), now, recheck=True)


@app.task(name="footfall.catch_up")
def catch_up() -> None:
    """Every minute: add what came to the daily rows of the days that still get events, if it is worth it."""
    settings, engine, _ = stores()
    now = utc_now()
    rollup.catch_up(engine, site_day(now, settings.time_zone), now, sparing=True)


@app.task(name="footfall.audit")
def audit() -> None:
    """Nightly: compare everything that is stored, while the day that is to be dropped is still there."""
    settings, engine, redis = stores()
    verify.audit(engine, redis, settings, utc_now())


@app.task(name="footfall.drop_expired")
def drop_expired() -> None:
    """Let go of what is past its retention."""
    settings, engine, redis = stores()
    retention.drop_expired(engine, redis, settings, utc_now())


@app.task(name="footfall.refresh_answers")
def refresh_answers() -> None:
    """Compute ahead what the dashboard shows first."""
    settings, engine, redis = stores()
    Answers(engine, redis, settings).refresh_ahead(utc_now())
