"""Of a referrer nothing but its domain is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall.referrers import domain, host_of

OWN = frozenset({"example.org", "www.shop.example"})


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("https://news.example.com/a/private/path?q=secret#x", "news.example.com"),
        ("HTTPS://News.Example.COM", "news.example.com"),
        ("http://user:password@example.com:8080/", "example.com"),
        ("https://example.com./", "example.com"),
        ("https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example"),
        ("https://my_site.example/", "my_site.example"),
        ("http://localhost:3000/", "localhost"),
        ("  https://example.com/  ", "example.com"),
        ("https://münchen.example/", None),
        ("https://192.0.2.7/admin", None),
        ("https://[2001:db8::1]/", None),
        ("https://[broken/", None),
        ("android-app://com.google.android.gm/", None),
        ("javascript:alert(1)", None),
        ("//example.com/", None),
        ("example.com", None),
        ("https://", None),
        ("https://-bad.example/", None),
        ("https://a..example/", None),
        ("https://exa mple.com/", None),
        (f"https://{'a' * 64}.example/", None),
        (f"https://{'a.' * 127}com/", None),
        ("-", None),
        ("", None),
        ("https://example.com\ud800/", None),
        ("https://example.com:99999999/", "example.com"),
    ],
)
def test_a_referrer_becomes_its_domain_or_nothing(referrer: str, expected: str | None) -> None:
    assert domain(referrer) == expected


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("https://example.org/x", None),
        ("https://www.example.org/x", None),
        ("https://WWW.Example.org:443/", None),
        ("https://shop.example/", None),
        ("https://www.shop.example/", None),
        ("https://blog.example.org/", "blog.example.org"),
        ("https://notexample.org/", "notexample.org"),
    ],
)
def test_the_sites_own_domains_are_no_referrers(referrer: str, expected: str | None) -> None:
    assert domain(referrer, OWN) == expected


def test_an_absurdly_long_referrer_keeps_its_domain() -> None:
    assert domain("https://example.com/" + "x" * 1_000_000) == "example.com"


@given(st.text() | st.text().map("https://".__add__))
def test_whatever_is_sent_a_domain_is_short_plain_ascii(referrer: str) -> None:
    found = domain(referrer)
    assert found is None or (found.isascii() and found == found.lower() and 1 <= len(found) <= 253)


def test_the_host_of_an_origin_is_known_for_addresses_too() -> None:
    assert host_of("http://127.0.0.1:8000") == "127.0.0.1"
    assert host_of("null") is None
