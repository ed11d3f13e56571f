"""The folder of one instance: who runs in it, the generated secrets, and where its parts are found."""

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from footfall.errors import FootfallError

LOCK_TRIES = 10  # other commands hold the lock for an instant to ask whether somebody runs here
API_KEY_PREFIX = "ffk_"
# Addresses that lead nowhere, for commands that need no store
NOWHERE = {"DATABASE_URL": "postgresql://", "REDIS_URL": "unix:///dev/null"}
RunningParts = dict[str, dict[str, Any]]  # {"api": {"url": ..., "pid": ...}, "worker": {"pid": ...}, ...}


class DataDir:
    """Names the files of the folder and keeps them; the folder is made when it is locked."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.country_file = self.path / "countries.mmdb"  # a link, made by `footfall geo install`
        self._lock_file = self.path / "lock"
        self._secrets_file = self.path / "secrets.json"
        self._run_file = self.path / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process. Raises `FootfallError` when another one has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        # closed on exec, so that no child holds the lock after this process is gone
        with self._lock_file.open("a+") as file:
            if not _lock(file.fileno(), LOCK_TRIES):
                file.seek(0)
                pid = file.read().strip() or "unknown"
                raise FootfallError(f"footfall is already running in {self.path} (process {pid})")
            self.forget_run()  # of a process that was killed
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def is_in_use(self) -> bool:
        """Whether a process has the folder now."""
        try:
            with self._lock_file.open("r+") as file:
                return not _lock(file.fileno(), 1)
        except FileNotFoundError:
            return False

    def make_secrets(self) -> None:
        """Generate the secrets once; what is there is never changed."""
        if not self._secrets_file.exists():
            made = {
                "jwt_secret": secrets.token_urlsafe(48),
                "api_key": API_KEY_PREFIX + secrets.token_urlsafe(32),
                "pepper": secrets.token_urlsafe(48),
                "metrics_token": secrets.token_urlsafe(32),
            }
            _write(self._secrets_file, made)

    def secrets(self) -> dict[str, str]:
        """The generated secrets; empty when there are none."""
        return cast("dict[str, str]", _read(self._secrets_file))

    def write_run(self, parts: RunningParts) -> None:
        """Say what runs now, all at once: a reader sees the old file or the new one."""
        _write(self._run_file, parts)

    def run(self) -> RunningParts:
        """What runs now; empty when nothing does, also after the process that wrote it was killed."""
        return _read(self._run_file) if self.is_in_use() else {}

    def forget_run(self) -> None:
        """Say that nothing runs."""
        self._run_file.unlink(missing_ok=True)


def environment(data_dir: Path, base: Mapping[str, str], *, need_stores: bool = True) -> dict[str, str]:
    """`base` and, for what it does not set, addresses, secrets and country file of the one in `data_dir`.

    Besides the settings it has, when they are known, FOOTFALL_URL, where the API listens, and
    FOOTFALL_API_KEY, a key that it accepts. Raises `FootfallError` when the stores are known from
    neither; with `need_stores` false, addresses that lead nowhere take their place.
    """
    folder = DataDir(data_dir)
    values = {name: value for name, value in base.items() if value}
    parts = folder.run()
    for name, part in {"FOOTFALL_URL": "api", "DATABASE_URL": "postgres", "REDIS_URL": "redis"}.items():
        if part in parts:
            values.setdefault(name, parts[part]["url"])
    if folder.country_file.exists():
        values.setdefault("FOOTFALL_COUNTRY_FILE", str(folder.country_file))
    _add_secrets(values, folder.secrets())
    for name, nowhere in NOWHERE.items():
        if not need_stores:
            values.setdefault(name, nowhere)
        if name not in values:
            raise FootfallError(
                f"nothing is running in {folder.path}, and {name} is not set; "
                "start it with `footfall up`, or name its folder with --data-dir"
            )
    return values


def _add_secrets(values: dict[str, str], made: Mapping[str, str]) -> None:
    if not made:
        return
    values.setdefault("FOOTFALL_JWT_SECRET", made["jwt_secret"])
    values.setdefault("FOOTFALL_PEPPER", made["pepper"])
    if "metrics_token" in made:  # not in a folder of an earlier version
        values.setdefault("FOOTFALL_METRICS_TOKEN", made["metrics_token"])
    if "FOOTFALL_API_KEY_HASHES" not in values:
        digest = hashlib.sha256(made["api_key"].encode()).hexdigest()
        values["FOOTFALL_API_KEY_HASHES"] = digest
        values.setdefault("FOOTFALL_API_KEY", made["api_key"])


def _lock(descriptor: int, tries: int) -> bool:
    for attempt in range(tries):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < tries:
                time.sleep(0.05)
        else:
            return True
    return False


def _write(file: Path, content: Mapping[str, Any]) -> None:
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    # private from its first byte on: addresses may hold passwords
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        json.dump(content, output, indent=2)
        output.write("\n")
        output.flush()
        os.fsync(output.fileno())
    fresh.replace(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FootfallError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise FootfallError(f"{file} is not what footfall wrote there")
    return content
