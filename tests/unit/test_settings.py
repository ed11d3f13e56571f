"""Settings: one object, wrong values named, no more of them than a person can know."""

import dataclasses

import pytest

from footfall.errors import SettingsError
from footfall.settings import Settings, celery_broker_url
from tests.factory import make_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FOOTFALL_TIME_ZONE", "Mars/Olympus"),
        ("FOOTFALL_TIME_ZONE", "../etc/passwd"),
        ("FOOTFALL_TRUSTED_PROXIES", "-1"),
        ("FOOTFALL_TRUSTED_PROXIES", "1.5"),
        ("FOOTFALL_RAW_RETENTION_DAYS", "1"),
        ("FOOTFALL_RAW_RETENTION_DAYS", "seven"),
        ("FOOTFALL_DAILY_RETENTION_DAYS", "6"),
        ("FOOTFALL_PEPPER", "short"),
        ("FOOTFALL_JWT_SECRET", "short"),
        ("FOOTFALL_API_KEY_HASHES", "ffk_the-key-itself"),
        ("DATABASE_URL", ""),
        ("REDIS_URL", ""),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        make_settings(**{name: value})


@pytest.mark.parametrize(
    "url", ["postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"]
)
def test_every_spelling_of_the_database_url_names_the_driver(url: str) -> None:
    assert make_settings(DATABASE_URL=url).database_url == "postgresql+psycopg2://u:p@h/d"


def test_celery_gets_its_own_spelling_of_a_unix_socket() -> None:
    assert celery_broker_url("unix:///run/redis.sock?db=2") == "redis+socket:///run/redis.sock?virtual_host=2"
    assert celery_broker_url("redis://host:6379/1") == "redis://host:6379/1"


def test_there_are_few_enough_settings() -> None:
    assert len(dataclasses.fields(Settings)) < 30
