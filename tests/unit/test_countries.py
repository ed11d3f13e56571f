"""Countries: the trusted header first, then the file, and nothing missing in silence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from footfall.countries import KNOWN_ADDRESS, CountrySource, code, inspect
from tests.unit import mmdb

ADDRESS = "81.2.69.142"
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


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
    assert "problem" not in source.describe(NOW)


def test_the_header_goes_before_the_file_and_the_file_helps_where_it_is_silent(tmp_path: Path) -> None:
    mmdb.write(tmp_path / "c.mmdb", ADDRESS, {"country_code": "GB"})
    source = CountrySource("CF-IPCountry", tmp_path / "c.mmdb")
    assert source.of_request("DE", ADDRESS) == "DE"
    assert source.of_request("XX", ADDRESS) == "GB"
    assert source.of_request(None, ADDRESS) == "GB"


def test_a_missing_file_is_a_visible_problem(tmp_path: Path) -> None:
    source = CountrySource(None, tmp_path / "none.mmdb")
    assert source.of_address(ADDRESS) is None
    assert "cannot be opened" in str(source.describe(NOW)["problem"])


def test_a_corrupt_file_is_a_visible_problem(tmp_path: Path) -> None:
    (tmp_path / "c.mmdb").write_bytes(b"not a database" * 100)
    assert "cannot be opened" in str(CountrySource(None, tmp_path / "c.mmdb").describe(NOW)["problem"])


def test_a_file_that_is_corrupt_inside_is_a_visible_problem(tmp_path: Path) -> None:
    file = tmp_path / "c.mmdb"
    mmdb.write(file, ADDRESS, {"country_code": "GB"})
    whole = file.read_bytes()
    record = whole.index(b"\x4ccountry_code")
    # a pointer to far beyond the data, where a record should be
    file.write_bytes(whole[: record - 1] + b"\x38\xff\xff\xff\xff" + whole[record + 4 :])
    source = CountrySource(None, file)
    assert source.of_address(ADDRESS) is None
    assert "corrupt" in str(source.describe(NOW)["problem"])


def test_no_source_is_said() -> None:
    assert CountrySource(None, None).describe(NOW)["source"] == "none"
    assert "FOOTFALL_COUNTRY_HEADER" in str(CountrySource(None, None).describe(NOW)["note"])


def test_a_header_that_never_comes_shows_in_the_tally() -> None:
    source = CountrySource("CF-IPCountry", None)
    assert source.of_request(None, ADDRESS) is None
    assert source.of_request("DE", ADDRESS) == "DE"
    assert source.describe(NOW) == {"source": "header", "asked": 2, "answered": 1}


def test_the_age_of_the_file_is_told_and_an_old_one_is_to_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "c.mmdb"
    for days_old, is_noted in ((180, False), (181, True)):
        mmdb.write(file, ADDRESS, {"country_code": "GB"}, built=int(NOW.timestamp()) - days_old * 86_400)
        told = CountrySource(None, file).describe(NOW)
        assert told["days_old"] == days_old
        assert told["built"] == (NOW - timedelta(days=days_old)).date().isoformat()
        assert ("geo install" in str(told.get("note"))) is is_noted
    assert "days_old" not in CountrySource("CF-IPCountry", None).describe(NOW)


@pytest.mark.parametrize(
    ("name", "kind", "is_dbip"),
    [
        ("dbip-country.mmdb", "country ipvAll", True),
        ("c.mmdb", "DBIP-Country-Lite", True),
        ("c.mmdb", "GeoLite2-Country", False),
    ],
)
def test_whose_file_it_is_stands_in_its_name_or_kind(
    tmp_path: Path, name: str, kind: str, is_dbip: bool
) -> None:
    mmdb.write(tmp_path / name, KNOWN_ADDRESS, {"country_code": "US"}, kind=kind)
    assert inspect(tmp_path / name).is_dbip is is_dbip
    link = tmp_path / "link"
    link.symlink_to(name)
    assert CountrySource(None, link).is_dbip() is is_dbip


def test_no_file_is_nobodys(tmp_path: Path) -> None:
    assert not CountrySource("CF-IPCountry", None).is_dbip()
    assert not CountrySource(None, tmp_path / "dbip-country.mmdb").is_dbip(), "missing"
