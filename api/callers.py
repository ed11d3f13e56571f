"""Who sent the request, and who views: the request's headers in the words of `footfall`."""

from datetime import datetime
from functools import lru_cache

from flask import request

from api.parts import Parts, parts
from footfall import access, referrers, visitors
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
    return viewer_of(
        here,
        sender,
        address=request.remote_addr or "",
        user_agent=sent("User-Agent", ""),
        country=sent(here.settings.country_header) if here.settings.country_header else None,
        no_trace=sent("Sec-GPC") == "1" or sent("DNT") == "1",
        origin=sent("Origin", ""),
        host=sent("Host", ""),
    )


def viewer_of(
    here: Parts,
    sender: access.Caller | None,
    *,
    address: str,
    user_agent: str,
    country: str | None,
    no_trace: bool,
    origin: str,
    host: str,
) -> Viewer:
    """Who views, by the client's address and the headers of the request; `country` is the trusted one's."""
    normalised = visitors.normalise_address(address)
    known_country = here.countries.of_request(country, normalised)
    here.traffic.country_asked(known=known_country is not None)
    return Viewer(
        address=normalised,
        user_agent=user_agent,
        user_id=sender.viewer_id if sender else None,
        country=known_country,
        keep_no_visitor=no_trace,
        own_domains=_own_domains(origin, host),
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
