"""An upgrade under traffic: two versions of the code run on one schema, and every view is stored once."""

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text

from footfall.cli.embedded import Postgres, Redis, Server, socket_folder
from tests.functional import newer_version
from tests.functional.instance import Instance
from tests.waiting import wait_until

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"}
PATIENCE_SECONDS = 60.0  # for one answer
AGAIN_SECONDS = 0.1
AT_LEAST = 40  # views of each kind while both versions run
LEFT_ALONE = "which is newer than this code"


@dataclass(slots=True)
class Visitors:
    """Send pages and courses to one API, each under its id until it is answered."""

    instance: Instance
    ids: list[str] = field(default_factory=list)  # of what was answered
    views: Counter[str] = field(default_factory=Counter)  # answered ones by the course's id
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def sending(self) -> Iterator["Visitors"]:
        ended = Event()
        thread = Thread(target=self._work, args=(ended,))
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def wait_for_more(self, views: int = AT_LEAST) -> None:
        """Wait for so many answers from now on."""
        enough = len(self.ids) + views
        wait_until(lambda: len(self.ids) >= enough or self.problems, "answers", PATIENCE_SECONDS)
        assert self.problems == []

    def _work(self, ended: Event) -> None:
        for number in count():
            if ended.is_set() or self.problems:
                return
            # now and then one that nobody has viewed before, whose count has to be looked up
            course = f"course-{number // 25}"
            self._send("/api/track/page-view", {"path": f"/{number % 7}"}, 204)
            if self._send("/api/views", {"contentType": "course", "contentId": course}, 200):
                self.views[course] += 1

    def _send(self, path: str, body: dict[str, str], wanted: int) -> bool:
        event_id = str(uuid4())
        until = time.monotonic() + PATIENCE_SECONDS
        status = 0
        while time.monotonic() < until:
            try:
                status = self.instance.post(path, {**body, "id": event_id}, BROWSER).status
            except (OSError, HTTPException):
                status = 0
            if status == wanted:
                self.ids.append(event_id)
                return True
            if status not in {0, 503}:
                break
            time.sleep(AGAIN_SECONDS)
        self.problems.append(f"{path}: {status}")
        return False


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-upgrade-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL and Redis that belong to neither version; their addresses as settings."""
    servers: dict[str, Server] = {
        "DATABASE_URL": Postgres(folder / "postgres", socket_folder(folder), folder / "postgres.log"),
        "REDIS_URL": Redis(folder / "redis", socket_folder(folder), folder / "redis.log"),
    }
    with ExitStack() as started:
        for server in servers.values():
            started.callback(server.stop, server.start())
        yield {name: server.url for name, server in servers.items()}


def test_two_versions_run_on_the_newer_schema_and_no_view_is_lost(
    folder: Path, stores: dict[str, str]
) -> None:
    old = Instance(folder / "old", stores)
    new = Instance(folder / "new", stores, newer_version.make(folder / "code"))
    engine = create_engine(stores["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:", 1))
    with ExitStack() as running:
        running.callback(engine.dispose)
        running.enter_context(old.running())
        with Visitors(old).sending() as of_old:
            of_old.wait_for_more()
            (folder / "new").mkdir(mode=0o700)
            shutil.copy(folder / "old" / "secrets.json", folder / "new")
            running.enter_context(new.running())
            assert select(engine, "SELECT version_num FROM alembic_version") == [newer_version.REVISION]
            with Visitors(new).sending() as of_new:
                of_new.wait_for_more()
                # the writer of before looks every ten seconds: from then on it leaves the queue to the other
                log = folder / "old" / "logs" / "worker.log"
                wait_until(lambda: LEFT_ALONE in log.read_text(), "the writer of before to see it")
                of_new.wait_for_more()
                of_old.wait_for_more()
        old.stop()
        with Visitors(new).sending() as after:
            after.wait_for_more()

        answered = of_old.ids + of_new.ids + after.ids
        wait_until(lambda: len(written_by(engine)) >= len(answered), "every view", 60)
        writers = dict(written_by(engine))
        assert Counter(event_id for event_id, _ in written_by(engine)) == Counter(answered)
        assert {writers[event_id] for event_id in of_old.ids} == {None, "newer"}
        assert {writers[event_id] for event_id in after.ids} == {"newer"}
        assert select(engine, "SELECT count(*) FROM dead_letters") == [0]
        assert select(engine, "SELECT sum(count) FROM view_counters") == [len(answered)]
        for course, views in (of_old.views + of_new.views + after.views).items():
            shown = new.get(f"/api/views?contentType=course&contentId={course}").json
            assert shown["count"] == views
        verified = new.cli("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        # a task that the worker of before has refused runs again within a minute
        wait_until(lambda: findings(new) == [], "the doctor to find nothing", 100)


def findings(instance: Instance) -> list[str]:
    """What the doctor of that version says."""
    told = json.loads(instance.cli("doctor", "--json").stdout)
    return [f"{check['name']}: {one['text']}" for check in told["checks"] for one in check["findings"]]


def written_by(engine: Engine) -> list[tuple[str, str | None]]:
    """(id, version) of every stored event; None: the version of before."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, written_by FROM view_events"))
        return [(str(row.id), row.written_by) for row in rows]


def select(engine: Engine, statement: str) -> list[Any]:
    """The first column of what a statement gives."""
    with engine.connect() as connection:
        return list(connection.execute(text(statement)).scalars())
