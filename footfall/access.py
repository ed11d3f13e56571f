"""Who is asking, and what may they do: tokens of the host site, API keys of its servers."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

import jwt

from footfall.entities import EntityRow
from footfall.errors import NotAllowed, NotAuthenticated, NotFound
from footfall.settings import Settings

Role = Literal["moderator", "admin", "service"]
API_KEY_PREFIX = "ffk_"
MODERATORS = frozenset({"moderator", "admin"})
TOKEN_LIFETIME = timedelta(days=30)
PUBLIC_KEY_ALGORITHMS = frozenset({"RS256", "ES256"})
# Times are checked against the caller's clock, below. The contract knows no audience: a host site
# that puts one into all of its tokens is not refused for it.
DECODE_OPTIONS: jwt.types.Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credentials have verified. `subject` is the user id; None for an API key."""

    subject: str | None
    roles: frozenset[str]

    @property
    def viewer_id(self) -> str | None:
        """The user who views, if the caller is one: a server that reports views is none."""
        return None if "service" in self.roles else self.subject

    def has(self, role: Role) -> bool:
        """Whether the caller has `role` or one above it: an admin may do a moderator's work."""
        return role in self.roles or (role == "moderator" and "admin" in self.roles)


def authenticate(authorization: str | None, settings: Settings, now: datetime) -> Caller | None:
    """The caller of an Authorization header's value; None, anonymous, when there is none.

    Raises `NotAuthenticated` for credentials that do not verify; the text never repeats them.
    """
    if authorization is None:
        return None
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise NotAuthenticated("the Authorization header must be: Bearer <token or API key>")
    token = credentials.strip()
    if token.startswith(API_KEY_PREFIX):
        return _by_api_key(token, settings)
    return _by_token(token, settings, now)


def is_metrics_token(authorization: str | None, settings: Settings) -> bool:
    """Whether an Authorization header's value is the setting's, which opens the metrics and nothing else."""
    if authorization is None or settings.metrics_token is None:
        return False
    wanted = f"Bearer {settings.metrics_token}"
    return hmac.compare_digest(authorization.strip().encode("utf-8", "surrogatepass"), wanted.encode())


def require(caller: Caller | None, *roles: Role) -> Caller:
    """`caller`, known to have one of `roles` (any caller, if none are given).

    Raises `NotAuthenticated` for an anonymous one, `NotAllowed` for one without the role.
    """
    if caller is None:
        raise NotAuthenticated("this needs an Authorization header: Bearer <token>")
    if roles and not any(caller.has(role) for role in roles):
        raise NotAllowed(f"this needs the role {' or '.join(roles)}")
    return caller


def require_reader(caller: Caller, entity: EntityRow | None) -> EntityRow:
    """`entity`, which `caller` may read: its owner or a moderator.

    Raises `NotAllowed` for unknown and foreign entities alike, so that nobody learns what exists;
    moderators get `NotFound`.
    """
    if caller.has("moderator"):
        if entity is None:
            raise NotFound("there is no such entity")
        return entity
    if entity is None or entity.owner_id is None or entity.owner_id != caller.subject:
        raise NotAllowed("this is for the owner and moderators")
    return entity


def make_token(
    settings: Settings,
    subject: str,
    role: str,
    now: datetime,
    lifetime: timedelta = TOKEN_LIFETIME,
) -> str:
    """A token as the host site would make it, with HS256; the role `user` stands for none.

    Raises `NotAllowed` when this site has no HS256 secret.
    """
    if settings.jwt_secret is None:
        raise NotAllowed("tokens are signed elsewhere: FOOTFALL_JWT_SECRET is not set")
    claims = {
        "sub": subject,
        "roles": [] if role == "user" else [role],
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")


def _by_api_key(key: str, settings: Settings) -> Caller:
    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    # all are compared, each in constant time
    matches = [hmac.compare_digest(digest, known) for known in settings.api_key_hashes]
    if not any(matches):
        raise NotAuthenticated("the API key is not known here")
    return Caller(subject=None, roles=frozenset({"service"}))


def _by_token(token: str, settings: Settings, now: datetime) -> Caller:
    claims = _verified_claims(token, settings)
    _check_times(claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise NotAuthenticated("the token names no user (sub)")
    return Caller(subject, _roles(claims.get("roles")))


def _verified_claims(token: str, settings: Settings) -> Mapping[str, Any]:
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
        key = _key_for(algorithm, settings)
        # exactly the algorithm that the key is for: a public key never serves as an HS256 secret
        return jwt.decode(token, key, algorithms=[str(algorithm)], options=DECODE_OPTIONS)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise NotAuthenticated("the token does not verify") from error


def _key_for(algorithm: object, settings: Settings) -> str:
    if algorithm == "HS256" and settings.jwt_secret is not None:
        return settings.jwt_secret
    # the header is whatever was sent: a list, too
    if (
        isinstance(algorithm, str)
        and algorithm in PUBLIC_KEY_ALGORITHMS
        and settings.jwt_public_key is not None
    ):
        return settings.jwt_public_key
    raise NotAuthenticated("the token is signed in a way that is not accepted here")


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    moment = now.timestamp()
    if "exp" in claims and not moment < _seconds(claims["exp"]):
        raise NotAuthenticated("the token has expired")
    if "nbf" in claims and not moment >= _seconds(claims["nbf"]):
        raise NotAuthenticated("the token is not valid yet")


def _seconds(claim: object) -> float:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise NotAuthenticated("the token's times must be numbers")
    return claim


def _roles(claim: object) -> frozenset[str]:
    if claim is None:
        return frozenset()
    if not isinstance(claim, list) or not all(isinstance(role, str) for role in claim):
        raise NotAuthenticated("the token's roles must be a list of strings")
    return frozenset(claim)
