"""Countries: the trusted header first, then the file, and nothing missing in silence."""

from pathlib import Path

import pytest

from footfall.countries import CountrySource, code
from tests.unit import mmdb

ADDRESS = "81.2.69.142"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DE", "DE"),
        ("de", "DE"),
        (" FR ", "FR"),
        ("XX", None),
        ("T1", None),
        ("ZZ", None),
        ("", None),
        ("DEU", None),
        ("D1", None),
        ("ÄÖ", None),
        ("D\x00", None),
    ],
)
def test_only_codes_of_countries_are_countries(text: str, expected: str | None) -> None:
    assert code(text) == expected


@pytest.mark.parametrize("record", [{"country": {"iso_code": "GB"}}, {"country_code": "GB"}])
def test_both_layouts_of_the_file_are_read(tmp_path: Path, record: mmdb.Value) -> None:
    mmdb.write(tmp_path / "c.mmdb", ADDRESS, record)
    source = CountrySource(None, tmp_path / "c.mmdb")
    assert source.of_address(ADDRESS) == "GB"
    assert source.of_address("81.2.69.143") is None
    assert source.of_address("2001:db8::1") is None
    assert "problem" not in source.describe()


def test_the_header_goes_before_the_file_and_the_file_helps_where_it_is_silent(tmp_path: Path) -> None:
    mmdb.write(tmp_path / "c.mmdb", ADDRESS, {"country_code": "GB"})
    source = CountrySource("CF-IPCountry", tmp_path / "c.mmdb")
    assert source.of_request("DE", ADDRESS) == "DE"
    assert source.of_request("XX", ADDRESS) == "GB"
    assert source.of_request(None, ADDRESS) == "GB"


def test_a_missing_file_is_a_visible_problem(tmp_path: Path) -> None:
    source = CountrySource(None, tmp_path / "none.mmdb")
    assert source.of_address(ADDRESS) is None
    assert "cannot be opened" in str(source.describe()["problem"])


def test_a_corrupt_file_is_a_visible_problem(tmp_path: Path) -> None:
    (tmp_path / "c.mmdb").write_bytes(b"not a database" * 100)
    assert "cannot be opened" in str(CountrySource(None, tmp_path / "c.mmdb").describe()["problem"])


def test_a_file_that_is_corrupt_inside_is_a_visible_problem(tmp_path: Path) -> None:
    file = tmp_path / "c.mmdb"
    mmdb.write(file, ADDRESS, {"country_code": "GB"})
    whole = file.read_bytes()
    record = whole.index(b"\x4ccountry_code")
    # a pointer to far beyond the data, where a record should be
    file.write_bytes(whole[: record - 1] + b"\x38\xff\xff\xff\xff" + whole[record + 4 :])
    source = CountrySource(None, file)
    assert source.of_address(ADDRESS) is None
    assert "corrupt" in str(source.describe()["problem"])


def test_no_source_is_said() -> None:
    assert CountrySource(None, None).describe()["source"] == "none"
    assert "FOOTFALL_COUNTRY_HEADER" in str(CountrySource(None, None).describe()["note"])


def test_a_header_that_never_comes_shows_in_the_tally() -> None:
    source = CountrySource("CF-IPCountry", None)
    assert source.of_request(None, ADDRESS) is None
    assert source.of_request("DE", ADDRESS) == "DE"
    assert source.describe() == {"source": "header", "asked": 2, "answered": 1}
