"""Who sent the request, and who views: the request's headers in the words of `footfall`."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from flask import request

from api.parts import parts
from footfall import access, referrers, visitors
from footfall.countries import CountrySource
from footfall.intake import Viewer

COOKIE = "footfall_session"  # a token, kept by the browser for reading; see `api.login`


def caller(now: datetime) -> access.Caller | None:
    """Who sent the request; None is anonymous. Raises `NotAuthenticated` for bad credentials."""
    return access.authenticate(request.headers.get("Authorization"), parts().settings, now)


def reader(now: datetime) -> access.Caller | None:
    """Who reads: as `caller`, or by the cookie when there is no header. Never for what changes anything."""
    token = request.cookies.get(COOKIE)
    if "Authorization" in request.headers or not token or request.method not in {"GET", "HEAD"}:
        return caller(now)
    return access.authenticate(f"Bearer {token}", parts().settings, now)


def viewer(sender: access.Caller | None) -> Viewer:
    """Who views, when a browser tells of its own view by the current request."""
    sent = request.headers.get
    here = parts()
    country = sent(here.settings.country_header) if here.settings.country_header else None
    browser = browser_of(*(sent(name, "") for name in ("User-Agent", "Origin", "Host", "Sec-GPC", "DNT")))
    found = viewer_of(here.countries, sender, request.remote_addr or "", country, browser)
    known = found.country is not None
    here.traffic.countries_asked(known=int(known), unknown=int(not known))
    return found


class Browser(NamedTuple):
    """What a browser says of itself in each of its requests."""

    user_agent: str
    keep_no_visitor: bool  # Sec-GPC or DNT
    own_domains: frozenset[str]  # the site's, as the browser calls it


def browser_of(user_agent: str, origin: str, host: str, sec_gpc: str, dnt: str) -> Browser:
    """What these headers say; empty are those that were not sent."""
    return Browser(user_agent, sec_gpc == "1" or dnt == "1", _own_domains(origin, host))


def viewer_of(
    countries: CountrySource,
    sender: access.Caller | None,
    address: str,
    country: str | None,
    browser: Browser,
) -> Viewer:
    """Who views, by the client's address and its headers; `country` is the trusted header's."""
    normalised = visitors.normalise_address(address)
    return Viewer(
        normalised,
        browser.user_agent,
        sender.viewer_id if sender else None,
        countries.of_request(country, normalised),
        browser.keep_no_visitor,
        browser.own_domains,
    )


def client_address(peer: str, forwarded: str, trusted_proxies: int) -> str:
    """The address that the trusted proxies saw; the peer's own when fewer entries than proxies came along.

    What stands left of it in X-Forwarded-For was sent by the client and may be made up.
    """
    entries = forwarded.split(",")
    return entries[-trusted_proxies].strip() if trusted_proxies <= len(entries) else peer


@lru_cache(maxsize=1024)  # a site has few names; what else is sent costs no more than without
def _own_domains(origin: str, host: str) -> frozenset[str]:
    """The site as the browser calls it: the page's origin, and the host that serves this request."""
    urls = (origin, f"http://{host}")
    return frozenset(name for url in urls if (name := referrers.host_of(url)))
