"""Devices and crawlers, from the headers that real ones send."""

import pytest

from footfall.user_agents import UserAgent, describe

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
)
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (WINDOWS, "desktop"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15", "desktop"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/120.0 Safari/537.36", "desktop"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", "desktop"),
        (IPHONE, "mobile"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/120.0 Mobile Safari/537.36", "mobile"),
        ("Mozilla/5.0 (Mobile; Windows Phone 8.1; Android 4.0) like Gecko", "mobile"),
        ("Opera/9.80 (J2ME/MIDP; Opera Mini/9; U; en) Presto/2.12", "mobile"),
        ("Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) Mobile/15E148 Safari/604.1", "tablet"),
        ("Mozilla/5.0 (Linux; Android 13; SM-X906C) Chrome/120.0 Safari/537.36", "tablet"),
        ("Mozilla/5.0 (Linux; Android 11; KFTRWI) Silk/100 like Chrome Mobile Safari", "tablet"),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 Safari/537.36", "player"),
        ("Mozilla/5.0 (Linux; Tizen 7.0) AppleWebKit/537.36 Version/7.0 TV Safari/537.36", "player"),
        ("Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 Chrome/94 Safari/537.36", "player"),
        ("Mozilla/5.0 (Linux; Android 9; AFTT) AppleWebKit/537.36 Chrome/98 Safari/537.36", "player"),
        ("Mozilla/5.0 (Linux; Android 12; BRAVIA 4K) Chrome/100 Safari/537.36", "player"),
        ("Mozilla/5.0 (PlayStation 4 3.11) AppleWebKit/537.73", "player"),
        ("Roku/DVP-12.0", "player"),
        ("Mozilla/5.0 (Linux; Tizen 2.3; SAMSUNG SM-Z130H) Mobile Safari/537.3", "mobile"),
        ("Links (2.7; text)", "other"),
        ("", "other"),
    ],
)
def test_a_device_is_told_by_its_first_telling_word(user_agent: str, device: str) -> None:
    assert describe(user_agent).device == device
    assert describe(user_agent.upper()).device == device


@pytest.mark.parametrize("user_agent", ["", "-", "  ", " - ", "Googlebot/2.1", "curl/8.5.0"])
def test_crawlers_and_the_nameless_are_bots(user_agent: str) -> None:
    assert describe(user_agent).is_bot


def test_browsers_are_no_bots() -> None:
    assert describe(WINDOWS) == UserAgent("desktop", is_bot=False)
    assert not describe(IPHONE).is_bot


def test_only_the_beginning_of_an_absurd_header_is_read() -> None:
    padded = WINDOWS + " " * (1024 - len(WINDOWS))
    assert describe(padded + "Googlebot/2.1 " * 100_000) == describe(WINDOWS)
