"""How every process logs: one line an event, a constant message, then the values as key=value.

Nothing personal goes into a message or a value. Access logs stay off: they would keep what we hash.
"""

import logging
import sys
import time

# The last one warns of every request that is none
LIBRARIES = {"werkzeug": logging.WARNING, "uvicorn.error": logging.ERROR}
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """`2026-11-20T08:00:00Z INFO footfall.writer: events written entries=3`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """The line, with what was passed as `extra` appended."""
        values = {key: value for key, value in vars(record).items() if key not in STANDARD}
        return " ".join([super().formatMessage(record), *map(_pair, values.items())])


def configure(level: int = logging.INFO) -> None:
    """Log to standard error from `level` up. May be called twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, its_level in LIBRARIES.items():
        logging.getLogger(name).setLevel(its_level)


def _pair(item: tuple[str, object]) -> str:
    key, value = item
    text = str(value)
    # a value with blanks or line ends is quoted, so that a line stays a line and can be read back
    return f"{key}={text}" if text and text.isprintable() and " " not in text else f"{key}={text!r}"
