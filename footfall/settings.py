"""Every setting: read from the environment once, checked once, then passed around."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from footfall.errors import SettingsError

BOOLEANS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
SHA256_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can turn. The README's table lists the same names; a test compares them."""

    database_url: str  # always with SQLAlchemy's driver name in it
    redis_url: str
    pepper: bytes  # part of every visitor key, so that the database alone recomputes nothing
    jwt_secret: str | None
    jwt_public_key: str | None
    api_key_hashes: frozenset[str]  # SHA-256, hex
    time_zone: ZoneInfo
    trusted_proxies: int
    country_header: str | None
    country_file: Path | None
    site_domains: frozenset[str]
    cors_origins: frozenset[str]
    raw_retention_days: int
    daily_retention_days: int
    queue_limit_entries: int
    new_entities_per_day: int
    views_per_minute_per_visitor: int | None  # None: no limit
    views_per_minute_per_network: int | None
    redis_enabled: bool
    dedup_window: timedelta
    require_sign_in: bool
    demo_site: bool
    hot_lane: bool
    metrics_token: str | None

    @classmethod
    def from_mapping(cls, values: Mapping[str, str]) -> "Settings":
        """Build from environment variables. Raises `SettingsError` naming the variable that is wrong."""
        return cls(
            database_url=normalised_database_url(_required(values, "DATABASE_URL")),
            redis_url=_required(values, "REDIS_URL"),
            pepper=_pepper(values),
            jwt_secret=_jwt_secret(values),
            jwt_public_key=values.get("FOOTFALL_JWT_PUBLIC_KEY") or None,
            api_key_hashes=_api_key_hashes(values),
            time_zone=_time_zone(values.get("FOOTFALL_TIME_ZONE") or "UTC"),
            trusted_proxies=_integer(values, "FOOTFALL_TRUSTED_PROXIES", 0, least=0),
            country_header=values.get("FOOTFALL_COUNTRY_HEADER") or None,
            country_file=_path(values, "FOOTFALL_COUNTRY_FILE"),
            site_domains=_domains(values, "FOOTFALL_SITE_DOMAINS"),
            cors_origins=frozenset(_words(values, "FOOTFALL_CORS_ORIGINS")),
            raw_retention_days=_integer(values, "FOOTFALL_RAW_RETENTION_DAYS", 7, least=2),
            daily_retention_days=_daily_retention(values),
            queue_limit_entries=_integer(values, "FOOTFALL_QUEUE_LIMIT_ENTRIES", 1_000_000, least=1),
            new_entities_per_day=_integer(values, "FOOTFALL_NEW_ENTITIES_PER_DAY", 20_000, least=1),
            views_per_minute_per_visitor=_limit(values, "FOOTFALL_VIEWS_PER_MINUTE_PER_VISITOR"),
            views_per_minute_per_network=_limit(values, "FOOTFALL_VIEWS_PER_MINUTE_PER_NETWORK"),
            redis_enabled=_boolean(values, "VIEW_TRACKING_REDIS_ENABLED", True),
            dedup_window=_dedup_window(values),
            require_sign_in=_boolean(values, "FOOTFALL_REQUIRE_SIGN_IN", True),
            demo_site=_boolean(values, "FOOTFALL_DEMO_SITE", False),
            hot_lane=_boolean(values, "FOOTFALL_HOT_LANE", True),
            metrics_token=_metrics_token(values),
        )


def normalised_database_url(url: str) -> str:
    """The URL with the driver named, as SQLAlchemy needs it; the plain form is what people have."""
    # SQLAlchemy 2.1 takes the plain form for psycopg 3, which is not the driver here
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", url)


def celery_broker_url(redis_url: str) -> str:
    """The same Redis in Celery's spelling, which names a unix socket differently."""
    return re.sub(r"^unix:", "redis+socket:", redis_url).replace("?db=", "?virtual_host=")


def _required(values: Mapping[str, str], name: str) -> str:
    value = values.get(name)
    if not value:
        raise SettingsError(f"{name} is not set; `footfall up` sets it, or see the README's settings")
    return value


def _words(values: Mapping[str, str], name: str) -> list[str]:
    return values.get(name, "").replace(",", " ").split()


def _domains(values: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(word.lower().rstrip(".") for word in _words(values, name))


def _path(values: Mapping[str, str], name: str) -> Path | None:
    return Path(values[name]) if values.get(name) else None


def _integer(values: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = values.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise SettingsError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _limit(values: Mapping[str, str], name: str) -> int | None:
    return _integer(values, name, 0, least=1) if values.get(name) else None


def _boolean(values: Mapping[str, str], name: str, default: bool) -> bool:
    text = (values.get(name) or str(default)).lower()
    if text not in BOOLEANS:
        raise SettingsError(f"{name} must be true or false, not {text!r}")
    return BOOLEANS[text]


def _dedup_window(values: Mapping[str, str]) -> timedelta:
    """Hours, also fractions. At most 24: a viewer's key lives until the end of the next day."""
    name = "VIEW_DEDUP_TTL_HOURS"
    text = values.get(name) or "24"
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= 24:
        raise SettingsError(
            f"{name} must be a number of hours above 0 and up to 24, not {text!r}; "
            "whether repeats count at all is the content type's own setting"
        )
    return max(timedelta(hours=float(text)), timedelta(seconds=1))


def _daily_retention(values: Mapping[str, str]) -> int:
    raw = _integer(values, "FOOTFALL_RAW_RETENTION_DAYS", 7, least=2)
    return _integer(values, "FOOTFALL_DAILY_RETENTION_DAYS", 30, least=raw)


def _pepper(values: Mapping[str, str]) -> bytes:
    text = _required(values, "FOOTFALL_PEPPER")
    if len(text) < 32:
        raise SettingsError("FOOTFALL_PEPPER must be at least 32 characters of randomness")
    return text.encode()


def _jwt_secret(values: Mapping[str, str]) -> str | None:
    secret = values.get("FOOTFALL_JWT_SECRET") or None
    if secret is not None and len(secret.encode()) < 32:
        # RFC 7518, 3.2: a key of at least the hash's size
        raise SettingsError("FOOTFALL_JWT_SECRET must be at least 32 bytes")
    return secret


def _metrics_token(values: Mapping[str, str]) -> str | None:
    token = values.get("FOOTFALL_METRICS_TOKEN") or None
    if token is not None and not re.fullmatch(r"[!-~]{32,}", token):
        raise SettingsError("FOOTFALL_METRICS_TOKEN must be at least 32 characters of ASCII, without blanks")
    return token


def _api_key_hashes(values: Mapping[str, str]) -> frozenset[str]:
    hashes = _words(values, "FOOTFALL_API_KEY_HASHES")
    if not all(SHA256_HEX.fullmatch(entry) for entry in hashes):
        raise SettingsError("FOOTFALL_API_KEY_HASHES lists SHA-256 sums in lower-case hex, not keys")
    return frozenset(hashes)


def _time_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(f"FOOTFALL_TIME_ZONE: no time zone is called {name!r}") from error
