"""Who sent the request, and who views: the request's headers in the words of `footfall`."""

from datetime import datetime

from flask import request

from api.parts import parts
from footfall import access, referrers, visitors
from footfall.intake import Viewer

NO_TRACE = (("Sec-GPC", "1"), ("DNT", "1"))
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
    """Who views, when a browser tells of its own view."""
    address = visitors.normalise_address(request.remote_addr or "")
    country = parts().countries.of_request(_country_header(), address)
    parts().traffic.country_asked(known=country is not None)
    return Viewer(
        address=address,
        user_agent=request.headers.get("User-Agent", ""),
        user_id=sender.viewer_id if sender else None,
        country=country,
        keep_no_visitor=any(request.headers.get(name) == value for name, value in NO_TRACE),
        own_domains=_own_domains(),
    )


def _country_header() -> str | None:
    name = parts().settings.country_header
    return request.headers.get(name) if name else None


def _own_domains() -> frozenset[str]:
    """The site as the browser calls it: the page's origin, and the host that serves this request."""
    urls = (request.headers.get("Origin", ""), f"http://{request.headers.get('Host', '')}")
    return frozenset(host for url in urls if (host := referrers.host_of(url)))
