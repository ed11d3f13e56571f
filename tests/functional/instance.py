"""A running `footfall up` as the tests use it: real processes, real HTTP."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine

from footfall.cli.data_dir import environment
from footfall.settings import Settings
from tests.functional import balance
from tests.waiting import wait_until

START_SECONDS = 90.0
STOP_SECONDS = 90.0
Process = tuple[int, int]  # pid and start time: a pid alone may be somebody else's by now


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Instance:
    """One supervisor and its parts in `data_dir`; `start` may be called again after `stop`.

    Whatever a test does to it: before it is stopped, and after each test that it outlives, its books balance.
    """

    started: ClassVar[list["Instance"]] = []  # those that run

    def __init__(
        self, data_dir: Path, environment: Mapping[str, str] | None = None, code: Path | None = None
    ) -> None:
        """`code` is the folder of another version's packages; without it, the version under test runs."""
        self.data_dir = data_dir
        self.code = code
        own = {name: value for name, value in os.environ.items() if not name.startswith("FOOTFALL_")}
        for name in ("DATABASE_URL", "REDIS_URL"):
            own.pop(name, None)
        if code is not None:
            own["PYTHONPATH"] = str(code)
        self.environment = {**own, **(environment or {})}
        self.process: subprocess.Popen[str] | None = None

    def command(self, *words: str) -> list[str]:
        """A command line of footfall for this instance."""
        name, *rest = words
        return [sys.executable, "-m", "footfall", name, "--data-dir", str(self.data_dir), *rest]

    def start(self) -> "Instance":
        """Start it and wait until it is ready; fails with its output when it is not."""
        process = subprocess.Popen(
            self.command("up", "--port", "0"),
            env=self.environment,
            cwd=self.code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.process = process
        try:
            wait_until(lambda: self._is_ready(process), "the instance to be ready", START_SECONDS)
        except BaseException:
            self._end(signal.SIGTERM)
            raise
        self.started.append(self)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, *, unbalanced: str = "") -> tuple[int, str]:
        """Ask it to end once its books balance; its exit code and what it printed.

        `unbalanced` says why they cannot, and then nobody looks.
        """
        try:
            if not unbalanced:
                self.check_balance()
        finally:
            ended = self._end(number)
        return ended

    def check_balance(self) -> None:
        """Wait until everything is written; fails when a number is not what the others say. Needs no API."""
        if self in self.started:
            balance.check(self.settings)

    def _end(self, number: signal.Signals) -> tuple[int, str]:
        if self in self.started:
            self.started.remove(self)
        if self.process is None:
            return 0, ""
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            output, _ = process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode, output

    @contextmanager
    def running(self, *, unbalanced: str = "") -> Iterator["Instance"]:
        """Started, and stopped at the end of the block, where its books balance if nothing was raised."""
        try:
            yield self.start()
        except BaseException:
            self._end(signal.SIGTERM)
            raise
        self.stop(unbalanced=unbalanced)

    @property
    def run(self) -> dict[str, dict[str, Any]]:
        """run.json as it is now."""
        content: dict[str, dict[str, Any]] = json.loads((self.data_dir / "run.json").read_text())
        return content

    @property
    def url(self) -> str:
        return str(self.run["api"]["url"])

    @property
    def api_key(self) -> str:
        return str(json.loads((self.data_dir / "secrets.json").read_text())["api_key"])

    @property
    def metrics_token(self) -> str:
        return str(json.loads((self.data_dir / "secrets.json").read_text())["metrics_token"])

    @property
    def settings(self) -> Settings:
        """The instance's own, so that tests can do in their process what its parts do."""
        return Settings.from_mapping(environment(self.data_dir, self.environment))

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of footfall on this instance."""
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=self.code,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self._request("POST", path, json.dumps(body).encode(), headers)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self._request("GET", path, None, headers)

    def engine(self) -> Engine:
        """The instance's database; the caller disposes of it."""
        return create_engine(self.run["postgres"]["url"].replace("postgresql:", "postgresql+psycopg2:", 1))

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Reply:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            sent = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _is_ready(self, process: subprocess.Popen[str]) -> bool:
        if process.poll() is not None:
            output, _ = process.communicate()
            self.process = None
            raise AssertionError(f"it ended with {process.returncode}:\n{output}")
        try:
            # a killed predecessor leaves its run.json behind until this one has the folder
            is_its = (self.data_dir / "lock").read_text().strip() == str(process.pid)
            return is_its and "api" in self.run
        except FileNotFoundError:
            return False


def descendants(pid: int) -> set[Process]:
    """All processes below `pid`."""
    parents = {int(entry): parent(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    below = {pid}
    while more := {child for child, its_parent in parents.items() if its_parent in below} - below:
        below |= more
    return {(child, start_time(child)) for child in below - {pid}}


def alive(processes: set[Process]) -> set[Process]:
    return {(pid, started) for pid, started in processes if started and start_time(pid) == started}


def parent(pid: int) -> int:
    return int(stat_fields(pid)[1])


def start_time(pid: int) -> int:
    """In clock ticks since boot; 0 when there is no such process, or only its exit code is left."""
    fields = stat_fields(pid)
    return 0 if fields[0] in "ZX" else int(fields[19])


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X"] + ["0"] * 30
