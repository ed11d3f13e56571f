"""Many values on their way to PostgreSQL: in the forms that it reads fastest.

A stream in the binary format of COPY is HEADER, rows, END; a row is the number of its columns in 16 bits, and
each of them after its size in 32 bits: https://www.postgresql.org/docs/current/sql-copy.html
"""

import struct
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
EPOCH_MICROSECONDS = (datetime(2000, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
    microseconds=1
)  # what a timestamptz counts from
EPOCH_DAY = date(2000, 1, 1).toordinal()
SIZE = struct.Struct("!i")


def text(value: str) -> bytes:
    """A text's column. Refuses what is no text, and the two kinds of it that Python and JSON carry and
    PostgreSQL does not: `TypeError`, `ValueError`.
    """
    if "\0" in value:
        raise ValueError("a NUL character")
    encoded = value.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
    return SIZE.pack(len(encoded)) + encoded


def array(texts: Iterable[str]) -> str:
    """A text[] as a literal. A list would be sent as ARRAY[...], which takes longer to parse than to use."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def numbers(values: Iterable[int]) -> str:
    """The same of numbers."""
    return "{" + ",".join(map(str, values)) + "}"
