"""Celery, as data: the broker, what is acknowledged when, and who runs when."""

import os

from celery.schedules import crontab

from footfall.keys import CELERY_PREFIX
from footfall.settings import celery_broker_url

broker_url = celery_broker_url(os.environ.get("REDIS_URL", ""))
broker_connection_retry_on_startup = True
broker_transport_options = {"global_keyprefix": CELERY_PREFIX}

# A tick carries nothing: the next tick is the retry, so nothing is redelivered and no result is kept
task_ignore_result = True
task_acks_late = False
task_default_queue = "upkeep"
task_routes = {"footfall.write_events": {"queue": "write"}}
# No limit: with one, a Redis that dies while a tick is acknowledged leaves kombu believing that the limit is
# reached, and the worker never asks for another. Ticks are tiny, and a busy worker asks for none.
worker_prefetch_multiplier = 0
worker_send_task_events = False
worker_hijack_root_logger = False
worker_enable_remote_control = False

timezone = os.environ.get("FOOTFALL_TIME_ZONE") or "UTC"  # what "nightly" means
enable_utc = True

# Who runs when. Ticks that nobody took in a minute are dropped; shorter, and two clocks that differ by
# some seconds would drop every one of them.
TICK = {"expires": 60}
beat_schedule = {
    "write-events": {"task": "footfall.write_events", "schedule": 1.0, "options": TICK},
    "turn-days": {"task": "footfall.turn_days", "schedule": 600.0, "options": TICK},
    "roll-up-nightly": {"task": "footfall.roll_up", "schedule": crontab(hour="0", minute="10")},
    "catch-up": {"task": "footfall.catch_up", "schedule": 60.0, "options": TICK},
    "refresh-answers": {"task": "footfall.refresh_answers", "schedule": 240.0, "options": TICK},
    "audit": {"task": "footfall.audit", "schedule": crontab(hour="0", minute="20")},
    "drop-expired": {"task": "footfall.drop_expired", "schedule": crontab(hour="0,6", minute="40")},
}
