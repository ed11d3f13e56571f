"""During an upgrade the code of before meets the schema of after: it writes nothing, and nothing is lost."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from tests.functional.instance import Instance
from tests.waiting import wait_until

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"}
VIEWS = 60
AHEAD = "a-version-that-is-not-known-here"
# What an expanding migration does: a column that the code of before does not name
EXPAND = "ALTER TABLE view_events ADD COLUMN more integer NOT NULL DEFAULT 0"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-upgrade-", dir="/tmp"))
    try:
        with Instance(folder / "data").running() as running:
            yield running
    finally:
        shutil.rmtree(folder)


def test_views_of_the_time_between_migration_and_new_code_are_all_written_once(instance: Instance) -> None:
    engine = instance.engine()
    before = view(instance, VIEWS)
    wait_until(lambda: stored(engine) == before, "the first views")
    revision = run(engine, "SELECT version_num FROM alembic_version")[0]
    run(engine, EXPAND)
    run(engine, f"UPDATE alembic_version SET version_num = '{AHEAD}'")
    # the writer looks every ten seconds: from then on it leaves the queue alone
    wait_until(lambda: instance.get("/api/health/ready").status == 503, "readiness to say so")
    log = instance.data_dir / "logs" / "worker.log"
    sent = set(before)

    def is_seen() -> bool:
        sent.update(view(instance, 1))
        return AHEAD in log.read_text()

    wait_until(is_seen, "the writer to see it")
    written = stored(engine)
    between = sent | view(instance, VIEWS)
    assert AHEAD in instance.cli("doctor", "--json").stdout
    assert stored(engine) == written
    assert run(engine, "SELECT count(*) FROM dead_letters") == [0]
    # the code of after, which knows the schema
    run(engine, f"UPDATE alembic_version SET version_num = '{revision}'")
    wait_until(lambda: stored(engine) == between, "every view", seconds=90)
    after = between | view(instance, 5)
    wait_until(lambda: stored(engine) == after, "the views after it")
    assert run(engine, "SELECT count(*) FROM dead_letters") == [0]
    assert run(engine, "SELECT sum(count) FROM view_counters") == [len(after)]
    engine.dispose()


def view(instance: Instance, times: int) -> set[str]:
    """View a page so often, each time answered; the ids."""
    ids = {str(uuid4()) for _ in range(times)}
    for event_id in ids:
        answer = instance.post("/api/track/page-view", {"path": "/a", "id": event_id}, BROWSER)
        assert answer.status == 204
    return ids


def stored(engine: Engine) -> set[str]:
    return {str(event_id) for event_id in run(engine, "SELECT id FROM view_events")}


def run(engine: Engine, statement: str) -> list[object]:
    """The first column of what a statement gives; committed."""
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.scalars()) if result.returns_rows else []
