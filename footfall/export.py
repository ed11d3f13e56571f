"""The daily rows as CSV, made row by row."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# A spreadsheet takes a text that begins so for a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A header and a line a row (RFC 4180). Texts cannot be taken for formulas."""
    header: list[str] | None = None
    for row in rows:
        if header is None:
            header = list(row)
            yield _line(header)
        yield _line([_cell(row[name]) for name in header])


def _line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
