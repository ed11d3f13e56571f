"""The Celery application. `celery -A worker` finds it here; the schedule is in `celeryconfig.py`."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_ready

from footfall import logs

app = Celery("footfall", include=["worker.tasks"])
app.config_from_object("celeryconfig")


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logs.configure()


@worker_ready.connect
def _prepare_days_at_start(**_: Any) -> None:
    # a fresh installation should not wait for the first tick to have its partitions and salts
    app.send_task("footfall.prepare_days", expires=60)
