"""`footfall up` as an operator meets it: it starts, keeps its parts alive, stops, and starts again."""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from footfall.cli.embedded import Postgres, Redis, Server, socket_folder
from tests.factory import EVENTS
from tests.functional.instance import Instance, Reply, alive, descendants, start_time
from tests.prometheus_text import Scrape, parse
from tests.waiting import wait_until

PARTS = ["api", "worker", "upkeep", "beat", "postgres", "redis"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="footfall-up-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def instance(folder: Path) -> Iterator[Instance]:
    """One instance that the tests of this module share, started again where one has stopped it."""
    running = Instance(folder / "data").start()
    yield running
    running.stop()


def test_run_json_names_every_part(instance: Instance) -> None:
    parts = instance.run
    assert set(parts) == set(PARTS)
    assert {name for name in PARTS if "url" in parts[name]} == {"api", "postgres", "redis"}
    assert len({parts[name]["pid"] for name in PARTS}) == len(PARTS)
    assert all(start_time(parts[name]["pid"]) for name in PARTS)


def test_secrets_are_readable_by_the_owner_only(instance: Instance) -> None:
    for name in ("secrets.json", "run.json"):
        assert stat.S_IMODE((instance.data_dir / name).stat().st_mode) == 0o600
    assert instance.api_key.startswith("ffk_")


def test_a_view_becomes_a_row(instance: Instance) -> None:
    track(instance, "/a-view")
    wait_until(lambda: views(instance, "/a-view") == 1, "the view's row")


def test_metrics_tell_prometheus_what_was_taken_and_what_was_refused(instance: Instance) -> None:
    def metrics() -> Scrape:
        reply = instance.get("/metrics", {"Authorization": f"Bearer {instance.metrics_token}"})
        assert reply.status == 200
        return parse(reply.body.decode())

    def refused() -> float:
        return metrics().value("footfall_refusals_total", reason="invalid") or 0

    before = refused()
    track(instance, "/counted")
    assert instance.post("/api/track/page-view", {"path": "no path"}).status == 400
    wait_until(lambda: refused() == before + 1, "the refusal to be flushed")
    found = metrics()
    assert found.by("footfall_up", "store") == {"redis": 1, "postgresql": 1}
    assert found.by("footfall_scrape_problems", "store") == {}
    assert (found.value("footfall_events_accepted_total", way="redis") or 0) >= 1
    assert instance.get("/metrics").status == 401


def test_a_second_up_on_the_same_folder_is_refused(instance: Instance) -> None:
    before = instance.run
    second = instance.cli("up", "--port", "0")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert str(supervisor(instance)) in second.stderr
    assert instance.run == before
    assert instance.get("/api/health").status == 200


def test_a_taken_port_is_refused(instance: Instance, folder: Path) -> None:
    port = str(urlsplit(instance.url).port)
    second = Instance(folder / "other").cli("up", "--port", port)
    assert second.returncode == 1
    assert f"port {port}" in second.stderr


def test_a_bad_setting_is_said_before_anything_starts(folder: Path) -> None:
    broken = Instance(folder / "broken", {"FOOTFALL_TIME_ZONE": "Mars/Olympus"})
    result = broken.cli("up", "--port", "0")
    assert result.returncode == 1
    assert "FOOTFALL_TIME_ZONE" in result.stderr
    assert not (folder / "broken" / "postgres").exists()


def test_a_token_opens_the_statistics(instance: Instance) -> None:
    result = instance.cli("token", "--role", "moderator", "--subject", "tester")
    assert result.returncode == 0, result.stderr
    bearer = {"Authorization": f"Bearer {result.stdout.strip()}"}
    assert instance.get("/api/admin/sitewide-stats", bearer).status == 200


def test_migrating_and_rolling_up_again_is_harmless(instance: Instance) -> None:
    assert instance.cli("migrate").returncode == 0
    assert instance.cli("rollup").returncode == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_is_replaced(instance: Instance, part: str) -> None:
    before = instance.run
    os.kill(before[part]["pid"], signal.SIGKILL)
    wait_until(lambda: instance.run[part]["pid"] != before[part]["pid"], f"another {part}")
    others = [name for name in PARTS if name != part]
    assert [instance.run[name] for name in others] == [before[name] for name in others]
    assert instance.run[part].get("url") == before[part].get("url")
    path, event_id = f"/after-killing-{part}", str(uuid4())
    wait_until(lambda: accepted(instance, path, event_id), "a view to be taken")
    wait_until(lambda: written(instance, path), "the view's row", seconds=60)


def test_sigterm_leaves_nothing_running_and_the_next_start_finds_the_data(instance: Instance) -> None:
    track(instance, "/kept")
    wait_until(lambda: views(instance, "/kept") == 1, "the view's row")
    parts = descendants(supervisor(instance))
    assert len(parts) > len(PARTS)  # PostgreSQL has processes of its own
    code, output = instance.stop(signal.SIGTERM)
    assert code == 0, output
    assert not alive(parts)
    assert not (instance.data_dir / "run.json").exists()
    key = instance.api_key
    instance.start()
    assert views(instance, "/kept") == 1
    assert instance.api_key == key


def test_a_second_ctrl_c_leaves_nothing_behind(instance: Instance) -> None:
    parts = descendants(supervisor(instance))
    os.kill(supervisor(instance), signal.SIGINT)
    code, output = instance.stop(signal.SIGINT, unbalanced="it is stopping; the next start is looked at")
    assert code == 0, output
    assert "Traceback" not in output
    assert not alive(parts)
    instance.start()


def test_sigkill_of_the_supervisor_leaves_nothing_running(instance: Instance) -> None:
    parts = descendants(supervisor(instance))
    instance.stop(signal.SIGKILL)
    wait_until(lambda: not alive(parts), "every part to end", seconds=45)
    result = instance.cli("rollup")
    assert result.returncode == 1
    assert "nothing is running" in result.stderr
    instance.start()
    track(instance, "/after-sigkill")
    wait_until(lambda: views(instance, "/after-sigkill") == 1, "the view's row")


def test_stores_that_are_elsewhere_are_used_and_not_started(folder: Path) -> None:
    away = folder / "away"
    postgres = Postgres(away / "postgres", socket_folder(away), away / "postgres.log")
    redis = Redis(away / "redis", socket_folder(away), away / "redis.log")
    with running(postgres), running(redis):
        elsewhere = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        with Instance(folder / "guest", elsewhere).running() as guest:
            assert guest.run["postgres"] == {"url": postgres.url}
            assert guest.run["redis"] == {"url": redis.url}
            track(guest, "/elsewhere")
            wait_until(lambda: views(guest, "/elsewhere") == 1, "the view's row")
        assert postgres.answers()
        assert redis.answers()
    assert not (folder / "guest" / "postgres").exists()


def test_a_path_too_long_for_sockets_works(folder: Path) -> None:
    with Instance(folder / ("long name " + "x" * 100)).running() as far:
        sockets = Path(urlsplit(far.run["redis"]["url"]).path).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        track(far, "/far")
        wait_until(lambda: views(far, "/far") == 1, "the view's row")
    assert not sockets.exists()


@contextmanager
def running(server: Server) -> Iterator[None]:
    process = server.start()
    try:
        yield
    finally:
        server.stop(process)


def track(instance: Instance, path: str) -> None:
    reply = post_view(instance, path)
    assert reply.status == 204, reply


def accepted(instance: Instance, path: str, event_id: str) -> bool:
    """Whether the view was taken; while a part is being replaced it may be refused, or taken unanswered."""
    try:
        return post_view(instance, path, id=event_id).status == 204
    except OSError:
        return False


def post_view(instance: Instance, path: str, **more: str) -> Reply:
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
    return instance.post("/api/track/page-view", {"path": path, **more}, browser)


def views(instance: Instance, path: str) -> int:
    engine = instance.engine()
    query = text(
        f"SELECT count(*) FROM {EVENTS} AS v JOIN entities ON entities.id = entity_id"
        " WHERE entity_type = 'page' AND external_id = :path AND outcome = 'counted'"
    )
    try:
        with engine.connect() as connection:
            return int(connection.execute(query, {"path": path}).scalar_one())
    finally:
        engine.dispose()


def written(instance: Instance, path: str) -> bool:
    """Whether the view has its row; the database may be on its way back."""
    try:
        return views(instance, path) == 1
    except OperationalError:
        return False


def supervisor(instance: Instance) -> int:
    assert instance.process is not None
    return instance.process.pid
