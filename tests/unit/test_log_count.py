"""The independent count itself, against figures counted by hand."""

from datetime import date

import pytest

from tests.log_count import SITE, count, device, referrer_domain, row_differences, totals

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Mobile/15E148"
CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
LOG = f"""\
192.0.2.1 - - [17/May/2015:10:00:00 +0000] "GET /a?x=1 HTTP/1.1" 200 5 "https://Example.com:81/x" "{FIREFOX}"
192.0.2.1 - - [17/May/2015:10:00:00 +0000] "GET /a HTTP/1.1" 304 - "-" "{FIREFOX}"
192.0.2.1 - - [17/May/2015:10:00:01 +0000] "GET /b#top HTTP/1.1" 200 5 "-" "{FIREFOX}"
2001:db8::1 - - [17/May/2015:22:30:00 -0200] "GET /a HTTP/1.1" 200 5 "-" "{PHONE} says \\"hello\\""
192.0.2.9 - - [17/May/2015:11:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "{CRAWLER}"
192.0.2.9 - - [17/May/2015:11:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "-"
192.0.2.1 - - [17/May/2015:11:00:00 +0000] "GET /a.css HTTP/1.1" 200 5 "-" "{FIREFOX}"
192.0.2.1 - - [17/May/2015:11:00:00 +0000] "HEAD /a HTTP/1.1" 200 5 "-" "{FIREFOX}"
192.0.2.1 - - [17/May/2015:11:00:00 +0000] "GET /a HTTP/1.1" 404 5 "-" "{FIREFOX}"
no line of a log
""".encode().splitlines(keepends=True)


def test_the_count_is_what_counting_by_hand_gives() -> None:
    counted = count(LOG)
    assert set(counted) == {
        ("/a", date(2015, 5, 17)),
        ("/b", date(2015, 5, 17)),
        (SITE, date(2015, 5, 17)),
        ("/a", date(2015, 5, 18)),  # half past ten two hours west of Greenwich
        (SITE, date(2015, 5, 18)),
    }
    assert counted["/a", date(2015, 5, 17)] == {
        "views": 2,
        "unique_viewers": 1,
        "bots": 2,
        "views_by_device": {"desktop": 2},
        "views_by_type": {"intentional": 2},
        "views_by_source": {"web": 2},
        "views_by_referrer": {"example.com": 1},
    }
    assert counted[SITE, date(2015, 5, 17)]["views"] == 3
    assert counted[SITE, date(2015, 5, 18)]["views_by_device"] == {"mobile": 1}


def test_shifting_moves_every_day_alike() -> None:
    days = {day for _, day in count(LOG, date(2026, 11, 20))}
    assert days == {date(2026, 11, 20), date(2026, 11, 21)}


def test_a_difference_is_told() -> None:
    counted, stored = count(LOG), count(LOG)
    assert row_differences(counted, stored) == []
    stored["/a", date(2015, 5, 17)]["unique_viewers"] += 1
    del stored["/b", date(2015, 5, 17)]
    first, second = row_differences(counted, stored)
    assert "unique_viewers counted 1, stored 2" in first
    assert "stored None" in second


def test_days_add_up() -> None:
    answer = totals(count(LOG), SITE, [date(2015, 5, 16), date(2015, 5, 17), date(2015, 5, 18)])
    assert answer["visitor_days"] == 2
    assert answer["not_counted"] == {"bot": 2, "own": 0, "repeat": 0}
    assert [day["views"] for day in answer["daily_views"]] == [0, 3, 1]


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) TV Safari/537.36", "player"),
        ("Mozilla/5.0 (Linux; Android 12; AFTSSS) Mobile", "player"),
        ("Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) Mobile/15E148", "tablet"),
        ("Mozilla/5.0 (Linux; Android 14; SM-X200) Chrome/142.0.0.0", "tablet"),
        ("Mozilla/5.0 (Linux; Android 10; K) Chrome/142.0.0.0 Mobile", "mobile"),
        ("Mozilla/4.0 (compatible; MSIE 5.0; Windows 98)", "desktop"),
        ("something", "other"),
    ],
)
def test_devices(user_agent: str, expected: str) -> None:
    assert device(user_agent) == expected


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("https://Example.COM./x?y", "example.com"),
        ("http://example.com:8080", "example.com"),
        ("android-app://com.example", None),
        ("-", None),
        ("http://[", None),
    ],
)
def test_referrer_domains(referrer: str, expected: str | None) -> None:
    assert referrer_domain(referrer) == expected
