"""`footfall up`: starts every part on one machine, keeps them running, stops them in order."""

import contextlib
import http.client
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import FrameType
from urllib.parse import urlsplit

import click
import psycopg2
from redis.exceptions import RedisError

from footfall import stream
from footfall.cli.data_dir import DataDir, RunningParts, environment
from footfall.cli.embedded import START_SECONDS, Postgres, Redis, Server, socket_folder
from footfall.cli.processes import kill_session, spawn, stop, tail, wait_for_end
from footfall.clock import utc_now
from footfall.errors import FootfallError
from footfall.settings import Settings

CODE_FOLDER = Path(__file__).resolve().parent.parent.parent  # holds the packages api and worker
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

API_START_SECONDS = 60.0
API_STOP_SECONDS = 15.0
WORKER_STOP_SECONDS = 30.0  # a warm shutdown ends after the batch in hand
START_TRIES = 3  # of a part that ends before everything has been ready once
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 30.0  # a part that lived this long starts again without delay
LOOK_SECONDS = 0.5
PROGRESS_LOOK_SECONDS = 5.0
DRIFT_LOOK_SECONDS = 2.0
STUCK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs: how it is started and stopped, and where it is found."""

    name: str  # in run.json and of its log
    start: Callable[[], subprocess.Popen[bytes]]
    stop: Callable[[subprocess.Popen[bytes]], None]
    log: Path
    url: str | None = None


@dataclass(slots=True)
class Running:
    """A part's process, and when to start the next one should it have died."""

    part: Part
    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    log_start: int = 0
    delay_seconds: float = 0.0
    due_at: float | None = None  # dead; to be started at this time
    ends: int = 0


def run(data_dir: Path, host: str, port: int, base: Mapping[str, str]) -> None:
    """Run everything until a signal says stop. Raises `FootfallError` when it cannot be started."""
    folder = DataDir(data_dir)
    with folder.locked():
        folder.make_secrets()
        with _stop_signals() as signals:
            supervisor = Supervisor(folder, host, port, base, signals)
            try:
                supervisor.start()
                supervisor.watch()
            finally:
                # a second Ctrl-C finds the same handlers and changes nothing
                supervisor.stop()


class Signals:
    """Whether somebody asked for the end, and sleep that ends early when they do or a child dies."""

    def __init__(self, wake_up: socket.socket) -> None:
        self._stopping = False
        self._wake_up = wake_up

    def asked_to_stop(self) -> bool:
        """Whether a signal asked for the end."""
        return self._stopping

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Only take notice: what is under way is never torn apart in the middle."""
        self._stopping = self._stopping or number in STOP_SIGNALS

    def sleep(self, seconds: float) -> None:
        """Wait for a signal, at most that long."""
        if select.select([self._wake_up], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                self._wake_up.recv(4096)


class Supervisor:
    """The running parts, in the order in which they were started."""

    def __init__(
        self, folder: DataDir, host: str, port: int, base: Mapping[str, str], signals: Signals
    ) -> None:
        self._folder = folder
        self._signals = signals
        self._host = host
        self._port = port or _free_port(host)
        self._refuse_taken_port()
        self._external = {
            name: base[variable]
            for name, variable in {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}.items()
            if base.get(variable)
        }
        self._sockets = socket_folder(folder.path)
        self._servers: dict[str, Server] = {}
        if "postgres" not in self._external:
            log = folder.logs / "postgres.log"
            self._servers["postgres"] = Postgres(folder.path / "postgres", self._sockets, log)
        if "redis" not in self._external:
            log = folder.logs / "redis.log"
            self._servers["redis"] = Redis(folder.path / "redis", self._sockets, log)
        self._environment = self._children_environment(base)
        self._settings = Settings.from_mapping(self._environment)  # a bad one is said at once
        self._running: dict[str, Running] = {}
        self._ready = False
        self._progress = Progress(self._settings)

    def start(self) -> None:
        """Start everything in order; returns when the API answers, or early when asked to stop."""
        for name, server in self._servers.items():
            self._start_server(name, server)
        self._migrate()
        for part in self._own_parts():
            if self._signals.asked_to_stop():
                return
            self._begin(part)
        self._wait_for_api()
        if self._signals.asked_to_stop():
            return
        self._ready = True
        self._write_run()
        self._say_ready()

    def watch(self) -> None:
        """Start again what dies, until asked to stop."""
        while not self._signals.asked_to_stop():
            self._tend()
            if self._progress.has_found_stuck(self._running["worker"]):
                self._replace_writer()
            self._signals.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Stop the API first and the stores last; nothing is left. May be called at any moment."""
        _say("stopping")
        self._stop("api")
        together = [
            self._running[name].process for name in ("beat", "worker", "upkeep") if name in self._running
        ]
        for process in together:
            if process.poll() is None:
                process.terminate()
        wait_for_end(together, WORKER_STOP_SECONDS)
        for process in together:
            kill_session(process)
        self._stop("redis")
        self._stop("postgres")
        with contextlib.suppress(OSError):
            self._sockets.rmdir()  # it may lie outside the data folder
        self._folder.forget_run()
        _say("stopped")

    # Starting

    def _start_server(self, name: str, server: Server) -> None:
        if self._signals.asked_to_stop():
            return
        server.prepare()
        part = Part(name, server.spawn, server.stop, server.log, server.url)
        self._begin(part)
        deadline = time.monotonic() + START_SECONDS
        while not self._signals.asked_to_stop() and not server.answers():
            self._tend()
            if time.monotonic() > deadline:
                raise FootfallError(f"{server.name} does not answer; see {server.log}")
            self._signals.sleep(0.05)

    def _migrate(self) -> None:
        if self._signals.asked_to_stop():
            return
        log = self._folder.logs / "migrate.log"
        log_start = _size(log)
        command = [sys.executable, "-m", "footfall", "migrate"]
        process = spawn(command, log, environment=self._environment, folder=CODE_FOLDER)
        while process.poll() is None and not self._signals.asked_to_stop():
            self._signals.sleep(0.1)
        stop(process, signal.SIGTERM)
        if process.returncode and not self._wait_for_repair() and not self._signals.asked_to_stop():
            raise FootfallError(f"the database could not be migrated; {log} says:\n{tail(log, log_start)}")

    def _wait_for_repair(self) -> bool:
        """While nothing may be written, only the stores run, so that somebody can mend what has drifted.
        False when it was not that.
        """
        said: list[str] = []
        while not self._signals.asked_to_stop() and (found := self._drift()):
            if found != said:
                self._write_run()
                for problem in found:
                    _say(problem, "red")
                _say("nothing else is started until that is mended")
            said = found
            self._tend()
            self._signals.sleep(DRIFT_LOOK_SECONDS)
        return bool(said)

    def _drift(self) -> list[str]:
        """What is wrong with a schema whose migrations have all been run."""
        # rarely needed, and slow to import
        from sqlalchemy.exc import OperationalError

        from footfall import schema_check
        from footfall.database import make_engine

        engine = make_engine(self._settings)
        try:
            with engine.connect() as connection:
                if schema_check.revision_flaw(connection) is not None:
                    return []
                return schema_check.problems(connection)
        except OperationalError:
            return []
        finally:
            engine.dispose()

    def _own_parts(self) -> Iterator[Part]:
        python = [sys.executable, "-m"]
        address = ["--host", self._host, "--port", str(self._port)]
        yield self._command("api", [*python, "api", *address], API_STOP_SECONDS, self._url)
        celery = [*python, "celery", "-A", "worker"]
        for name, queue in {"worker": "write", "upkeep": "upkeep"}.items():
            work = ["worker", "-Q", queue, "--pool", "solo", "-n", f"{queue}@%h"]
            quiet = ["--without-gossip", "--without-mingle"]  # nobody listens to the others here
            yield self._command(name, [*celery, *work, *quiet], WORKER_STOP_SECONDS)
        schedule = str(self._folder.path / "beat-schedule")
        yield self._command("beat", [*celery, "beat", "-s", schedule], WORKER_STOP_SECONDS)

    def _command(self, name: str, command: list[str], stop_seconds: float, url: str | None = None) -> Part:
        log = self._folder.logs / f"{name}.log"
        return Part(
            name,
            lambda: spawn(command, log, environment=self._environment, folder=CODE_FOLDER),
            lambda process: stop(process, signal.SIGTERM, patience_seconds=stop_seconds),
            log,
            url,
        )

    def _begin(self, part: Part) -> None:
        log_start = _size(part.log)
        self._running[part.name] = Running(part, part.start(), log_start=log_start)

    def _wait_for_api(self) -> None:
        deadline = time.monotonic() + API_START_SECONDS
        while not self._signals.asked_to_stop() and not _answers(self._url):
            self._tend()
            if time.monotonic() > deadline:
                api = self._running["api"]
                raise FootfallError(
                    f"the API does not answer; {api.part.log} says:\n" + tail(api.part.log, api.log_start)
                )
            self._signals.sleep(0.1)

    # Keeping

    def _tend(self) -> None:
        """Notice the dead and start them again when their time has come."""
        changed = False
        for running in self._running.values():
            if running.due_at is None and running.process.poll() is not None:
                self._note_end(running)
            if running.due_at is not None and time.monotonic() >= running.due_at:
                self._start_again(running)
                changed = True
        if changed and self._ready:
            self._write_run()

    def _note_end(self, running: Running) -> None:
        kill_session(running.process)  # what it had started itself
        running.ends += 1
        name, code = running.part.name, running.process.returncode
        if not self._ready and running.ends >= START_TRIES:
            raise FootfallError(
                f"{name} ends again and again ({code}); {running.part.log} says:\n"
                + tail(running.part.log, running.log_start)
            )
        steady = time.monotonic() - running.started_at > STEADY_SECONDS
        delay = FIRST_DELAY_SECONDS if steady else 2 * running.delay_seconds
        running.delay_seconds = min(max(delay, FIRST_DELAY_SECONDS), LONGEST_DELAY_SECONDS)
        running.due_at = time.monotonic() + running.delay_seconds
        _say(f"{name} ended ({code}); starting it again in {running.delay_seconds:.1f} s", "yellow")

    def _start_again(self, running: Running) -> None:
        running.log_start = _size(running.part.log)
        running.process = running.part.start()
        running.started_at = time.monotonic()
        running.due_at = None

    def _replace_writer(self) -> None:
        _say("events wait and are not written; starting worker and beat again", "yellow")
        for running in (self._running["worker"], self._running["beat"]):
            # whatever it is doing, doing it again is harmless
            stop(running.process, signal.SIGTERM, patience_seconds=5)
            self._start_again(running)
        self._write_run()

    def _stop(self, name: str) -> None:
        if running := self._running.get(name):
            running.part.stop(running.process)

    # Telling

    def _write_run(self) -> None:
        parts: RunningParts = {name: {"url": url} for name, url in self._external.items()}
        for name, running in self._running.items():
            url = {"url": running.part.url} if running.part.url else {}
            parts[name] = {**url, "pid": running.process.pid}
        self._folder.write_run(parts)

    def _say_ready(self) -> None:
        for name, url in self._external.items():
            _say(f"  {name:<9}{_without_password(url)}")
        for name, running in self._running.items():
            _say(f"  {name:<9}{running.part.url or f'process {running.process.pid}'}")
        _say(f"  {'logs':<9}{self._folder.logs}")
        _say(f"ready: {self._url} (Ctrl-C stops everything)", "green")

    # Finding out

    @property
    def _url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - to ask
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def _refuse_taken_port(self) -> None:
        try:
            _bind(self._host, self._port)
        except OSError as error:
            raise FootfallError(
                f"cannot listen on {self._host} port {self._port}: {error.strerror}; "
                "choose another with --port, or any free one with --port 0"
            ) from error

    def _children_environment(self, base: Mapping[str, str]) -> dict[str, str]:
        addresses = {"DATABASE_URL": "postgres", "REDIS_URL": "redis"}
        ours = {
            variable: self._servers[name].url for variable, name in addresses.items() if name in self._servers
        }
        values = environment(self._folder.path, {**base, **ours})
        values.pop("FOOTFALL_API_KEY", None)  # for those who call, not for those who answer
        # the parts run in another folder, where a package of the site's cannot stand in for ours
        if country_file := values.get("FOOTFALL_COUNTRY_FILE"):
            values["FOOTFALL_COUNTRY_FILE"] = str(Path(country_file).absolute())
        return values


class Progress:
    """Looks now and then whether the writer still gets the queue's events written."""

    def __init__(self, settings: Settings) -> None:
        self._redis = stream.connect(settings)
        # psycopg2 reads the same URL without SQLAlchemy's driver name
        self._database_url = settings.database_url.replace("+psycopg2", "", 1)
        self._looked_at = 0.0
        self._oldest_at: float | None = None
        self._look: Thread | None = None
        self._found_stuck: subprocess.Popen[bytes] | None = None

    def has_found_stuck(self, writer: Running) -> bool:
        """Whether a look has found this writer stuck. Looks go on aside: a store that hangs must not keep
        whoever tends the parts from starting again what died meanwhile.
        """
        found, self._found_stuck = self._found_stuck, None
        due = time.monotonic() - self._looked_at >= PROGRESS_LOOK_SECONDS
        if due and (self._look is None or not self._look.is_alive()):
            self._look = Thread(target=self._look_at, args=(writer,), name="progress", daemon=True)
            self._look.start()
        return found is writer.process

    def _look_at(self, writer: Running) -> None:
        process = writer.process
        if self.writer_is_stuck(writer):
            self._found_stuck = process

    def writer_is_stuck(self, writer: Running) -> bool:
        """Whether, with both stores up, the oldest unwritten event is old and does not change."""
        now = time.monotonic()
        if now - self._looked_at < PROGRESS_LOOK_SECONDS:
            return False
        self._looked_at = now
        before, self._oldest_at = self._oldest_at, self._oldest_entry()
        if before is None or self._oldest_at is None or abs(self._oldest_at - before) > 0.01:
            return False
        old = time.time() - self._oldest_at > STUCK_SECONDS
        settled = writer.due_at is None and now - writer.started_at > STUCK_SECONDS
        return old and settled and self._database_answers()

    def _oldest_entry(self) -> float | None:
        now = utc_now()
        try:
            backlog = stream.backlog(self._redis, now)
        except RedisError:
            return None
        return now.timestamp() - backlog.oldest_seconds if backlog.entries else None

    def _database_answers(self) -> bool:
        try:
            psycopg2.connect(self._database_url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True


@contextmanager
def _stop_signals() -> Iterator[Signals]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signals = Signals(reader)
    before = {number: signal.signal(number, signals.handle) for number in (*STOP_SIGNALS, signal.SIGCHLD)}
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _say(text: str, colour: str | None = None) -> None:
    # the terminal may be gone, and what runs must be stopped all the same
    with contextlib.suppress(OSError):
        click.secho(text, fg=colour)


def _answers(url: str) -> bool:
    # http.client rather than urllib, which would ask a proxy from the environment
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _bind(host: str, port: int) -> int:
    """Listen there for an instant; the port, which was chosen by the system for 0."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise FootfallError(f"--host: {host!r} is no address of this machine") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def _free_port(host: str) -> int:
    return _bind(host, 0)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = parts.username or ""
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:***@{place}").geturl()
