"""What is measured: a throwaway Footfall, a throwaway baseline, or only the two stores."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from redis import Redis
from sqlalchemy import Engine, text

from footfall import ledger, stream
from footfall.cli import embedded
from footfall.cli.processes import spawn, stop
from footfall.database import make_engine, migrate, read_snapshot
from footfall.errors import FootfallError
from footfall.settings import Settings, celery_broker_url
from tests.functional.instance import Instance
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 900.0
NO_LIMIT = str(10**8)
BYTES = text("""
    SELECT sum(pg_total_relation_size(oid)) FROM pg_class
    WHERE relkind = 'r' AND pg_relation_size(oid) > 0 AND (oid = CAST(:table AS regclass)
        OR oid IN (SELECT relid FROM pg_partition_tree(CAST(:table AS regclass))))
""")


@dataclass(frozen=True, slots=True)
class Stores:
    """A PostgreSQL and a Redis of one's own, with Footfall's schema."""

    settings: Settings
    engine: Engine
    redis: Redis
    groups: Mapping[str, int]


@dataclass(slots=True)
class System:
    """Something that takes views over HTTP, and how to look into it."""

    name: str
    url: str
    groups: Mapping[str, int]  # {part: pid}
    engine: Engine
    redis: Redis
    table: str  # with a row a view

    def waiting(self) -> int:
        """How many views are accepted and not yet written, or more; 0 when nothing is."""
        raise NotImplementedError

    def balanced(self) -> bool | None:
        """Whether the system's own books say that all is well; None when it keeps none."""
        return None

    def rows(self) -> int:
        """How many views are stored."""
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {self.table}")) or 0)

    def table_bytes(self) -> int:
        """What those rows take with their indexes, vacuumed; partitions without rows left out."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM {self.table}"))
            return int(connection.scalar(BYTES, {"table": self.table}) or 0)

    def wait_until_drained(self) -> None:
        """Return as soon as all that was accepted is written; fails after a long time."""
        wait_until(lambda: not self.waiting(), f"{self.name} to write all that waits", PATIENCE_SECONDS)


class Ours(System):
    """`footfall up`."""

    def waiting(self) -> int:
        return stream.backlog(self.redis, datetime.now(UTC)).entries

    def balanced(self) -> bool | None:
        now = datetime.now(UTC)
        with read_snapshot(self.engine) as connection:
            return all(
                row["balanced"] for row in ledger.ledger(connection, self.redis, [now.date()], now, UTC)
            )


class Baseline(System):
    """baseline.py."""

    def waiting(self) -> int:
        # a task is taken off `unacked` when a process of the pool begins with it
        waits = int(self.redis.llen("celery")) + int(self.redis.hlen("unacked"))
        return waits or self._busy()

    def _busy(self) -> int:
        with self.engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
            return int(connection.scalar(text(query + " AND backend_type = 'client backend'")) or 0)


@contextmanager
def throwaway() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="footfall-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ours(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[System]:
    """A fresh Footfall that believes one proxy."""
    given = {"FOOTFALL_TRUSTED_PROXIES": "1", **(environment or {})}
    with Instance(folder / "ours", given).running() as instance:
        if instance.process is None:
            raise FootfallError("the instance has ended")
        run = instance.run
        settings = _settings(run["postgres"]["url"], run["redis"]["url"])
        engine = make_engine(settings, statement_timeout_ms=600_000)
        parts = {name: int(part["pid"]) for name, part in run.items()} | {"supervisor": instance.process.pid}
        redis = stream.connect(settings)
        yield Ours("ours", instance.url, parts, engine, redis, "view_events")
        engine.dispose()


@contextmanager
def baseline(folder: Path) -> Iterator[System]:
    """A fresh baseline on stores, a web server and a number of processes as Footfall has them."""
    logs = folder / "baseline"
    with stores(logs, migrated=False) as its:
        environment = {
            **os.environ,
            "DATABASE_URL": its.settings.database_url,
            "CELERY_BROKER_URL": celery_broker_url(its.settings.redis_url),
            "PYTHONPATH": str(ROOT),
        }
        _make_baselines_table(environment)
        port = _free_port()
        python = [sys.executable, "-m"]
        serve = ["granian", "--interface", "wsgi", "--no-ws", "--host", "127.0.0.1", "--port", str(port)]
        serve += ["--blocking-threads", "4", "benchmarks.baseline:app"]
        work = ["celery", "-A", "benchmarks.baseline:queue", "worker", "--concurrency", "2"]
        work += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with ExitStack() as running:
            parts = {}
            for name, command in {"api": serve, "worker": work}.items():
                log = logs / f"{name}.log"
                process = spawn([*python, *command], log, environment=environment, folder=ROOT)
                running.callback(stop, process, signal.SIGTERM, patience_seconds=10)
                parts[name] = process.pid
            wait_until(lambda: _answers(port), "the baseline to answer")
            groups = {**parts, **its.groups}
            yield Baseline(
                "baseline", f"http://127.0.0.1:{port}", groups, its.engine, its.redis, "site_events"
            )


@contextmanager
def stores(folder: Path, *, migrated: bool = True) -> Iterator[Stores]:
    """The two stores as `footfall up` runs them."""
    sockets = embedded.socket_folder(folder)
    postgres = embedded.Postgres(folder / "postgres", sockets, folder / "postgres.log")
    redis = embedded.Redis(folder / "redis", sockets, folder / "redis.log")
    with ExitStack() as running:
        groups = {}
        for name, server in {"postgres": postgres, "redis": redis}.items():
            process = server.start()
            running.callback(server.stop, process)
            groups[name] = process.pid
        settings = _settings(postgres.url, redis.url)
        if migrated:
            migrate(settings.database_url, settings)
        engine = make_engine(settings, statement_timeout_ms=600_000)
        running.callback(engine.dispose)
        yield Stores(settings, engine, stream.connect(settings), groups)


def _settings(database_url: str, redis_url: str) -> Settings:
    return Settings.from_mapping(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "FOOTFALL_PEPPER": "p" * 32,
            "FOOTFALL_NEW_ENTITIES_PER_DAY": NO_LIMIT,
        }
    )


def _make_baselines_table(environment: Mapping[str, str]) -> None:
    # in a process of its own: the module reads its addresses when it is imported
    code = "from benchmarks.baseline import Base, engine; Base.metadata.create_all(engine)"
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
