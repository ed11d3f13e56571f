"""What a User-Agent header says of itself: the kind of device, and whether it is a crawler's.

The header is read here and forgotten; only the answer goes into an event.
"""

from dataclasses import dataclass
from functools import lru_cache

import crawleruseragents

from footfall.event import Device

READ_CHARACTERS = 1024  # browsers send under 400; the rest is somebody's joke or attack
EMPTY = ("", "-")  # "-" is what access logs write for none

# The first row with one of its words in the header decides, so that what a television or a tablet
# claims besides ("Linux", "Android", "Mobile") does not.
DEVICE_WORDS: tuple[tuple[Device, tuple[str, ...]], ...] = (
    (
        "player",
        (
            *("smart-tv", "smarttv", "googletv", "appletv", "apple tv", "hbbtv", "netcast"),
            *("web0s", "webos", "roku", "crkey", "bravia", "aftb", "aftt", "aftm", "afts"),
            *("playstation", "xbox", "nintendo"),
        ),
    ),
    ("tablet", ("ipad", "tablet", "kindle", "silk/", "playbook")),
    (
        "mobile",
        (
            *("mobi", "iphone", "ipod", "windows phone", "blackberry", "bb10", "opera mini"),
            "symbian",
        ),
    ),
    ("desktop", ("windows", "macintosh", "mac os x", "x11", "linux")),
)


@dataclass(frozen=True, slots=True)
class UserAgent:
    """What is kept of a User-Agent header."""

    device: Device
    is_bot: bool


def describe(user_agent: str) -> UserAgent:
    """The device and whether it is a crawler; an empty header, or `-`, is a crawler's."""
    return _describe(user_agent[:READ_CHARACTERS])


@lru_cache(maxsize=8192)  # at most some 10 MB; a few hundred headers make up nearly all traffic
def _describe(user_agent: str) -> UserAgent:
    is_bot = user_agent.strip() in EMPTY or bool(crawleruseragents.is_crawler(user_agent))
    return UserAgent(_device(user_agent.lower()), is_bot)


def _device(lowered: str) -> Device:
    for device, words in DEVICE_WORDS:
        if any(word in lowered for word in words) or _by_two_words(lowered) == device:
            return device
    return "other"


def _by_two_words(lowered: str) -> Device | None:
    """The two kinds that one word does not tell: Samsung's televisions, Android's tablets."""
    if "tizen" in lowered and "tv" in lowered:
        return "player"
    if "android" in lowered and "mobile" not in lowered:
        return "tablet"
    return None


def warm_up() -> None:
    """Compile the crawlers' patterns now, so that the first visitor does not wait for it."""
    describe("Mozilla/5.0")
