"""The sample traffic is what the demo and the README say it is."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import crawleruseragents
import pytest

from footfall.cli.access_log import LogLine, Skip, page_path, read_line
from footfall.cli.sample import BROWSER_WEIGHTS, BROWSERS, CRAWLER_USER_AGENTS, lines, pages

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
NOBODYS = [
    ip_network(block)
    for block in (
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "198.18.0.0/15",
        "2001:db8::/32",
    )
]


@pytest.fixture(scope="module")
def log() -> list[LogLine]:
    found = [read_line(text) for text in lines(NOW)]
    assert Skip.UNREADABLE not in found
    return [line for line in found if isinstance(line, LogLine)]


@pytest.fixture(scope="module")
def views(log: list[LogLine]) -> list[tuple[str, LogLine]]:
    found = [(page_path(line), line) for line in log]
    return [(path, line) for path, line in found if isinstance(path, str)]


def test_the_same_seed_and_moment_give_the_same_log() -> None:
    assert list(lines(NOW)) == list(lines(NOW))
    assert list(lines(NOW)) != list(lines(NOW, seed=1))


@pytest.mark.parametrize("clock", ["00:00:01", "00:10:00", "12:00:00", "23:59:59"])
def test_no_line_is_of_the_future_or_too_old_to_be_taken(clock: str) -> None:
    now = datetime.fromisoformat(f"2026-03-01T{clock}+00:00")
    moments = [line.moment for line in map(read_line, lines(now)) if isinstance(line, LogLine)]
    assert moments == sorted(moments)
    assert moments[-1] < now
    assert moments[0] > now - timedelta(days=5, minutes=1)


def test_it_has_as_many_page_views_as_it_says(views: list[tuple[str, LogLine]]) -> None:
    assert len(views) == 6_000
    assert len({line.moment.date() for _, line in views}) == 5


def test_nobodys_addresses_are_used(log: list[LogLine]) -> None:
    addresses = {ip_address(line.address) for line in log}
    assert 400 < len(addresses) <= 600
    assert all(any(one in block for block in NOBODYS) for one in addresses)


def test_few_pages_have_most_readers(views: list[tuple[str, LogLine]]) -> None:
    counts = Counter(path for path, _ in views)
    assert set(counts) == set(pages())
    assert 50 <= len(counts) <= 70
    top = counts.most_common(10)
    assert top[0][0] == "/"
    assert sum(n for _, n in top) > len(views) / 2


def test_a_tenth_comes_from_crawlers(views: list[tuple[str, LogLine]]) -> None:
    assert sum(line.user_agent in CRAWLER_USER_AGENTS for _, line in views) == 600


def test_nights_are_quiet(views: list[tuple[str, LogLine]]) -> None:
    hours = Counter(line.moment.hour for _, line in views)
    assert hours[20] > 3 * hours[3]


def test_people_are_no_crawlers_and_crawlers_are() -> None:
    assert len(BROWSERS) == len(BROWSER_WEIGHTS) == len(set(BROWSERS)) == 30
    assert not any(map(crawleruseragents.is_crawler, BROWSERS))
    assert all(one == "-" or crawleruseragents.is_crawler(one) for one in CRAWLER_USER_AGENTS)


def test_there_is_something_to_skip_of_every_kind(log: list[LogLine]) -> None:
    skipped = Counter(path_or_skip for path_or_skip in map(page_path, log))
    assert min(skipped[Skip.METHOD], skipped[Skip.STATUS], skipped[Skip.NOT_A_PAGE]) > 100
