"""The project's own sample traffic: an access log of an invented site, the same for the same seed.

Its addresses are of the ranges reserved for documentation and benchmarks, so they are nobody's.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from footfall.cli.access_log import MONTHS

SEED = 2026
DAYS = 5  # within what the batch endpoint takes, with a day to spare
VIEWS = 6_000
PEOPLE = 570
CRAWLERS = 30
CRAWLER_SHARE = 0.1
LONGEST_ON_A_PAGE_SECONDS = 150

SITE = "https://tidepool.example"
SECTIONS = {
    "field-notes": (
        "low-water-at-dawn hermit-crabs-move-house counting-limpets a-winter-on-the-causeway "
        "what-the-storm-left reading-a-tide-table the-oldest-mussel kelp-after-dark "
        "seven-kinds-of-barnacle lost-and-found-on-the-strandline night-of-the-brittle-stars "
        "the-slow-life-of-lichens drawing-in-the-rain where-the-dunlin-go our-first-octopus"
    ),
    "guides": (
        "start-here rock-pool-manners tide-safety kit-for-beginners photographing-wet-things "
        "keeping-a-logbook seaweed-pressing with-children microscopes-on-a-budget "
        "identifying-anemones"
    ),
    "species": (
        "shore-crab beadlet-anemone common-limpet dog-whelk blenny sea-hare velvet-crab "
        "bladder-wrack sugar-kelp cushion-star breadcrumb-sponge chiton sand-goby sea-lemon "
        "pipefish"
    ),
    "places": "north-ledge the-causeway gull-island harbour-wall long-sands salt-marsh",
    "meetings": "spring-tide summer-tide autumn-tide beach-clean members",
}
TOP_PAGES = ("/", "/about", "/field-notes/", "/guides/", "/species/", "/places/", "/search")

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
LINUX = "Mozilla/5.0 (X11; Linux x86_64)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X)"
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X)"
ANDROID = "Mozilla/5.0 (Linux; Android 10; K)"
BLINK = "AppleWebKit/537.36 (KHTML, like Gecko)"
WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"

BROWSERS = (
    f"{WINDOWS} {BLINK} Chrome/142.0.0.0 Safari/537.36",
    f"{WINDOWS} {BLINK} Chrome/141.0.0.0 Safari/537.36",
    f"{WINDOWS} {BLINK} Chrome/139.0.0.0 Safari/537.36",
    f"{WINDOWS} {BLINK} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    f"{WINDOWS} {BLINK} Chrome/141.0.0.0 Safari/537.36 OPR/125.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    f"{MAC} {BLINK} Chrome/142.0.0.0 Safari/537.36",
    f"{MAC} {WEBKIT} Version/26.1 Safari/605.1.15",
    f"{MAC} {WEBKIT} Version/18.6 Safari/605.1.15",
    f"{MAC} {WEBKIT} Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0",
    f"{LINUX} {BLINK} Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {BLINK} Chrome/141.0.0.0 Safari/537.36",
    f"{IPHONE} {WEBKIT} Version/26.1 Mobile/15E148 Safari/604.1",
    f"{IPHONE} {WEBKIT} Version/18.6 Mobile/15E148 Safari/604.1",
    f"{IPHONE} {WEBKIT} CriOS/142.0.7444.46 Mobile/15E148 Safari/604.1",
    f"{IPHONE} {WEBKIT} FxiOS/144.0 Mobile/15E148 Safari/605.1.15",
    f"{ANDROID} {BLINK} Chrome/142.0.0.0 Mobile Safari/537.36",
    f"{ANDROID} {BLINK} Chrome/140.0.0.0 Mobile Safari/537.36",
    f"{ANDROID} {BLINK} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0",
    f"{IPAD} {WEBKIT} Version/17.6 Mobile/15E148 Safari/604.1",
    f"{ANDROID} {BLINK} Chrome/142.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 11; KFTRWI) {BLINK} Silk/132.4.1 like Chrome/132.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Web0S; Linux/SmartTV) {BLINK} Chrome/108.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) {BLINK} Version/7.0 TV Safari/537.36",
    f"Mozilla/5.0 (PlayStation; PlayStation 5/10.00) {WEBKIT} Version/17.0 Safari/605.1.15",
)
# phones and common desktops first in people's hands, televisions last
BROWSER_WEIGHTS = (
    *(30, 14, 6, 16, 4, 10, 4),
    *(14, 12, 12, 4, 4),
    *(6, 5, 3, 4),
    *(30, 34, 10, 3, 38, 14, 12, 5),
    *(12, 7, 3),
    *(2, 2, 1),
)
CRAWLER_USER_AGENTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)",
    "curl/8.14.1",
    "-",
)
REFERRERS = (
    (None, 46),
    ("https://www.google.com/", 26),
    ("https://duckduckgo.com/", 8),
    ("https://www.bing.com/", 6),
    ("https://mastodon.example/@tides/114031", 5),
    ("https://forum.shore.example/t/rock-pools/42?page=3", 4),
    ("https://news.harbour.example/2026/weekend-outings", 3),
    ("android-app://com.google.android.gm/", 2),
)

# Networks of universities, which have been where they are for decades, and how many of the people are there
PLACES = (
    ("131.130.0.0", 20),  # Austria
    ("130.133.0.0", 30),  # Germany
    ("130.88.0.0", 16),  # Great Britain
    ("134.157.0.0", 12),  # France
    ("129.132.0.0", 8),  # Switzerland
    ("128.30.0.0", 10),  # United States
    ("133.11.0.0", 4),  # Japan
)

# views of an hour of the day (UTC) and of a day of the week, Monday first
HOURS = (9, 6, 4, 3, 3, 5, 12, 22, 34, 40, 42, 44, 50, 46, 42, 40, 42, 46, 54, 62, 66, 58, 38, 20)
WEEKDAYS = (1.0, 0.95, 0.9, 0.95, 1.05, 1.45, 1.6)


NOISE = (
    ("GET /assets/site.css HTTP/1.1", 200),
    ("GET /assets/site.js HTTP/1.1", 200),
    ("GET /assets/shore.webp HTTP/1.1", 200),
    ("GET /favicon.ico HTTP/1.1", 304),
    ("GET /feed.xml HTTP/1.1", 200),
    ("GET /wp-login.php HTTP/1.1", 404),
    ("GET /guides HTTP/1.1", 301),
    ("HEAD / HTTP/1.1", 200),
    ("POST /contact HTTP/1.1", 200),
)


@dataclass(frozen=True, slots=True, order=True)
class _Request:
    moment: datetime
    address: str
    request: str
    status: int
    size: int
    referrer: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class PageLoad:
    """What a browser says when it shows a page, and from where."""

    path: str
    referrer: str | None
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class _Visitor:
    address: str
    user_agent: str
    pages_a_visit: int  # on average


def lines(
    now: datetime, *, seed: int = SEED, days: int = DAYS, views: int = VIEWS, placed: bool = False
) -> Iterator[bytes]:
    """An access log in combined format, in order of time, ending before `now` (aware).

    It has `views` page views on `days` days in UTC, the current one included, and besides them
    what a replay skips: files, redirects, errors, forms. The addresses are those that are reserved for
    examples and so in no country, or with `placed` made up of networks that are in one.
    """
    chance = random.Random(seed)  # noqa: S311 - sample traffic is no secret
    now = now.astimezone(UTC).replace(microsecond=0)
    crawled = round(views * CRAWLER_SHARE)
    requests = _visits(chance, now, days, views - crawled, _people(chance, placed), people=True)
    requests += _visits(chance, now, days, crawled, _crawlers(chance, placed), people=False)
    requests += [_noise(chance, beside) for beside in chance.sample(requests, views // 3)]
    for request in sorted(requests):
        yield _line(request)


def page_loads(n: int, *, seed: int = SEED, placed: bool = False) -> Iterator[PageLoad]:
    """`n` views as the browsers of the same people would report them now."""
    chance = random.Random(seed + 1)  # noqa: S311 - sample traffic is no secret
    people = _people(chance, placed)
    for _ in range(n):
        visitor = chance.choice(people)
        [path] = chance.choices(pages(), _zipf(len(pages())))
        yield PageLoad(path, _referrer(chance), visitor.address, visitor.user_agent)


@cache
def pages() -> tuple[str, ...]:
    """The invented site's paths, the most read first."""
    articles = [f"/{section}/{name}" for section, names in SECTIONS.items() for name in names.split()]
    random.Random(len(articles)).shuffle(articles)  # noqa: S311 - any order that mixes the sections
    return (*TOP_PAGES, *articles)


def _people(chance: random.Random, placed: bool) -> list[_Visitor]:
    people = [
        _Visitor(address, user_agent, chance.choice((1, 1, 2, 2, 3, 5)))
        for address, user_agent in zip(
            _addresses(chance, PEOPLE, placed),
            chance.choices(BROWSERS, BROWSER_WEIGHTS, k=PEOPLE),
            strict=True,
        )
    ]
    # households and offices: another browser behind the same address
    shared = chance.sample(people, PEOPLE // 12)
    return people + [_Visitor(one.address, chance.choice(BROWSERS), 2) for one in shared]


def _crawlers(chance: random.Random, placed: bool) -> list[_Visitor]:
    addresses = _addresses(chance, CRAWLERS, placed)
    return [_Visitor(address, chance.choice(CRAWLER_USER_AGENTS), 4) for address in addresses]


def _addresses(chance: random.Random, n: int, placed: bool) -> list[str]:
    if placed:
        networks, weights = zip(*PLACES, strict=True)
        chosen = chance.choices(networks, weights, k=n)
        return [str(IPv4Address(network) + 1_000 + 7 * place) for place, network in enumerate(chosen)]
    blocks = ("192.0.2.0", "198.51.100.0", "203.0.113.0")
    makers = (
        lambda: IPv4Address(chance.choice(blocks)) + chance.randrange(1, 255),
        lambda: IPv4Address("198.18.0.0") + chance.randrange(1, 2**17),
        lambda: IPv6Address("2001:db8::") + (chance.randrange(2**16) << 64) + chance.randrange(2**32),
    )
    found: set[IPv4Address | IPv6Address] = set()
    while len(found) < n:
        found.add(chance.choice(makers)())
    return chance.sample([str(address) for address in sorted(found, key=str)], n)


def _visits(
    chance: random.Random,
    now: datetime,
    days: int,
    views: int,
    visitors: list[_Visitor],
    *,
    people: bool,
) -> list[_Request]:
    """Visits of one to some pages each, until there are `views` of them."""
    hours = _hours(now, days, people)
    starts = list(hours)
    weights = list(hours.values())
    # some visitors come every day and most came once
    popularity = [1 / (rank + 4) for rank in range(len(visitors))]
    requests: list[_Request] = []
    while len(requests) < views:
        [visitor] = chance.choices(visitors, popularity)
        [hour] = chance.choices(starts, weights)
        moment = hour + timedelta(seconds=chance.randrange(3600))
        visit = _visit(chance, moment, visitor, people=people)
        requests += [request for request in visit if request.moment < now]
    return requests[:views]


def _hours(now: datetime, days: int, people: bool) -> dict[datetime, float]:
    """Each hour of the log's time with its share of the views; crawlers do not sleep."""
    first = now.replace(hour=0, minute=0, second=0) - timedelta(days=days - 1)
    every = [first + timedelta(hours=n) for n in range(24 * days)]
    return {
        hour: HOURS[hour.hour] * WEEKDAYS[hour.weekday()] if people else 1.0 for hour in every if hour < now
    }


def _visit(chance: random.Random, moment: datetime, visitor: _Visitor, *, people: bool) -> Iterator[_Request]:
    paths = pages()
    popularity = _zipf(len(paths)) if people else [1.0] * len(paths)
    referrer = (_referrer(chance) if people else None) or "-"
    for _ in range(chance.randrange(2 * visitor.pages_a_visit) + 1):
        [path] = chance.choices(paths, popularity)
        yield _Request(
            moment,
            visitor.address,
            f"GET {path}{_query(chance, path)} HTTP/1.1",
            304 if chance.random() < 0.06 else 200,
            chance.randrange(3_000, 40_000),
            referrer,
            visitor.user_agent,
        )
        referrer = f"{SITE}{path}" if people else "-"
        moment += timedelta(seconds=chance.randrange(4, LONGEST_ON_A_PAGE_SECONDS))


def _zipf(n: int) -> list[float]:
    """The second page has half of the first one's readers, the third a third ..."""
    return [1 / (rank + 1) for rank in range(n)]


def _referrer(chance: random.Random) -> str | None:
    names, weights = zip(*REFERRERS, strict=True)
    found: str | None = chance.choices(names, weights)[0]
    return found


def _query(chance: random.Random, path: str) -> str:
    if path == "/search":
        return f"?q={chance.choice(('limpet', 'tide+times', 'sea%20hare', 'octopus'))}"
    return "?utm_source=newsletter" if chance.random() < 0.04 else ""


def _noise(chance: random.Random, beside: _Request) -> _Request:
    request, status = chance.choice(NOISE)
    size = chance.randrange(200, 90_000)
    return replace(beside, request=request, status=status, size=size)


def _line(request: _Request) -> bytes:
    return (
        f"{request.address} - - [{_log_time(request.moment)}] "
        f'"{request.request}" {request.status} {request.size} '
        f'"{request.referrer}" "{request.user_agent}"\n'
    ).encode()


def _log_time(moment: datetime) -> str:
    # not %b: it writes month names in the operator's language
    return f"{moment:%d}/{MONTHS[moment.month - 1].decode()}/{moment:%Y:%H:%M:%S} +0000"
