"""What all HTML pages share: their headers, their errors, their assets. The JSON side knows none of it."""

from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flask import Flask, Response, make_response, render_template, request, url_for

PATHS = ("/mod-dashboard", "/login", "/logout", "/demo")  # and what is below them
STATIC = Path(__file__).parent / "static"
STATIC_SECONDS = 86_400  # a changed file has another URL; the tag serves whoever has none
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",  # also for the way back after logging out
    # not no-referrer, under which a browser would send the forms with `Origin: null`
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TITLES = {
    400: "That cannot be shown",
    403: "This is not for you",
    404: "Not found",
    405: "That is not possible here",
    503: "The numbers cannot be read now",
}


def install(app: Flask) -> None:
    """Give pages their headers and templates their functions."""
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = STATIC_SECONDS
    app.jinja_env.globals["asset"] = asset
    app.jinja_env.filters["number"] = number
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    @app.after_request
    def add_headers(response: Response) -> Response:
        if is_page():
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        # of everything: answers in JSON, CSV and SVG carry words that visitors sent
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def is_page() -> bool:
    """Whether the request is for a page, and so its errors too are pages."""
    return any(request.path == path or request.path.startswith(f"{path}/") for path in PATHS)


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page, as HTML."""
    response = make_response(render_template(template, **values), status)
    response.mimetype = "text/html"
    return response


def error(status: int, text: str) -> Response:
    """The page that says what was wrong."""
    title = TITLES.get(status, "Something went wrong")
    return render("error.html", status, code=status, title=title, text=_sentence(text))


def asset(name: str) -> str:
    """The URL of a static file, another one whenever its content changes."""
    return url_for("static", filename=name, v=version(name))


def number(value: int) -> str:
    """A number for people: 12,345."""
    return f"{value:,}"


@cache
def version(name: str) -> str:
    """What a static file's URL changes with: a digest of its content."""
    return blake2b((STATIC / name).read_bytes(), digest_size=5).hexdigest()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
