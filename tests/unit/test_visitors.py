"""Visitors: one person one number, for a day, and no way back."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall.visitors import day_key, normalise_address, visitor, visitor_of_user

KEY = day_key(b"pepper", b"salt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8080", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]:56", "2001:db8::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("192.0.2.256", None),
        ("192.0.2", None),
        ("1", None),
        ("192.0.2.1:123456", None),
        ("192.0.2.1, 192.0.2.2", None),
        ("[192.0.2.1", None),
        ("192.0.2.1\x00", None),
        ("١٩٢.0.2.1", None),
        ("\ud800", None),
    ],
)
def test_an_address_has_one_spelling_or_is_none(text: str, expected: str | None) -> None:
    assert normalise_address(text) == expected


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_however_a_proxy_writes_it(address: IPv4Address) -> None:
    spellings = [f"{address}", f"{address}:1", f"::ffff:{address}", f"[::ffff:{address}]:65535"]
    assert {normalise_address(spelling) for spelling in spellings} == {str(address)}


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_the_same_however_a_proxy_writes_it(address: IPv6Address) -> None:
    expected = str(address.ipv4_mapped or address)
    spellings = [str(address), address.exploded, str(address).upper(), f"[{address}]:1", f"{address}%eth0"]
    assert {normalise_address(spelling) for spelling in spellings} == {expected}


@given(st.text())
def test_normalising_never_fails_and_twice_changes_nothing(text: str) -> None:
    once = normalise_address(text)
    assert once is None or normalise_address(once) == once


def test_a_visitor_is_a_signed_64_bit_number_of_key_address_and_agent() -> None:
    one = visitor(KEY, "192.0.2.1", "Firefox")
    assert one == visitor(KEY, "192.0.2.1", "Firefox")
    others = {
        visitor(KEY, "192.0.2.2", "Firefox"),
        visitor(KEY, "192.0.2.1", "Chrome"),
        visitor(day_key(b"pepper", b"another day"), "192.0.2.1", "Firefox"),
        visitor(day_key(b"another site", b"salt"), "192.0.2.1", "Firefox"),
    }
    assert len(others) == 4
    assert one not in others
    numbers = [visitor(KEY, "192.0.2.1", str(number)) for number in range(200)]
    assert all(-(2**63) <= number < 2**63 for number in numbers)
    assert min(numbers) < 0 < max(numbers)


def test_a_user_is_never_taken_for_an_address() -> None:
    assert visitor_of_user(KEY, "192.0.2.1\0Firefox") != visitor(KEY, "192.0.2.1", "Firefox")


def test_a_user_is_the_same_on_every_device() -> None:
    assert visitor_of_user(KEY, "42") == visitor_of_user(KEY, "42") != visitor_of_user(KEY, "43")


def test_odd_user_agents_are_hashed_and_no_error() -> None:
    assert visitor(KEY, "192.0.2.1", "\ud800") != visitor(KEY, "192.0.2.1", "\udfff")
