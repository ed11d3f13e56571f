"""Credentials: what verifies, what does not, and what a caller may do."""

import ast
import base64
import hmac
import inspect
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from footfall import access
from footfall.access import Caller, authenticate, make_token, require
from footfall.errors import NotAllowed, NotAuthenticated
from tests.factory import SECRET, make_settings

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
API_KEY = "ffk_of_the_tests"
SETTINGS = make_settings(FOOTFALL_API_KEY_HASHES=sha256(API_KEY.encode()).hexdigest())


def bearer(claims: dict[str, Any], secret: str = SECRET) -> str:
    return f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()


def test_no_header_is_anonymous() -> None:
    assert authenticate(None, SETTINGS, NOW) is None


def test_a_token_says_who_and_in_which_roles() -> None:
    claims = {"sub": "42", "roles": ["moderator"], "exp": NOW.timestamp() + 1, "aud": "x", "iss": "y"}
    assert authenticate(bearer(claims), SETTINGS, NOW) == Caller("42", frozenset({"moderator"}))
    assert authenticate(bearer({"sub": "42"}), SETTINGS, NOW) == Caller("42", frozenset())


def test_the_scheme_is_read_whatever_its_case() -> None:
    token = make_token(SETTINGS, "42", "user", NOW)
    assert authenticate(f"bEARER  {token} ", SETTINGS, NOW) == Caller("42", frozenset())


def test_a_made_token_verifies_until_it_expires() -> None:
    header = f"Bearer {make_token(SETTINGS, 'ann', 'admin', NOW, timedelta(hours=1))}"
    assert authenticate(header, SETTINGS, NOW) == Caller("ann", frozenset({"admin"}))
    assert authenticate(header, SETTINGS, NOW + timedelta(seconds=3599)) is not None
    with pytest.raises(NotAuthenticated, match="expired"):
        authenticate(header, SETTINGS, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer nonsense",
        "Bearer a.b.c",
        "Bearer ffk_unknown",
        "Bearer \ud800.b.c",
        "Bearer " + base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.AA",
        bearer({"sub": "42"}, "another secret, also of more than 32 bytes"),
        bearer({"roles": ["admin"]}),
        bearer({"sub": ""}),
        bearer({"sub": "42", "roles": "admin"}),
        bearer({"sub": "42", "roles": [1]}),
        bearer({"sub": "42", "exp": NOW.timestamp()}),
        bearer({"sub": "42", "exp": float("nan")}),
        bearer({"sub": "42", "exp": True}),
        bearer({"sub": "42", "nbf": NOW.timestamp() + 1}),
    ],
)
def test_bad_credentials_are_refused_and_not_repeated(header: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        authenticate(header, SETTINGS, NOW)
    credentials = header.partition(" ")[2]
    assert not credentials or credentials not in str(caught.value)


@pytest.mark.parametrize("claims", [{"sub": 42}, {"sub": None}, {"sub": "42", "exp": "soon"}])
def test_claims_of_a_wrong_type_are_refused(claims: dict[str, Any]) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    signature = hmac.digest(SECRET.encode(), head + b"." + body, "sha256")
    token = b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")])
    with pytest.raises(NotAuthenticated):
        authenticate(f"Bearer {token.decode()}", SETTINGS, NOW)


def test_an_unsigned_token_is_refused() -> None:
    token = jwt.encode({"sub": "42", "roles": ["admin"]}, "", algorithm="none")
    with pytest.raises(NotAuthenticated):
        authenticate(f"Bearer {token}", SETTINGS, NOW)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_public_key_verifies_its_own_algorithm(algorithm: str) -> None:
    keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
    }
    settings = make_settings(FOOTFALL_JWT_PUBLIC_KEY=pem(keys[algorithm]))
    for name, key in keys.items():
        header = f"Bearer {jwt.encode({'sub': '42'}, key, algorithm=name)}"
        if name == algorithm:
            assert authenticate(header, settings, NOW) == Caller("42", frozenset())
        else:
            with pytest.raises(NotAuthenticated):
                authenticate(header, settings, NOW)


def test_a_public_key_never_serves_as_a_secret() -> None:
    public = pem(rsa.generate_private_key(65537, 2048))
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(b'{"sub":"42","roles":["admin"]}').rstrip(b"=")
    signature = hmac.digest(public.encode(), head + b"." + body, "sha256")
    token = b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")])
    for secret in (SECRET, ""):
        settings = make_settings(FOOTFALL_JWT_PUBLIC_KEY=public, FOOTFALL_JWT_SECRET=secret)
        with pytest.raises(NotAuthenticated):
            authenticate(f"Bearer {token.decode()}", settings, NOW)


def test_an_api_key_is_a_server_and_no_viewer() -> None:
    caller = authenticate(f"Bearer {API_KEY}", SETTINGS, NOW)
    assert caller == Caller(None, frozenset({"service"}))
    assert caller.viewer_id is None


def test_a_server_with_a_token_is_no_viewer_either() -> None:
    assert Caller("importer", frozenset({"service"})).viewer_id is None
    assert Caller("42", frozenset()).viewer_id == "42"


def test_an_admin_may_do_what_a_moderator_may_and_not_what_a_server_may() -> None:
    admin = Caller("ann", frozenset({"admin"}))
    assert require(admin, "moderator") is admin
    with pytest.raises(NotAllowed):
        require(admin, "service")


def test_a_moderator_is_no_admin() -> None:
    with pytest.raises(NotAllowed):
        require(Caller("mo", frozenset({"moderator"})), "admin")


def test_nobody_has_no_role() -> None:
    with pytest.raises(NotAuthenticated):
        require(None)
    with pytest.raises(NotAuthenticated):
        require(None, "moderator")


def test_without_a_secret_no_token_is_made() -> None:
    with pytest.raises(NotAllowed):
        make_token(make_settings(FOOTFALL_JWT_SECRET=""), "ann", "admin", NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


def signed(head: bytes, claims: bytes) -> str:
    """A token of the site's own secret, whatever is in it."""
    first = base64.urlsafe_b64encode(head).rstrip(b"=") + b"." + base64.urlsafe_b64encode(claims).rstrip(b"=")
    signature = hmac.digest(SECRET.encode(), first, "sha256")
    return (first + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@given(st.text() | st.text().map("Bearer {}".format) | st.text().map("Bearer ffk_{}".format))
def test_any_header_is_somebody_or_refused(header: str) -> None:
    with suppress(NotAuthenticated):
        assert authenticate(header, SETTINGS, NOW) is not None


@given(
    head=st.binary(max_size=30)
    | st.fixed_dictionaries(
        {"alg": st.sampled_from(["HS256", "none", "RS256", "HS512"]) | json_values},
        optional={"crit": json_values, "b64": json_values, "kid": json_values, "typ": json_values},
    ).map(lambda value: json.dumps(value).encode()),
    claims=st.binary(max_size=30)
    | st.fixed_dictionaries(
        {"sub": st.just("42") | json_values},
        optional=dict.fromkeys(("roles", "exp", "nbf", "iat", "aud", "jti", "iss"), json_values),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_any_claims_that_verify_are_somebody_or_refused(head: bytes, claims: bytes) -> None:
    """Also of a host site with bugs of its own."""
    with suppress(NotAuthenticated):
        caller = authenticate(f"Bearer {signed(head, claims)}", SETTINGS, NOW)
        assert caller is not None
        assert isinstance(caller.subject, str)
        assert caller.subject


@pytest.mark.parametrize("algorithm", [[], {}, None, 1, ["HS256"], "hs256", ""])
def test_an_algorithm_that_is_no_word_is_refused(algorithm: object) -> None:
    token = signed(json.dumps({"alg": algorithm}).encode(), b'{"sub": "42"}')
    with pytest.raises(NotAuthenticated):
        authenticate(f"Bearer {token}", SETTINGS, NOW)


def test_secrets_are_compared_in_constant_time() -> None:
    """Of the source, because time itself is no thing for a test."""
    for function in (access._by_api_key, access.is_metrics_token):
        source = inspect.getsource(function)
        assert "hmac.compare_digest(" in source
        body = ast.parse(source).body[0]
        sides = [side for node in ast.walk(body) if isinstance(node, ast.Compare) for side in ast.walk(node)]
        names = {side.id for side in sides if isinstance(side, ast.Name)}
        assert not names & {"digest", "key", "known", "wanted"}
