"""The viewer's country: from a header that a trusted CDN sets, else from a MaxMind-format file.

A site without either has no country dimension. That is allowed and never silent: readiness shows
what `describe()` says.
"""

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import maxminddb

from footfall.errors import FootfallError

log = logging.getLogger(__name__)
CODE = re.compile(r"[A-Z]{2}")
# Cloudflare's "unknown" and "Tor", Google's "unknown": no countries
NO_COUNTRY = frozenset({"XX", "T1", "ZZ"})
# A public resolver: a file that cannot place it is not one of the world's countries
KNOWN_ADDRESS = "8.8.8.8"
OLD_DAYS = 180  # by then some blocks of addresses have moved to other countries


@dataclass(frozen=True, slots=True)
class CountryFile:
    """What a country file says of itself."""

    built_at: datetime
    is_dbip: bool  # whose licence wants to be named wherever its countries are shown

    @classmethod
    def of(cls, file: Path, reader: maxminddb.Reader) -> "CountryFile":
        """The facts of an open `file`; whose it is stands in its kind, or only in its name."""
        metadata = reader.metadata()
        names = f"{file.resolve().name} {metadata.database_type}".lower().replace("-", "")
        return cls(datetime.fromtimestamp(metadata.build_epoch, UTC), "dbip" in names)

    def days_old(self, now: datetime) -> int:
        """Whole days since it was built."""
        return (now - self.built_at).days


def code(text: str) -> str | None:
    """An ISO 3166-1 alpha-2 code in capitals, or None for anything else."""
    stripped = text.strip().upper()
    return stripped if CODE.fullmatch(stripped) and stripped not in NO_COUNTRY else None


def inspect(file: Path) -> CountryFile:
    """Try a file before it is used. Raises `FootfallError` when countries cannot be read from it."""
    try:
        with maxminddb.open_database(file, maxminddb.MODE_AUTO) as reader:
            record = reader.get(KNOWN_ADDRESS)
            found = CountryFile.of(file, reader)
    except maxminddb.InvalidDatabaseError as error:
        raise FootfallError("the file is no database in MaxMind's format (.mmdb), or damaged") from error
    except (OSError, ValueError, OverflowError) as error:
        raise FootfallError(f"the file cannot be read: {error}") from error
    if _code_in(record) is None:
        raise FootfallError(f"the file has no country for {KNOWN_ADDRESS}; is it one of countries?")
    return found


class CountrySource:
    """Where countries come from in this process. The file is opened at its first use."""

    def __init__(self, header: str | None, file: Path | None) -> None:
        self.header = header
        self._file = file
        self._reader: maxminddb.Reader | None = None
        self._facts: CountryFile | None = None
        self._problem: str | None = None
        self._lock = Lock()
        self._asked = 0
        self._answered = 0

    def of_request(self, header_value: str | None, address: str | None) -> str | None:
        """The country of a request; `header_value` is the trusted header's."""
        country = code(header_value) if header_value else None
        if country is None and address is not None and self._file is not None:
            country = self.of_address(address)
        self._tally(country)
        return country

    def of_address(self, address: str) -> str | None:
        """The country of a normalised IP address by the file, or None."""
        reader = self._open()
        if reader is None:
            return None
        try:
            return _code_in(reader.get(address))
        except ValueError:  # an IPv6 address in a file for IPv4
            return None
        except maxminddb.InvalidDatabaseError as error:
            self._report(f"the country file is corrupt: {type(error).__name__}")
            return None

    def is_dbip(self) -> bool:
        """Whether countries come from DB-IP's file, which pages that show them have to name."""
        self._open()
        return self._facts is not None and self._facts.is_dbip

    def describe(self, now: datetime) -> dict[str, object]:
        """For readiness: the `source`, how many requests of this process got a country, how old the
        file is, and any `problem`.
        """
        self._open()
        source = "header" if self.header else "file" if self._file else "none"
        found: dict[str, object] = {
            "source": source,
            "asked": self._asked,
            "answered": self._answered,
        }
        if source == "none":
            found["note"] = (
                "to know countries, set FOOTFALL_COUNTRY_HEADER or FOOTFALL_COUNTRY_FILE,"
                " or run: footfall geo install"
            )
        if self._facts is not None:
            days_old = self._facts.days_old(now)
            found |= {"built": self._facts.built_at.date().isoformat(), "days_old": days_old}
            if days_old > OLD_DAYS:
                found["note"] = "the country file is old; run: footfall geo install"
        if self._problem is not None:
            found["problem"] = self._problem
        return found

    def built_at(self) -> int | None:
        """When the file was built, in Unix seconds, if there is one that can be read."""
        reader = self._open()
        return None if reader is None else reader.metadata().build_epoch

    def _tally(self, country: str | None) -> None:
        # without a lock: two threads may lose a tick, and only "none of many" is news
        self._asked += 1
        self._answered += int(country is not None)

    def _open(self) -> maxminddb.Reader | None:
        if self._reader is None and self._file is not None:
            with self._lock:
                self._open_once(self._file)
        return self._reader

    def _open_once(self, file: Path) -> None:
        if self._reader is not None or self._problem is not None:
            return
        try:
            reader = maxminddb.open_database(file, maxminddb.MODE_AUTO)
            self._facts = CountryFile.of(file, reader)
            self._reader = reader
        except (OSError, ValueError, OverflowError, maxminddb.InvalidDatabaseError) as error:
            self._report(f"the country file cannot be opened: {type(error).__name__}")

    def _report(self, problem: str) -> None:
        if self._problem is None:
            log.warning("no countries from the file", extra={"problem": problem})
        self._problem = problem


def _code_in(record: Any) -> str | None:
    """The code in a record of MaxMind's layout, or of DB-IP's as ip-location-db publishes it."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    found = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return code(found) if isinstance(found, str) else None
