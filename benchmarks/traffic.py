"""What is sent and stored: the same paths, addresses and browsers for everybody who is measured."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path

from footfall.event import Device, ViewEvent
from footfall.ids import uuid7

PATHS = 5_000
ADDRESSES = 20_000
REQUESTS = 50_000  # made once and sent again and again, each time with a new id
SKEW = 1.1  # of Zipf's law; what web caches see is 0.6 to 1.1
SITE = "www.example.org"
CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0"
SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version"
# Fifty browsers, as they call themselves
BROWSERS: dict[str, Iterable[object]] = {
    f"(Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36": range(120, 132),
    f"(Macintosh; Intel Mac OS X 10_15_7) {CHROME} Safari/537.36": range(124, 130),
    f"(Linux; Android 10; K) {CHROME} Mobile Safari/537.36": range(121, 131),
    "(Windows NT 10.0; Win64; x64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0": range(128, 134),
    "(X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0": range(130, 134),
    f"(Macintosh; Intel Mac OS X 10_15_7) {SAFARI}/{{}} Safari/605.1.15": (17.4, 17.6, 18.0, 18.1),
    f"(iPhone; CPU iPhone OS {{0}}_1 like Mac OS X) {SAFARI}/{{0}}.1 Mobile/15E148 Safari/604.1": range(
        15, 19
    ),
    f"(iPad; CPU OS {{0}}_1 like Mac OS X) {SAFARI}/{{0}}.1 Mobile/15E148 Safari/604.1": range(15, 19),
}
USER_AGENTS = [
    f"Mozilla/5.0 {browser.format(its)}" for browser, versions in BROWSERS.items() for its in versions
]
REFERRERS = [
    "",
    "",
    "",
    "https://www.google.com/",
    "https://www.bing.com/",
    "https://news.ycombinator.com/item?id=1",
]
COUNTRIES = ["DE", "US", "GB", "FR", "NP", "IN", "BR", "JP", "NL", "SE", "PL", "CA", "ES", "IT", None]
DEVICES: tuple[Device, ...] = ("desktop", "mobile", "mobile", "tablet")


def zipf_weights(n: int, skew: float = SKEW) -> list[float]:
    """How often the 1st, 2nd ... n-th of a list is wanted, added up: for `random.choices`."""
    return list(accumulate(1 / rank**skew for rank in range(1, n + 1)))


def path(rank: int) -> str:
    """The path of that rank, as long as paths are."""
    return f"/articles/{rank}/a-path-as-long-as-they-are"


def addresses(n: int, rng: random.Random) -> list[str]:
    """Distinct public-looking IPv4 addresses from all over: few share a network."""
    found: dict[str, None] = {}
    while len(found) < n:
        first = rng.choice((*range(11, 100), *range(128, 169), *range(193, 224)))
        found[f"{first}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"] = None
    return list(found)


def write_requests(file: Path, n: int = REQUESTS, seed: int = 1) -> None:
    """Write `n` requests of the script in the page for load.lua, up to the id, each ended by a byte 1."""
    rng = random.Random(seed)
    visitors = [(address, rng.choice(USER_AGENTS)) for address in addresses(ADDRESSES, rng)]
    ranks = rng.choices(range(1, PATHS + 1), cum_weights=zipf_weights(PATHS), k=n)
    requests = (_request(path(rank), *rng.choice(visitors), rng) for rank in ranks)
    file.write_bytes("".join(f"{request}\1" for request in requests).encode())


def _request(page: str, address: str, user_agent: str, rng: random.Random) -> str:
    body = json.dumps({"path": page, "referrer": rng.choice(REFERRERS), "id": ""}, separators=(",", ":"))
    headers = {
        "Host": SITE,
        "User-Agent": user_agent,
        "Accept": "*/*",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Referer": f"https://{SITE}{page}",
        "Content-Type": "text/plain;charset=UTF-8",
        "Origin": f"https://{SITE}",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "X-Forwarded-For": address,
        "X-Forwarded-Proto": "https",
        "Content-Length": str(len(body) + 36),  # with the id in it
    }
    lines = ["POST /api/track/page-view HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", body.removesuffix('"}')])


def events(day: date, n: int, entities: int, seed: int = 1) -> Iterator[ViewEvent]:
    """`n` events of `day`, spread over it, of pages by Zipf's law; one in twenty is no view."""
    rng = random.Random(f"{seed} {day}")
    weights = zipf_weights(entities)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for number, rank in enumerate(rng.choices(range(1, entities + 1), cum_weights=weights, k=n)):
        occurred_at = start + timedelta(seconds=86_000 * number / n)
        is_bot = rng.random() < 0.05
        referrer = (
            None if is_bot or rng.random() < 0.4 else f"site-{int(300 * rng.random() ** 3)}.example.org"
        )
        yield ViewEvent(
            id=uuid7(occurred_at),
            occurred_at=occurred_at,
            day=day,
            entity_type="page",
            external_id=path(rank),
            view_type="intentional",
            view_source="web",
            outcome="bot" if is_bot else "counted",
            device=rng.choice(DEVICES),
            country=rng.choice(COUNTRIES),
            referrer_domain=referrer,
            visitor=None if is_bot else rng.randrange(ADDRESSES * 10) * 7_919_000_003,
            authenticated=not is_bot and rng.random() < 0.2,
        )


def groups(
    all_events: Sequence[ViewEvent], rng: random.Random, mean: int = 16
) -> Iterator[Sequence[ViewEvent]]:
    """Cut into the groups that one step of intake appends: 1 to twice `mean`, less one."""
    start = 0
    while start < len(all_events):
        size = rng.randrange(1, 2 * mean)
        yield all_events[start : start + size]
        start += size
