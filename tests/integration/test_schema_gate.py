"""No process starts on a schema that it cannot write to, and none writes to one that has drifted."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from freezegun import freeze_time

from api import app as api_app
from footfall import retention, rollup, stream, writer
from footfall.cli import main
from footfall.clock import utc_now
from footfall.errors import SchemaError
from tests.factory import PEPPER
from tests.integration.api import bearer
from tests.integration.content import Open
from tests.integration.patient import Patient
from tests.waiting import wait_until

DRIFT = "ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"
MENDED = "ALTER TABLE view_events ADD CONSTRAINT view_events_day_id_unique UNIQUE (day, id)"
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def environment(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The patient's settings as a process gets them."""
    values = {
        "DATABASE_URL": patient.settings.database_url,
        "REDIS_URL": patient.settings.redis_url,
        "FOOTFALL_PEPPER": PEPPER,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whether an API gave signs of life; no thread of it outlives the test."""
    started: list[object] = []
    monkeypatch.setattr("api.heartbeat.start", started.append)
    monkeypatch.setattr("footfall.logs.configure", lambda: None)
    return started


@pytest.mark.usefixtures("environment")
def test_the_api_is_not_served_on_a_drifted_schema(patient: Patient, beats: list[object]) -> None:
    patient.sql(DRIFT)
    with pytest.raises(
        SchemaError, match=r"view_events has no valid unique key .* run: footfall doctor --fix"
    ):
        api_app.create_app()
    assert beats == []
    patient.sql(MENDED)
    api_app.create_app()
    assert len(beats) == 1


@pytest.mark.usefixtures("environment")
def test_the_api_is_not_served_on_an_older_schema(patient: Patient, beats: list[object]) -> None:
    patient.sql("UPDATE alembic_version SET version_num = '20261121_gaps'")
    with pytest.raises(SchemaError, match="run: footfall migrate"):
        api_app.create_app()
    assert beats == []


@pytest.mark.usefixtures("environment")
def test_the_api_is_served_while_the_database_is_away(
    beats: list[object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    api_app.create_app()
    assert len(beats) == 1
    assert "could not be looked at" in caplog.text


@pytest.mark.parametrize("queue", ["write", "upkeep"])
def test_a_worker_does_not_start_on_a_drifted_schema(
    patient: Patient, environment: dict[str, str], queue: str
) -> None:
    patient.sql(DRIFT)
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-Q", queue, "--pool", "solo"]
    ended = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: view_events has no valid unique key")
    assert ended.stderr.splitlines()[-1].endswith("run: footfall doctor --fix")


def test_a_writer_looks_again_after_ten_seconds(patient: Patient, caplog: pytest.LogCaptureFixture) -> None:
    with freeze_time(utc_now()) as clock:
        patient.store(patient.event())
        patient.sql(DRIFT)
        stream.put(patient.redis, [patient.event()])
        clock.tick(11)
        for _ in range(3):
            with pytest.raises(SchemaError, match="footfall doctor --fix"):
                patient.write()
        assert caplog.text.count("nothing is written to a schema that has drifted") == 1, "once a look"
        assert stream.backlog(patient.redis, utc_now()).entries == 1
        assert patient.sql("SELECT count(*) FROM dead_letters") == [(0,)]
        patient.sql(MENDED)
        clock.tick(11)
        assert dict(patient.write().fates) == {"row": 1}


def test_what_a_writer_of_before_has_in_hand_is_taken_over_while_it_goes_on_ticking(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read an entry again makes it young again: it would be its own for as long as the old one lives."""
    monkeypatch.setattr(stream, "TAKE_OVER_IDLE_MS", 300)
    stream.put(patient.redis, [patient.event()])
    assert len(stream.read(patient.redis, "before", 10)) == 1
    known = patient.sql("SELECT version_num FROM alembic_version")[0][0]
    patient.sql("UPDATE alembic_version SET version_num = '20991231_later'")
    patient.engine.dispose()  # no connection has looked lately

    def tick_of_before() -> None:
        with pytest.raises(SchemaError, match="start the newer version"):
            writer.drain(patient.engine, patient.redis, patient.settings, "before")

    def is_idle() -> bool:
        tick_of_before()
        (pending,) = patient.redis.xpending_range(stream.STREAM_KEY, stream.GROUP, "-", "+", 1)
        return int(pending["time_since_delivered"]) > stream.TAKE_OVER_IDLE_MS

    wait_until(is_idle, "the entry to be left alone", 5)
    patient.sql(f"UPDATE alembic_version SET version_num = '{known}'")
    patient.engine.dispose()
    written = writer.drain(patient.engine, patient.redis, patient.settings, "after")
    assert dict(written.fates) == {"row": 1}


def test_another_version_rolls_nothing_up_and_drops_nothing(patient: Patient) -> None:
    patient.store(patient.event(9))
    rows = "SELECT count(*) FROM daily_stats"
    days = "SELECT day, sealed_at FROM event_days ORDER BY day"
    before = (patient.sql(rows), patient.sql(days))
    patient.sql("UPDATE alembic_version SET version_num = '20991231_later'")
    patient.engine.dispose()
    for work in (
        lambda: rollup.roll_up(patient.engine, patient.today, patient.now),
        lambda: rollup.catch_up(patient.engine, patient.today, patient.now),
        lambda: retention.drop_expired(patient.engine, patient.redis, patient.settings, patient.now),
    ):
        with pytest.raises(SchemaError, match="start the newer version"):
            work()
    assert (patient.sql(rows), patient.sql(days)) == before


def test_a_column_that_wants_a_value_makes_no_dead_letters(patient: Patient) -> None:
    """The database calls it bad data: without the look, every event would be parked."""
    with freeze_time(utc_now()) as clock:
        patient.store(patient.event())
        patient.sql("ALTER TABLE view_events ADD COLUMN more integer NOT NULL DEFAULT 0")
        patient.sql("ALTER TABLE view_events ALTER COLUMN more DROP DEFAULT")
        stream.put(patient.redis, [patient.event()])
        clock.tick(11)
        with pytest.raises(SchemaError, match="wants a value"):
            patient.write()
        assert patient.sql("SELECT count(*) FROM dead_letters") == [(0,)]


def test_views_past_redis_are_refused_without_telling_the_browser_why(
    open_site: Open, patient: Patient
) -> None:
    site = open_site(database_url=patient.settings.database_url, redis_enabled=False)
    patient.sql(DRIFT)
    answer = site.track("/api/stories/s1/view")
    assert (answer.status, answer.body["code"]) == (503, "unavailable")
    assert "doctor" not in str(answer.body)
    patient.sql(MENDED)
    assert open_site(database_url=patient.settings.database_url, redis_enabled=False).story("s1") == (
        True,
        1,
        "counted",
    )


def test_an_admin_who_flushes_is_told_what_to_do(open_site: Open, patient: Patient) -> None:
    site = open_site(database_url=patient.settings.database_url)
    patient.sql(DRIFT)
    assert site.track("/api/stories/s1/view").status == 200, "taken, and it waits"
    answer = site.client.post("/api/views/flush", headers=bearer(site.settings, "admin"))
    assert (answer.status_code, (answer.json or {})["code"]) == (503, "schema")
    assert "footfall doctor --fix" in (answer.json or {})["error"]
    assert answer.headers["Retry-After"]


@pytest.mark.usefixtures("environment")
def test_migrate_says_what_no_migration_mends(patient: Patient) -> None:
    patient.sql(DRIFT)
    result = CliRunner().invoke(main, ["migrate"])
    assert result.exit_code == 1
    assert "run: footfall doctor --fix" in result.output
    assert CliRunner().invoke(main, ["doctor", "--fix"]).exit_code == 0
    assert CliRunner().invoke(main, ["migrate"]).output == "the schema is up to date\n"


@pytest.mark.usefixtures("environment")
def test_migrate_refuses_a_newer_database(patient: Patient) -> None:
    patient.sql("UPDATE alembic_version SET version_num = '20991231_later'")
    result = CliRunner().invoke(main, ["migrate"])
    assert result.exit_code == 1
    assert "newer than this code" in result.output
    assert "20991231_later" in result.output
