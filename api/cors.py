"""Which other origins' pages may call: those of the setting, and never with cookies."""

from collections.abc import Set

from flask import Flask, Response, request

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "86400",
}
EXPOSED = "X-View-Outcome, Retry-After"


def install(app: Flask, origins: Set[str]) -> None:
    """Answer preflights of `origins` and let their scripts read answers."""
    allowed = normalised(origins)

    @app.after_request
    def add_headers(response: Response) -> Response:
        if "Access-Control-Allow-Origin" in response.headers:
            return response  # for everybody, and so the same for all
        response.headers.add("Vary", "Origin")
        opening = headers(request.headers.get("Origin"), allowed)
        response.headers.update(opening)
        if opening and request.method == "OPTIONS":
            response.headers.update(PREFLIGHT)
        return response


def headers(origin: str | None, allowed: Set[str]) -> dict[str, str]:
    """What lets scripts of `origin` read an answer; nothing unless it is one of `allowed`, normalised."""
    if origin is None or _normalised(origin) not in allowed:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}


def normalised(origins: Set[str]) -> frozenset[str]:
    """The setting's origins as `headers` compares them."""
    return frozenset(_normalised(origin) for origin in origins)


def _normalised(origin: str) -> str:
    return origin.lower().rstrip("/")
