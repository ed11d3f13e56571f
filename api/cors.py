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
    allowed = frozenset(_normalised(origin) for origin in origins)

    @app.after_request
    def add_headers(response: Response) -> Response:
        if "Access-Control-Allow-Origin" in response.headers:
            return response  # for everybody, and so the same for all
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin is not None and _normalised(origin) in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            if request.method == "OPTIONS":
                response.headers.update(PREFLIGHT)
        return response


def _normalised(origin: str) -> str:
    return origin.lower().rstrip("/")
