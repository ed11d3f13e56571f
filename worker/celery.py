"""The Celery application. `celery -A worker` finds it here; the schedule is in `celeryconfig.py`."""

import logging
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_ready

from footfall import logs

# They write a line a tick, some 90,000 a day
PER_TICK_LOGGERS = ("celery.app.trace", "celery.worker.strategy", "celery.beat")

app = Celery("footfall", include=["worker.tasks"])
app.config_from_object("celeryconfig")


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logs.configure()
    for name in PER_TICK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_ready.connect
def _turn_days_at_start(**_: Any) -> None:
    # a fresh installation should not wait for the first tick to have its partitions and salts
    app.send_task("footfall.turn_days", expires=60)
