"""The folder of an instance: its lock, its secrets, and what other commands learn from it."""

import hashlib
import stat
from pathlib import Path

import pytest

from footfall.cli.data_dir import DataDir, environment
from footfall.errors import FootfallError
from footfall.settings import Settings

STORES = {"DATABASE_URL": "postgresql://db.example/site", "REDIS_URL": "redis://redis.example"}
RUNNING = {
    "api": {"url": "http://127.0.0.1:8000", "pid": 1},
    "postgres": {"url": "postgresql://footfall@/footfall?host=/x", "pid": 2},
    "redis": {"url": "unix:///x/redis.sock?db=0", "pid": 3},
}


def test_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    folder.make_secrets()
    made = folder.secrets()
    folder.make_secrets()
    assert folder.secrets() == made
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert len(set(made.values())) == 4
    other = DataDir(tmp_path / "other")
    with other.locked():
        other.make_secrets()
    assert not set(other.secrets().values()) & set(made.values())


def test_generated_secrets_make_valid_settings(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    folder.make_secrets()
    values = environment(tmp_path, STORES)
    settings = Settings.from_mapping(values)
    digest = hashlib.sha256(folder.secrets()["api_key"].encode()).hexdigest()
    assert settings.api_key_hashes == {digest}
    assert values["FOOTFALL_API_KEY"] == folder.secrets()["api_key"]


def test_the_environment_wins_over_the_folder(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    ours = {
        "FOOTFALL_JWT_SECRET": "j" * 32,
        "FOOTFALL_PEPPER": "p" * 32,
        "FOOTFALL_METRICS_TOKEN": "m" * 32,
        "FOOTFALL_API_KEY_HASHES": "0" * 64,
        "FOOTFALL_URL": "https://site.example",
        **STORES,
    }
    with folder.locked():
        folder.make_secrets()
        folder.write_run(RUNNING)
        # the folder's key is none of the keys that these hashes are of
        assert environment(tmp_path, ours) == ours


def test_a_running_instance_says_where_its_parts_are(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    with folder.locked():
        folder.write_run(RUNNING)
        values = environment(tmp_path, {"DATABASE_URL": ""})  # empty is not set
    assert values["FOOTFALL_URL"] == RUNNING["api"]["url"]
    assert values["DATABASE_URL"] == RUNNING["postgres"]["url"]
    assert values["REDIS_URL"] == RUNNING["redis"]["url"]


def test_what_a_killed_instance_left_behind_is_not_believed(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    with folder.locked():
        folder.write_run(RUNNING)
    with pytest.raises(FootfallError, match="nothing is running in"):
        environment(tmp_path, {})
    with folder.locked():
        assert folder.run() == {}


def test_secrets_alone_are_enough_where_no_store_is_needed(tmp_path: Path) -> None:
    DataDir(tmp_path).make_secrets()
    settings = Settings.from_mapping(environment(tmp_path, {}, need_stores=False))
    assert settings.jwt_secret == DataDir(tmp_path).secrets()["jwt_secret"]


def test_the_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    with DataDir(tmp_path).locked():
        assert DataDir(tmp_path).is_in_use()
        with pytest.raises(FootfallError, match="already running"), DataDir(tmp_path).locked():
            pass
    assert not DataDir(tmp_path).is_in_use()


def test_damaged_secrets_are_an_error_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    DataDir(tmp_path).make_secrets()
    with pytest.raises(FootfallError, match=r"secrets\.json cannot be read"):
        environment(tmp_path, STORES)
