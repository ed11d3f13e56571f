"""`footfall replay`: an access log's page views, sent with the time at which they happened."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import UUID

import click

from footfall.cli import data_dir_option
from footfall.cli.access_log import LogLine, Skip, UnreadableLog, open_log, page_path, read_line
from footfall.cli.data_dir import environment
from footfall.cli.sending import BATCH_EVENTS, Event, Sender, SendingFailed, Sent
from footfall.clock import utc_now

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar  # click names the type nowhere else

# Fixed for good: another namespace would count every replayed log a second time
ID_NAMESPACE = UUID("8a1f6f0e-5f0c-4a53-9b0e-2f1d6c7b9e34")

Progress = Callable[[int], None]  # told how many more events were delivered


@dataclass(slots=True)
class Survey:
    """What a log holds, found by reading it once before anything is sent."""

    lines: int = 0
    page_views: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)
    latest: datetime | None = None  # aware, in its own line's offset


class Ordinals:
    """Numbers equal lines, so that each counts, and has the same number in the next replay."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, text: bytes) -> int:
        """How many lines equal to `text` there were before this one."""
        # 8 bytes instead of the line keep a large log's memory small; where two lines share
        # them, one merely starts at a higher number, the same in every replay
        mark = hashlib.blake2b(text, digest_size=8).digest()
        self._seen[mark] += 1
        return self._seen[mark] - 1


def survey(log: IO[bytes]) -> Survey:
    """Count the lines of a log by what they are; it is read to its end."""
    found = Survey()
    for text in log:
        found.lines += 1
        line = read_line(text)
        if isinstance(line, Skip):
            found.skipped[line] += 1
            continue
        if found.latest is None or line.moment > found.latest:
            found.latest = line.moment
        path = page_path(line)
        if isinstance(path, Skip):
            found.skipped[path] += 1
        else:
            found.page_views += 1
    return found


def shift(found: Survey, shift_to: date | None) -> timedelta:
    """The whole days that bring the day of the log's latest line to `shift_to`."""
    if shift_to is None or found.latest is None:
        return timedelta(0)
    return shift_to - found.latest.date()


def events(log: IO[bytes], lines: int, shifted_by: timedelta) -> Iterator[Event]:
    """The page views among the first `lines` lines, as POST /api/track/batch takes them."""
    ordinals = Ordinals()
    for text in islice(log, lines):  # what is appended meanwhile was not surveyed
        line = read_line(text)
        if isinstance(line, Skip):
            continue
        path = page_path(line)
        if not isinstance(path, Skip):
            yield _event(line, path, ordinals.next(line.text), shifted_by)


def event_id(text: bytes, ordinal: int) -> UUID:
    """The id of a line's event: a version 5 UUID over its bytes and its number among equals."""
    name = ID_NAMESPACE.bytes + text + b"\0%d" % ordinal
    return UUID(bytes=hashlib.sha1(name, usedforsecurity=False).digest()[:16], version=5)


def replay(log: IO[bytes], found: Survey, sender: Sender, shift_to: date | None, on: Progress) -> Sent:
    """Send the surveyed log, batch by batch. May be repeated: the same ids count once.

    Raises `SendingFailed` when the server does not take the events.
    """
    log.seek(0)
    coming = events(log, found.lines, shift(found, shift_to))
    while batch := list(islice(coming, BATCH_EVENTS)):
        sender.send(batch)
        on(len(batch))
    return sender.sent


@click.command("replay")
@click.argument("logfile", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--url", help="The server's address.  [default: that of the instance in --data-dir]")
@click.option(
    "--shift-to",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Move the log by whole days so that its last day is DATE (YYYY-MM-DD).",
)
@click.option("--key", help="An API key of the server.  [default: the one in --data-dir]")
@data_dir_option
def command(
    logfile: Path, url: str | None, shift_to: datetime | None, key: str | None, data_dir: Path
) -> None:
    """Send the page views of LOGFILE, an access log in combined format.

    Successful GETs of pages are sent with their own time, address, user agent and referrer.
    The log may be gzipped; - is standard input. Replaying the same log again changes nothing.
    """
    sender = Sender(*_server(data_dir, url, key))
    with open_log(logfile) as log:
        found = survey(log)
        _refuse_another_format(found, logfile)
        with progress_bar(found.page_views, "sending") as bar:
            sent = replay(log, found, sender, shift_to.date() if shift_to else None, bar.update)
    click.echo(report(found, sent))
    if hint := too_old_hint(sent, utc_now()):
        click.echo(hint)
    if found.page_views and not sent.accepted:
        raise SendingFailed("every event was refused, see above")


def progress_bar(length: int, label: str) -> "ProgressBar[int]":
    """A bar on standard error, where there is a person to see it."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def report(found: Survey, sent: Sent) -> str:
    """What became of every line, as a table for the terminal."""
    rows = [("lines", found.lines), ("sent and accepted", sent.accepted)]
    rows += [(f"  {outcome}", n) for outcome, n in sent.outcomes.most_common()]
    rows += [("sent and refused", sent.refused.total())]
    rows += [(f"  {reason}", n) for reason, n in sent.refused.most_common()]
    rows += [("skipped", found.skipped.total())]
    rows += [(f"  {reason.value}", n) for reason, n in found.skipped.most_common()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {n:>9,}" for name, n in rows)


def too_old_hint(sent: Sent, now: datetime) -> str | None:
    """What to do when the server refused events for their time."""
    if not any(reason.startswith("occurred_at") for reason in sent.refused):
        return None
    yesterday = now.date() - timedelta(days=1)
    return (
        "The server takes events of the last days only. Move the log there by whole days with "
        f"--shift-to YYYY-MM-DD (the log's last day); yesterday would be --shift-to {yesterday}"
    )


def _refuse_another_format(found: Survey, logfile: Path) -> None:
    if found.lines and found.skipped[Skip.UNREADABLE] == found.lines:
        raise UnreadableLog(f"{logfile}: no line of it is in combined log format")


def _event(line: LogLine, path: str, ordinal: int, shifted_by: timedelta) -> Event:
    event = {
        "id": str(event_id(line.text, ordinal)),
        "entity_type": "page",
        "entity_id": path,
        "occurred_at": (line.moment + shifted_by).astimezone(UTC).isoformat(),
        "ip": line.address,
        "user_agent": line.user_agent,
    }
    if line.referrer not in ("", "-"):
        event["referrer"] = line.referrer
    return event


def _server(data_dir: Path, url: str | None, key: str | None) -> tuple[str, str]:
    """Where the events go and with which key: as told, else those of the instance in the folder."""
    known = environment(data_dir, os.environ, need_stores=False)
    url = url or known.get("FOOTFALL_URL")
    key = key or known.get("FOOTFALL_API_KEY")
    if not url:
        raise SendingFailed(f"nothing is running in {data_dir}; name the server with --url")
    if not key:
        raise SendingFailed(f"there is no API key in {data_dir}; give one with --key")
    return url, key
