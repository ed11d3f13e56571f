"""A sign of life of this process once a minute, so that days without one can be told from quiet ones."""

import logging
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from footfall import liveness
from footfall.clock import utc_now

log = logging.getLogger(__name__)


def start(engine: Engine) -> None:
    """Say so from a thread of its own until the process ends."""
    threading.Thread(target=_beat, args=(engine,), name="heartbeat", daemon=True).start()


def _beat(engine: Engine) -> None:
    while True:
        try:
            with engine.begin() as connection:
                liveness.note_alive(connection, utc_now())
        except SQLAlchemyError as error:
            log.warning("no sign of life could be given", extra={"error": type(error).__name__})
        time.sleep(liveness.INTERVAL_SECONDS)
