"""The referrer's text becomes a domain; paths, queries and names in it are forgotten here."""

import re
from collections.abc import Set
from functools import lru_cache
from urllib.parse import urlsplit

READ_CHARACTERS = 2048  # the host stands at the front, within the first 300
MAX_DOMAIN_CHARACTERS = 253  # RFC 1035, 2.3.4, without the final dot
# Underscores make no host name, but they are in use. An international domain is kept in its ASCII
# form (xn--...), which is what browsers send.
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*")
# Nearly all referrers; what may be read in two ways is left to the standard library
PLAIN = re.compile(r"https?://([A-Za-z0-9_.-]{1,254})(?:[/?#]|\Z)")
ADDRESS = re.compile(r"[0-9.]+")


def domain(referrer: str, own_domains: frozenset[str] = frozenset()) -> str | None:
    """The referring site's host in lower case, without port and final dot, or None.

    None: not http(s), not a valid host, an IP address (no site's name, and perhaps a person's), or
    one of `own_domains`. These match exactly and with or without a leading `www.`; other subdomains
    are other sites: that `blog.example.org` sends readers to `example.org` is something to know.
    """
    plain = PLAIN.match(referrer)
    host = plain[1] if plain else _host(referrer[:READ_CHARACTERS])
    return None if host is None else _domain(host, own_domains)


@lru_cache(maxsize=8192)  # at most some 4 MB; few sites send nearly all readers
def _domain(host: str, own_domains: Set[str]) -> str | None:
    lowered = host.lower().removesuffix(".")
    if len(lowered) > MAX_DOMAIN_CHARACTERS or not DOMAIN.fullmatch(lowered) or ADDRESS.fullmatch(lowered):
        return None
    return None if is_own(lowered, own_domains) else lowered


def is_own(host: str, own_domains: Set[str]) -> bool:
    """Whether `host` is one of `own_domains` (lower case), `www.` or not."""
    bare = host.removeprefix("www.")
    return bare in own_domains or f"www.{bare}" in own_domains


def host_of(url: str) -> str | None:
    """The host of an http(s) URL or origin in lower case, or None."""
    return _host(url[:READ_CHARACTERS])


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
    except ValueError:  # a bracket without its partner and the like
        return None
    if parts.scheme not in {"http", "https"} or host is None:
        return None
    return host.lower().removesuffix(".")
