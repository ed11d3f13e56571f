"""API, two writers, Redis and PostgreSQL on hosts of their own; a writer's host is cut off at work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text

from footfall.cli import embedded
from footfall.cli.data_dir import DataDir, environment
from footfall.cli.processes import spawn, stop
from footfall.clock import utc_now
from footfall.ids import uuid7
from footfall.settings import Settings
from tests.functional import balance
from tests.functional.hosts import Network, network
from tests.waiting import wait_until

HOSTS = ["postgres", "redis", "api", "writer1", "writer2"]
WRITERS = HOSTS[3:]
MOVED_SECONDS = 60.0  # for the work of a lost writer to be somebody else's
LOST_SECONDS = 25.0  # until a host that says nothing is taken for lost, and a new connection too
AT_ONCE_SECONDS = 10.0  # for 40 requests; waiting for each of 20 connections took 100
PORT = 8000
# A writer that has its rows to insert, and waits: in the middle of a batch
WAITING = text(
    "SELECT host(client_addr) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND query LIKE '%INTO view_events%'"
)


class Site:
    """What runs on the hosts."""

    def __init__(self, folder: Path, hosts: Network) -> None:
        self.folder = folder
        self.hosts = hosts
        self.environment: dict[str, str] = {}
        self.sockets = embedded.socket_folder(folder)
        self.ids: list[UUID] = []

    @property
    def settings(self) -> Settings:
        """For the test, which reaches the stores by their unix sockets."""
        ours = {
            "DATABASE_URL": f"postgresql://footfall@/footfall?host={self.sockets}&port={embedded.POSTGRES_PORT}",
            "REDIS_URL": f"unix://{self.sockets}/redis.sock?db=0",
        }
        return Settings.from_mapping({**self.environment, **ours})

    def start(self, host: str, name: str, *words: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{name}.log"
        with self.hosts.on(host):
            return spawn([sys.executable, "-m", *words], log, environment=self.environment)

    def send(self, amount: int) -> None:
        """Views of pages and a book, one a request, all answered."""
        with self.hosts.on("api"):
            connection = HTTPConnection("127.0.0.1", PORT, timeout=60)
            for number in range(amount):
                event_id = uuid7(utc_now())
                resource = {"contentId": "r", "contentType": "resource"}
                path, body = (
                    ("/api/views", resource) if number % 2 else ("/api/track/page-view", {"path": "/p"})
                )
                headers = {"Content-Type": "application/json", "User-Agent": "Mozilla/5.0"}
                connection.request("POST", path, json.dumps({**body, "id": str(event_id)}), headers)
                answer = connection.getresponse()
                assert answer.status in (200, 204), answer.read()
                answer.read()
                self.ids.append(event_id)
            connection.close()

    def post(self, path: str, body: Mapping[str, str]) -> int:
        """The answer's status."""
        with self.hosts.on("api"):
            connection = HTTPConnection("127.0.0.1", PORT, timeout=60)
            headers = {"Content-Type": "application/json", "User-Agent": "Mozilla/5.0"}
            connection.request("POST", path, json.dumps(body), headers)
            status = connection.getresponse().status
            connection.close()
            return status

    def who_waits(self, engine: Engine) -> str:
        """The writer that has rows to insert and waits for whoever holds it up."""

        def waiting() -> list[str]:
            with engine.connect() as connection:
                addresses = set(connection.scalars(WAITING))
            return [name for name in WRITERS if self.hosts.addresses[name] in addresses]

        wait_until(waiting, "a writer in the middle of a batch", 20)
        return waiting()[0]

    def answers(self) -> bool:
        with self.hosts.on("api"):
            connection = HTTPConnection("127.0.0.1", PORT, timeout=5)
            try:
                connection.request("GET", "/api/health")
                return connection.getresponse().status == 200
            except OSError:
                return False
            finally:
                connection.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-hosts-", dir="/tmp"))
    try:
        with network(HOSTS) as hosts, _running(Site(folder, hosts)) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def engine(site: Site) -> Iterator[Engine]:
    made = create_engine(site.settings.database_url)
    yield made
    made.dispose()


def test_the_work_of_a_writer_whose_host_is_lost_moves_over_and_comes_back(
    site: Site, engine: Engine
) -> None:
    site.send(50)
    wait_until(lambda: stored(engine) == Counter(site.ids), "the first rows", 30)
    with held_up(engine):
        site.send(200)
        lost = site.who_waits(engine)
        site.hosts.cut_off(lost)
        site.send(200)
    wait_until(lambda: stored(engine) == Counter(site.ids), "the other to write all of it", MOVED_SECONDS)
    site.hosts.connect(lost)
    # now everything is for the one that was lost
    (other,) = set(WRITERS) - {lost}
    site.hosts.cut_off(other)
    site.send(50)
    wait_until(lambda: stored(engine) == Counter(site.ids), "the lost one to write again", MOVED_SECONDS)
    site.hosts.connect(other)
    balance.check(site.settings)
    assert stored(engine) == Counter(site.ids)


def test_pages_do_not_wait_long_for_a_database_whose_host_is_lost(site: Site, engine: Engine) -> None:
    """One view of something new asks the database for its count, and pages are taken together with it."""
    site.send(2)  # the API has connections to both
    site.hosts.cut_off("postgres")
    try:
        asked_at = time.monotonic()
        with ThreadPoolExecutor(1) as threads:
            new = threads.submit(site.post, "/api/views", {"contentId": "new", "contentType": "resource"})
            wait_until(lambda: time.monotonic() - asked_at > 0.2, "it to be on its way")
            assert site.post("/api/track/page-view", {"path": "/p"}) == 204
            assert new.result() == 503
        assert time.monotonic() - asked_at < LOST_SECONDS
        asked_at = time.monotonic()
        for number in range(20):
            body = {"contentId": f"new {number}", "contentType": "resource"}
            assert site.post("/api/views", body) == 503
            assert site.post("/api/track/page-view", {"path": "/p"}) == 204
        assert time.monotonic() - asked_at < AT_ONCE_SECONDS
    finally:
        site.hosts.connect("postgres")
    wait_until(lambda: site.post("/api/track/page-view", {"path": "/p"}) == 204, "everything to be back")
    balance.check(site.settings)


@contextmanager
def _running(site: Site) -> Iterator[Site]:
    """Everything started, each on its host; ended in the other order."""
    addresses = site.hosts.addresses
    folder = DataDir(site.folder / "data")
    folder.path.mkdir()
    folder.make_secrets()
    stores = {
        "DATABASE_URL": f"postgresql://footfall@{addresses['postgres']}/footfall",
        "REDIS_URL": f"redis://{addresses['redis']}:6379/0",
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("FOOTFALL_")}
    site.environment = environment(folder.path, {**own, **stores})
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setitem(embedded.POSTGRES_SETTINGS, "listen_addresses", addresses["postgres"])
        here = {"bind": addresses["redis"], "port": "6379", "protected-mode": "no"}
        for name, value in here.items():
            patch.setitem(embedded.REDIS_SETTINGS, name, value)
        postgres = embedded.Postgres(site.folder / "postgres", site.sockets, site.folder / "postgres.log")
        postgres.prepare()
        with (postgres.folder / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {addresses['postgres']}/24 trust\n")
        redis = embedded.Redis(site.folder / "redis", site.sockets, site.folder / "redis.log")
        for name, server in {"postgres": postgres, "redis": redis}.items():
            with site.hosts.on(name):
                stack.callback(server.stop, server.start())
        migration = site.start("api", "migrate", "footfall", "migrate")
        assert migration.wait(60) == 0
        celery = ["celery", "-A", "worker"]
        work = [
            *celery,
            "worker",
            "-Q",
            "write",
            "--pool",
            "solo",
            "--without-gossip",
            "--without-mingle",
            "-n",
        ]
        schedule = ["-s", str(site.folder / "beat")]
        for host, name, words in (
            ("api", "api", ["api", "--port", str(PORT)]),
            *((writer, writer, [*work, f"write@{writer}"]) for writer in WRITERS),
            ("api", "beat", [*celery, "beat", *schedule]),
        ):
            stack.callback(stop, site.start(host, name, *words), signal.SIGTERM, patience_seconds=10)
        wait_until(site.answers, "the API", 60)
        yield site


@contextmanager
def held_up(engine: Engine) -> Iterator[None]:
    """Nobody gets a row in until the block ends."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE view_events IN SHARE MODE"))
        yield


def stored(engine: Engine) -> Counter[UUID]:
    with engine.connect() as connection:
        return Counter(connection.scalars(text("SELECT id FROM view_events")))
