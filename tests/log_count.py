"""An independent count of an access log, to compare with what the pipeline says of it.

It shares no code with the project, on purpose: it restates the rules in the plainest way, slow and simple.
`python -m tests.log_count LOGFILE --url U --token T [--database-url D] [--shift-to DATE]` compares a running
instance that holds this log and nothing else, prints every difference, and exits with 1 if there is one.
"""

import argparse
import gzip
import http.client
import ipaddress
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import crawleruseragents
import psycopg2

SITE = "(site)"  # no path: paths start with a slash
FILES = {
    *("png", "jpg", "jpeg", "gif", "webp", "svg", "ico", "css", "js", "map", "woff", "woff2"),
    *("ttf", "eot", "otf", "xml", "rss", "atom", "json", "txt", "pdf", "zip", "gz", "bz2"),
    *("tgz", "mp3", "mp4", "webm", "avi", "swf"),
}
LONGEST_PATH_BYTES = 2048
TELEVISIONS = (
    "smart-tv smarttv googletv appletv hbbtv netcast web0s webos roku crkey bravia aftb aftt aftm "
    "afts playstation xbox nintendo"
)
TABLETS = "ipad tablet kindle silk/ playbook"
PHONES = "mobi iphone ipod blackberry bb10 symbian"
COMPUTERS = "windows macintosh x11 linux"
COLUMNS = (
    *("views", "unique_viewers", "bots"),
    *("views_by_device", "views_by_type", "views_by_source", "views_by_referrer"),
)

Answer = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A page that was shown to somebody."""

    moment: datetime
    path: str
    address: str
    user_agent: str
    referrer: str


@dataclass
class Figures:
    """What a page or the site had on a day."""

    viewers: set[tuple[str, str]] = field(default_factory=set)
    bots: int = 0
    devices: Counter[str] = field(default_factory=Counter)
    referrers: Counter[str] = field(default_factory=Counter)

    def add(self, shown: Shown) -> None:
        if is_bot(shown.user_agent):
            self.bots += 1
            return
        self.viewers.add((shown.address, shown.user_agent))
        self.devices[device(shown.user_agent)] += 1
        if name := referrer_domain(shown.referrer):
            self.referrers[name] += 1

    def row(self) -> Answer:
        """The same in the words of the daily rows."""
        views = self.devices.total()
        return {
            "views": views,
            "unique_viewers": len(self.viewers),
            "bots": self.bots,
            "views_by_device": dict(self.devices),
            "views_by_type": {"intentional": views} if views else {},
            "views_by_source": {"web": views} if views else {},
            "views_by_referrer": dict(self.referrers),
        }


Count = dict[tuple[str, date], Answer]


def count(lines: Iterable[bytes], shift_to: date | None = None) -> Count:
    """The figures of every page and of the site (`SITE`) on every day in UTC."""
    requests = list(readable(lines))
    move = timedelta(0)
    if shift_to is not None and requests:
        move = shift_to - max(request["moment"] for request in requests).date()
    found: dict[tuple[str, date], Figures] = {}
    for request in requests:
        shown = page_shown(request)
        if shown is None:
            continue
        day = (shown.moment + move).astimezone(UTC).date()
        for subject in (shown.path, SITE):
            found.setdefault((subject, day), Figures()).add(shown)
    return {key: figures.row() for key, figures in found.items()}


def readable(lines: Iterable[bytes]) -> Iterator[Answer]:
    """The requests of a log in combined format, field by field."""
    for line in lines:
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            yield fields(text)
        except (ValueError, IndexError):
            continue


def fields(text: str) -> Answer:
    """One line taken apart from the left. Raises ValueError or IndexError for another format."""
    who, rest = text.split(" [", 1)
    time, rest = rest.split('] "', 1)
    request, rest = up_to_quote(rest)
    status, _, rest = rest.lstrip(" ").split(" ", 2)
    referrer, rest = up_to_quote(rest.removeprefix('"'))
    user_agent, _ = up_to_quote(rest.removeprefix(' "'))
    return {
        "address": who.split(" ")[0],
        "moment": datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z"),
        "request": request,
        "status": int(status),
        "referrer": referrer,
        "user_agent": user_agent,
    }


def up_to_quote(text: str) -> tuple[str, str]:
    """What stands before the first quote without a backslash before it, and what stands after it."""
    position = 0
    while text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return text[:position], text[position + 1 :]


def page_shown(request: Answer) -> Shown | None:
    """What the request showed, if it was a page that the contract takes."""
    words = request["request"].split(" ")
    if words[0] != "GET" or request["status"] not in (200, 304):
        return None
    target = " ".join(words[1:-1] if words[-1].startswith("HTTP/") else words[1:])
    path = target.partition("?")[0].partition("#")[0]
    name, dot, ending = path.rpartition(".")
    if not path.startswith("/") or (dot and ending.lower() in FILES):
        return None
    address = plain_address(request["address"])
    if not stored(path) or address is None:
        return None
    user_agent = request["user_agent"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Shown(request["moment"], path, address, user_agent, request["referrer"])


def stored(path: str) -> bool:
    """Whether a path can be kept: UTF-8, not too long, nothing unprintable."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        return False
    return len(path.encode()) <= LONGEST_PATH_BYTES


def plain_address(text: str) -> str | None:
    """One spelling for one address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_bot(user_agent: str) -> bool:
    """Nothing sent, or on the list of crawlers."""
    return user_agent.strip() in ("", "-") or bool(crawleruseragents.is_crawler(user_agent))


def device(user_agent: str) -> str:
    """The kind of device that a user agent names; the more special kinds come first."""
    text = user_agent.lower()
    if has(text, TELEVISIONS) or "apple tv" in text or ("tizen" in text and "tv" in text):
        return "player"
    if has(text, TABLETS) or ("android" in text and "mobile" not in text):
        return "tablet"
    if has(text, PHONES) or "windows phone" in text or "opera mini" in text:
        return "mobile"
    if has(text, COMPUTERS) or "mac os x" in text:
        return "desktop"
    return "other"


def has(text: str, words: str) -> bool:
    """Whether one of the words stands somewhere in the text."""
    return any(word in text for word in words.split())


def referrer_domain(referrer: str) -> str | None:
    """The name of the referring host, if a web site's."""
    try:
        parts = urlsplit(referrer)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.hostname.lower().removesuffix(".")


def totals(counted: Count, subject: str, days: Iterable[date]) -> Answer:
    """A subject's figures over several days, as the statistics endpoints word them."""
    rows = [counted.get((subject, day), Figures().row()) for day in days]
    summed = {name: Counter[str]() for name in COLUMNS if name.startswith("views_by_")}
    for row in rows:
        for name, values in summed.items():
            values.update(row[name])
    referrers = sorted(summed.pop("views_by_referrer").items(), key=lambda one: (-one[1], one[0]))
    return {
        **{name: dict(values) for name, values in summed.items()},
        "top_referrers": dict(referrers[:10]),
        "visitor_days": sum(row["unique_viewers"] for row in rows),
        "not_counted": {"bot": sum(row["bots"] for row in rows), "own": 0, "repeat": 0},
        "daily_views": [
            {"date": str(day), "views": row["views"], "unique_viewers": row["unique_viewers"]}
            for day, row in zip(days, rows, strict=True)
        ],
    }


def stored_rows(database_url: str) -> Count:
    """The daily rows of all pages and the site, straight from the database."""
    connection = psycopg2.connect(database_url.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT entities.entity_type, external_id, day, {', '.join(COLUMNS)}"
                " FROM daily_stats JOIN entities ON entities.id = entity_id"
            )
            return {
                (SITE if row[0] == "site" else row[1], row[2]): dict(zip(COLUMNS, row[3:], strict=True))
                for row in cursor.fetchall()
            }
    finally:
        connection.close()


def row_differences(counted: Count, stored: Count) -> list[str]:
    """Where the daily rows and the count differ, in words."""
    found = []
    for key in sorted(counted.keys() | stored.keys()):
        mine, theirs = counted.get(key), stored.get(key)
        if mine is None or theirs is None:
            found.append(f"{key[0]} on {key[1]}: counted {mine}, stored {theirs}")
            continue
        found += [
            f"{key[0]} on {key[1]}: {name} counted {mine[name]}, stored {theirs[name]}"
            for name in COLUMNS
            if mine[name] != theirs[name]
        ]
    return found


def answer_differences(
    counted: Count, url: str, token: str, subjects: Iterable[str], days: int = 30
) -> list[str]:
    """Where the statistics endpoints and the count differ, in words."""
    found = []
    for subject in subjects:
        path = f"/api/stats/page?path={quote(subject, safe='')}&days={days}"
        if subject == SITE:
            path = f"/api/admin/sitewide-stats?days={days}"
        answer = get(url, path, token)
        wanted = [date.fromisoformat(day["date"]) for day in answer["daily_views"]]
        for day in answer["daily_views"]:
            day.pop("gap", None)
        found += [
            f"{subject}: {name} counted {value}, answered {answer[name]}"
            for name, value in totals(counted, subject, wanted).items()
            if value != answer[name]
        ]
    return found


def get(url: str, path: str, token: str) -> Answer:
    """The JSON of an answer. Raises RuntimeError for any status but 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {body[:200]!r}")
    answer: Answer = json.loads(body)
    return answer


def lines_of(log: Path) -> list[bytes]:
    """The lines of a log, gzipped or not."""
    content = log.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return [line for line in content.split(b"\n") if line]


def main() -> int:
    """Compare and say what differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.log_count", description=__doc__)
    parser.add_argument("logfile", type=Path)
    parser.add_argument("--url", help="of the API; needs --token")
    parser.add_argument("--token", help="a moderator's")
    parser.add_argument("--database-url", help="compares every daily row")
    parser.add_argument("--shift-to", type=date.fromisoformat, metavar="DATE")
    options = parser.parse_args()
    counted = count(lines_of(options.logfile), options.shift_to)
    found = []
    if options.database_url:
        found += row_differences(counted, stored_rows(options.database_url))
    if options.url:
        subjects = sorted({subject for subject, _ in counted})
        found += answer_differences(counted, options.url, options.token or "", subjects)
    for difference in found:
        print(difference)
    views = sum(row["views"] for (subject, _), row in counted.items() if subject == SITE)
    print(f"{len(counted)} rows and {views} views counted, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
