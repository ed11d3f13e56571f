"""Reads access logs in combined format; here the data's way begins for `footfall replay`."""

import gzip
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import IO, cast

from footfall.errors import FootfallError

GZIP_MAGIC = b"\x1f\x8b"
STANDARD_INPUT = Path("-")

YEARS = range(1970, 3000)  # so that a moment also exists in UTC, and when it is shifted
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
QUOTED = rb'"((?:[^"\\]|\\.)*)"'
# host ident user [time] "request" status size "referrer" "user agent", and whatever a site appends.
# The user is the only bare field that may hold spaces.
COMBINED = re.compile(
    rb"(\S+) \S+ [^\[]+ "
    rb"\[(\d\d)/([A-Z][a-z][a-z])/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\] "
    + QUOTED
    + rb" (\d{3}) (?:\d+|-) "
    + QUOTED
    + rb" "
    + QUOTED
    + rb"(?:\s.*)?",
    re.DOTALL,
)
SHOWN_STATUSES = frozenset((b"200", b"304"))
NOT_PAGES = tuple(
    b".%s" % extension
    for extension in (
        b"png jpg jpeg gif webp svg ico css js map woff woff2 ttf eot otf xml rss atom json txt "
        b"pdf zip gz bz2 tgz mp3 mp4 webm avi swf"
    ).split()
)


class Skip(Enum):
    """Why a line is no page view, as the report says it."""

    UNREADABLE = "unreadable line"
    METHOD = "not a GET"
    STATUS = "not answered with 200 or 304"
    TARGET = "path does not start with /"
    NOT_A_PAGE = "not a page (by its extension)"
    ENCODING = "path is not UTF-8"


class UnreadableLog(FootfallError):
    """The file cannot be opened, or breaks off in the middle."""

    code = "unreadable_log"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One request as the log has it. Escapes (`\\"`) stay: the log's bytes are what is counted."""

    text: bytes  # the whole line without its end
    moment: datetime  # aware, in the line's own offset
    address: str
    request: bytes
    status: bytes
    referrer: str  # "-" when there was none
    user_agent: str


def read_line(text: bytes) -> LogLine | Skip:
    """One line of the log, told apart; `Skip.UNREADABLE` if it is in another format."""
    text = text.rstrip(b"\r\n")
    match = COMBINED.fullmatch(text)
    if match is None:
        return Skip.UNREADABLE
    address, *time, request, status, referrer, user_agent = match.groups()
    try:
        moment = _moment(time)
    except ValueError:
        return Skip.UNREADABLE
    return LogLine(text, moment, _text(address), request, status, _text(referrer), _text(user_agent))


def page_path(line: LogLine) -> str | Skip:
    """The page that was shown, byte for byte without query and fragment, or why there was none."""
    method, _, rest = line.request.partition(b" ")
    if method != b"GET":
        return Skip.METHOD
    if line.status not in SHOWN_STATUSES:
        return Skip.STATUS
    target, _, protocol = rest.rpartition(b" ")
    if not protocol.startswith(b"HTTP/"):
        target = rest  # HTTP/0.9 names no protocol
    path = re.split(rb"[?#]", target, maxsplit=1)[0]
    if not path.startswith(b"/"):
        return Skip.TARGET
    if path.lower().endswith(NOT_PAGES):
        return Skip.NOT_A_PAGE
    try:
        return path.decode()
    except UnicodeDecodeError:
        return Skip.ENCODING


@contextmanager
def open_log(path: Path) -> Iterator[IO[bytes]]:
    """The log's bytes, unpacked and seekable; `-` is standard input. Raises `UnreadableLog`."""
    try:
        with _seekable(path) as file:
            gzipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if gzipped else file
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableLog(f"{path}: {error}") from error


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    if path != STANDARD_INPUT:
        with path.open("rb") as file:
            yield file
        return
    # read twice, and a pipe cannot be; on disk, because a log may be larger than the memory
    with tempfile.TemporaryFile() as spooled:
        shutil.copyfileobj(sys.stdin.buffer, spooled)
        spooled.seek(0)
        yield spooled


def _moment(time: list[bytes]) -> datetime:
    # not strptime: it reads month names in the operator's language, and ten times slower
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = time
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    if int(year) not in YEARS:
        raise ValueError("no server wrote this")
    return datetime(
        int(year),
        MONTHS.index(month) + 1,
        int(day),
        int(hour),
        int(minute),
        int(second),
        tzinfo=timezone(-offset if sign == b"-" else offset),
    )


def _text(field: bytes) -> str:
    return field.decode(errors="replace")
