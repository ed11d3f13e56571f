"""Logging in: the token that programs send in a header, kept by the browser in a cookie for reading.

The cookie authorises GET requests of the dashboard and the reading endpoints, nothing that changes anything;
tracking never looks at it.
"""

from datetime import datetime
from urllib.parse import urlsplit

import jwt
from flask import Blueprint, Response, make_response, redirect, request
from flask.typing import ResponseReturnValue

from api import callers, pages
from api.parts import parts
from footfall import access
from footfall.clock import utc_now
from footfall.errors import NotAllowed, NotAuthenticated

HOME = "/mod-dashboard"
LONGEST_SECONDS = 7 * 86_400  # then one logs in again, even with a token that lasts longer
MOST_TOKEN_BYTES = 3_800  # browsers drop a larger cookie without a word
FORM_BYTES = 16 * 1024

blueprint = Blueprint("login", __name__)


@blueprint.get("/login")
def show() -> ResponseReturnValue:
    """The form; whoever is logged in goes on."""
    try:
        if callers.reader(utc_now()) is not None:
            return redirect(_next(request.args.get("next", "")), 303)
    except NotAuthenticated:
        return _form(request.args.get("next", ""), "Your session has ended. Log in again.", 200)
    return _form(request.args.get("next", ""), None, 200)


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    """Check the token and keep it in the cookie."""
    _refuse_other_sites()
    request.max_content_length = request.max_form_memory_size = FORM_BYTES
    now = utc_now()
    token = "".join(request.form.get("token", "").split())  # as it is pasted, with line ends
    after = request.form.get("next", "")
    try:
        _check(token, now)
    except NotAuthenticated as error:
        response = _form(after, f"That did not work: {error}.", 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    return _with_cookie(redirect(_next(after), 303), token, _lifetime_seconds(token, now))


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """Forget the cookie."""
    _refuse_other_sites()
    return _with_cookie(redirect("/login", 303), "", 0)


def _check(token: str, now: datetime) -> None:
    if len(token) > MOST_TOKEN_BYTES:
        raise NotAuthenticated("the token is too long for a cookie")
    caller = access.authenticate(f"Bearer {token}", parts().settings, now) if token else None
    if caller is None:
        raise NotAuthenticated("a token is needed")
    if caller.subject is None:
        raise NotAuthenticated("an API key is for servers")


def _form(after: str, problem: str | None, status: int) -> Response:
    return pages.render("login.html", status, after=after, problem=problem)


def _with_cookie(response: ResponseReturnValue, token: str, seconds: int) -> Response:
    answer = make_response(response)
    answer.set_cookie(
        callers.COOKIE,
        token,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=_is_https(),
    )
    return answer


def _lifetime_seconds(token: str, now: datetime) -> int:
    """Of a token that has been verified."""
    expires_at = jwt.decode(token, options={"verify_signature": False, "verify_exp": False}).get("exp")
    longest = now.timestamp() + LONGEST_SECONDS
    # compared before anything is taken off: a whole number may be too large for a float
    return int((longest if expires_at is None else min(expires_at, longest)) - now.timestamp())


def _is_https() -> bool:
    """Between browser and us: a proxy's word counts where proxies are trusted."""
    told = request.headers.get("X-Forwarded-Proto", "") if parts().settings.trusted_proxies else ""
    return request.is_secure or "https" in told.lower().replace(" ", "").split(",")


def _next(wanted: str) -> str:
    """Where to go after logging in: a page of the dashboard and nothing else, so never another site."""
    path = urlsplit(wanted).path if wanted.startswith("/") else ""
    is_ours = path == HOME or path.startswith(f"{HOME}/")
    return wanted if is_ours and wanted.startswith(HOME) and wanted.isprintable() else HOME


def _refuse_other_sites() -> None:
    """Only the site's own forms log in and out. Raises `NotAllowed`.

    Browsers say where a form was; what sends neither header is no browser and has no cookie to abuse.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        is_own = site in {"same-origin", "none"}
    else:
        is_own = origin is None or urlsplit(origin).netloc == request.host
    if not is_own:
        raise NotAllowed("this form was sent by another site")
