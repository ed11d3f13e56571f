"""`footfall doctor` on processes that really run, and `footfall up` on a schema that has drifted."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.functional.instance import Instance
from tests.waiting import wait_until

DRIFT = "ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}


@pytest.fixture
def instance() -> Iterator[Instance]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-doctor-", dir="/tmp"))
    made = Instance(folder / "data")
    yield made
    made.stop()
    shutil.rmtree(folder)


def examined(instance: Instance, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON."""
    result = instance.cli("doctor", "--json", *words)
    told: dict[str, Any] = json.loads(result.stdout)
    return result.returncode, told


def findings(told: dict[str, Any]) -> list[str]:
    return [f"{check['name']}: {one['text']}" for check in told["checks"] for one in check["findings"]]


def test_drift_is_found_refused_by_every_part_and_mended(instance: Instance) -> None:
    instance.start()
    assert instance.post("/api/track/page-view", {"path": "/before"}, BROWSER).status == 204
    # the tasks have to have run once, and the first views to be rolled up or young
    wait_until(lambda: not findings(examined(instance)[1]), "a healthy instance", seconds=60)
    assert examined(instance)[0] == 0

    harm(instance)
    ready = instance.get("/api/health/ready")
    assert (ready.status, "footfall doctor --fix" in str(ready.json["checks"]["schema"])) == (503, True)
    assert instance.post("/api/track/page-view", {"path": "/waits"}, BROWSER).status == 204
    code, told = examined(instance)
    assert code == 1
    assert any("no valid unique key on (day, id)" in text for text in findings(told))

    instance.stop(unbalanced="nothing is written to a schema that has drifted; the next start is looked at")
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(instance.start)
        try:
            wait_until(lambda: runs(instance) == {"postgres", "redis"}, "the stores, and nothing else", 60)
            assert not started.done()
            result = instance.cli("doctor", "--fix")
            assert "--fix: added view_events_day_id_unique" in result.stdout
        finally:
            started.result()
    wait_until(lambda: stored(instance) == 2, "the view that waited")
    assert instance.get("/api/health/ready").status == 200
    assert instance.stop()[0] == 0


def harm(instance: Instance) -> None:
    engine = instance.engine()
    with engine.begin() as connection:
        connection.execute(text(DRIFT))
    engine.dispose()


def runs(instance: Instance) -> set[str]:
    try:
        return set(instance.run)
    except FileNotFoundError:
        return set()


def stored(instance: Instance) -> int:
    engine = instance.engine()
    with engine.connect() as connection:
        found = int(connection.execute(text("SELECT count(*) FROM view_events")).scalar_one())
    engine.dispose()
    return found
