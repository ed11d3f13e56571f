"""A log line: what happened, then the values."""

import logging

from footfall.logs import KeyValueFormatter


def line(extra: dict[str, object]) -> str:
    logger = logging.Logger("footfall.writer")
    return KeyValueFormatter().format(
        logger.makeRecord("footfall.writer", logging.INFO, "f.py", 1, "written", (), None, extra=extra)
    )


def test_a_line_ends_with_its_values() -> None:
    assert line({"entries": 3, "day": "2026-11-20"}).endswith(
        "Z INFO footfall.writer: written entries=3 day=2026-11-20"
    )


def test_a_line_without_values_ends_with_its_message() -> None:
    assert line({}).endswith("INFO footfall.writer: written")


def test_a_value_never_makes_a_second_line() -> None:
    assert line({"problem": "a b\nERROR forged"}).endswith(r"written problem='a b\nERROR forged'")
