"""What the doctor says of Redis, of the parts and of their work: each is harmed, and found out."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from freezegun import freeze_time
from redis import Redis
from sqlalchemy import text

from footfall import counts, keys, liveness, readiness, retention, stream
from footfall.clock import utc_now
from footfall.database import make_engine
from footfall.doctor import queue
from footfall.doctor.examination import examine
from footfall.schema import Base
from tests.integration.content import Open
from tests.integration.patient import Patient
from tests.unit import mmdb
from worker import tasks
from worker.celery import app

NOWHERE = "postgresql+psycopg2://nobody@127.0.0.1:1/none"


# Stores away


def away(patient: Patient, *stores: str) -> Patient:
    """The same with stores that do not answer."""
    instance = patient.instance
    if "postgres" in stores:
        instance = replace(instance, engine=make_engine(replace(patient.settings, database_url=NOWHERE)))
    if "redis" in stores:
        gone = replace(patient.settings, redis_url="unix:///nowhere/redis.sock")
        instance = replace(instance, redis=stream.connect(gone))
    return replace(patient, instance=instance)


def test_without_postgres_redis_is_still_examined(patient: Patient) -> None:
    examined = away(patient, "postgres").examine()
    assert examined["postgres"].verdict == "problem"
    assert examined["postgres"].text.startswith("PostgreSQL does not answer: ")
    assert {examined[name].verdict for name in ("redis", "redis_memory", "queue", "tasks")} == {"ok"}
    assert {examined[name].verdict for name in ("columns", "rollup", "clocks", "sizes")} == {"skipped"}


def test_without_redis_the_database_is_still_examined_and_mended(patient: Patient) -> None:
    patient.sql("ALTER TABLE tallies DROP CONSTRAINT tallies_day_name_unique")
    sick = away(patient, "redis")
    examined = sick.examine()
    assert examined["redis"].verdict == "problem"
    assert {examined[name].verdict for name in ("queue", "tasks", "shown_counts")} == {"skipped"}
    assert examined["retention"].verdict == "ok"
    assert sick.mend() == ["added tallies_day_name_unique"]


def test_with_both_away_the_report_says_so_and_no_more(patient: Patient) -> None:
    examined = away(patient, "postgres", "redis").examine()
    assert {name for name, check in examined.items() if check.verdict == "problem"} == {"postgres", "redis"}
    assert examined["countries"].verdict == "ok"


def test_every_finding_comes_with_a_command(patient: Patient) -> None:
    for harm in (
        "DROP TABLE tallies",
        "DELETE FROM event_days",
        "UPDATE site SET time_zone = 'Europe/Vienna'",
    ):
        patient.sql(harm)
    patient.redis.flushall()
    with patient.configured(appendonly="no", maxmemory="0", maxmemory_policy="allkeys-lru"):
        findings = [one for check in patient.later(days=3).examine().values() for one in check.findings]
    assert len(findings) > 6
    assert all(finding.command and finding.text for finding in findings)


# Redis


@pytest.mark.parametrize(
    ("values", "check", "verdict", "is_said"),
    [
        ({"appendonly": "no"}, "redis_persistence", "problem", "keeps no append-only file"),
        ({"appendfsync": "everysec"}, "redis_persistence", "warning", "of a second"),
        ({"appendfsync": "no"}, "redis_persistence", "problem", "appendfsync is no"),
        ({"maxmemory_policy": "allkeys-lru"}, "redis_eviction", "problem", "allkeys-lru"),
        ({"maxmemory": "0"}, "redis_memory", "warning", "no maxmemory"),
    ],
)
def test_a_redis_that_is_set_otherwise_is_found_and_the_command_mends_it(
    patient: Patient, values: dict[str, str], check: str, verdict: str, is_said: str
) -> None:
    with patient.configured(**values):
        found = patient.examine()[check]
        assert (found.verdict, is_said in found.text) == (verdict, True), found.text
        assert set(patient.found()) == {check}
        _, _, command = found.findings[0].command.partition("CONFIG SET ")
        patient.redis.config_set(*command.split())
        assert patient.found() == {}


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "ok"), (0.7, "warning"), (0.8, "problem")])
def test_memory_is_measured_against_its_limit(patient: Patient, share: float, verdict: str) -> None:
    used = patient.redis.info("memory")["used_memory"]
    with patient.configured(maxmemory=str(int(used / share))):
        assert patient.examine()["redis_memory"].verdict == verdict


def test_an_old_redis_is_too_old(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"redis_version": "6.0.16", "role": "slave"}
    monkeypatch.setattr(queue, "_info", lambda _, __: told)
    texts = [finding.text for finding in queue.redis(patient.instance).findings]
    assert texts == ["Redis 6.0.16 is too old, 6.2 is needed", "this Redis is a replica and takes no views"]


def test_a_redis_that_may_not_be_asked_for_its_settings_is_no_finding(
    patient: Patient, own_user: Redis
) -> None:
    sick = replace(patient, instance=replace(patient.instance, redis=own_user))
    check = sick.examine()["redis_persistence"]
    assert (check.verdict, check.figures["appendfsync"]) == ("ok", None)


@pytest.fixture
def own_user(patient: Patient) -> Iterator[Redis]:
    """A client that may do everything but CONFIG, as with a Redis that one rents."""
    patient.redis.acl_setuser(
        "guest",
        enabled=True,
        passwords=["+word"],
        keys=["*"],
        channels=["*"],
        categories=["+@all"],
        commands=["-config"],
    )
    url = patient.settings.redis_url.replace("unix://", "unix://guest:word@")
    client = Redis.from_url(url)
    yield client
    client.close()
    patient.redis.acl_deluser("guest")


def test_clocks_that_differ_are_found(patient: Patient) -> None:
    with freeze_time(utc_now() - timedelta(hours=1)):
        check = patient.examine()["clocks"]
    assert [finding.text.partition(" s ")[2] for finding in check.findings] == ["ahead of this host's"] * 2
    assert check.verdict == "problem"
    with freeze_time(utc_now() + timedelta(seconds=10)):
        check = patient.examine()["clocks"]
    assert [finding.severity for finding in check.findings] == ["warning"] * 2
    assert "behind" in check.findings[0].text


# The queue


def test_an_old_entry_is_found_with_who_holds_it(patient: Patient) -> None:
    stream.put(patient.redis, [patient.event()])
    assert patient.later(seconds=50).examine()["queue"].verdict == "ok"
    check = patient.later(minutes=5).examine()["queue"]
    assert check.verdict == "problem"
    assert check.text.startswith("1 entries wait to be written, the oldest for 5 min")
    assert "no writer has read it" in check.text
    stream.read(patient.redis, "stuck@host", 10)
    stream.read(patient.redis, "stuck@host", 10)
    assert "stuck@host has read it 2 times" in patient.later(minutes=5).found()["queue"]
    patient.write()
    patient.redis.delete(stream.STREAM_KEY)
    assert patient.found() == {}


def test_a_queue_that_fills_up_is_found(patient: Patient) -> None:
    stream.put(patient.redis, [patient.event() for _ in range(stream.ENTRY_EVENTS * 3)])
    for limit, verdict in ((3, "problem"), (5, "warning"), (6, "ok")):
        settings = replace(patient.settings, queue_limit_entries=limit)
        narrow = replace(patient, instance=replace(patient.instance, settings=settings))
        assert narrow.examine()["queue"].verdict == verdict


# The parts


def test_a_beat_that_stopped_is_found(patient: Patient) -> None:
    assert "tasks" not in patient.later(minutes=1).found()
    check = patient.later(minutes=30).examine()["tasks"]
    assert check.verdict == "problem"
    assert check.text == "no task was run for 30 min: beat does not run, or no worker does"
    assert check.findings[0].command == "docker compose restart beat"


def test_ticks_that_nobody_takes_are_the_workers_fault(patient: Patient) -> None:
    patient.redis.rpush(f"{keys.CELERY_PREFIX}upkeep", "1", "2")
    found = patient.later(days=2).found()["tasks"]
    assert "upkeep has not run" in found
    assert "2 tasks wait for it" in found
    assert "beat does not run" not in found


def test_one_worker_that_stopped_is_named(patient: Patient) -> None:
    later = patient.later(minutes=30)
    later.note_runs(*(name for name, task in later.instance.schedule.items() if task.queue == "upkeep"))
    found = later.found()["tasks"]
    assert "worker has not run write_events for 30 min" in found
    assert "upkeep" not in found
    later.note_runs("footfall.write_events")
    assert "tasks" not in later.found()


def test_a_task_that_fails_is_found(patient: Patient) -> None:
    patient.note_runs("footfall.catch_up", error="OperationalError")
    check = patient.examine()["tasks"]
    assert (check.verdict, "catch_up ended with OperationalError" in check.text) == ("warning", True)
    patient.note_runs("footfall.write_events", error="SchemaError")
    assert patient.examine()["tasks"].verdict == "problem"
    patient.note_runs()
    assert patient.found() == {}


def test_every_task_notes_how_its_run_went(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = tasks.Stores(patient.settings, patient.engine, patient.redis)
    monkeypatch.setattr(tasks, "stores", lambda: stores)
    patient.redis.delete(keys.RUNS)
    for name in patient.instance.schedule:
        app.tasks[name].apply()
    since, runs = liveness.last_runs(patient.redis)
    assert set(runs) == set(patient.instance.schedule)
    assert not any(run.error for run in runs.values())
    patient.sql("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique")
    patient.engine.dispose()
    stream.put(patient.redis, [patient.event()])
    tasks.write_events.apply()
    after, runs = liveness.last_runs(patient.redis)
    assert runs["footfall.write_events"].error == "SchemaError"
    assert after == since
    gone = stream.connect(replace(patient.settings, redis_url="unix:///nowhere/redis.sock"))
    monkeypatch.setattr(tasks, "stores", lambda: stores._replace(redis=gone))
    tasks.turn_days.apply()  # nobody can be told, and it has done its work


def test_a_nightly_task_of_a_new_instance_has_its_night_before_it(patient: Patient) -> None:
    patient.redis.delete(keys.RUNS)
    assert "no task was run yet" in patient.found()["tasks"]
    frequent = [name for name, task in patient.instance.schedule.items() if task.interval_seconds < 3600]
    patient.note_runs(*frequent)
    assert "tasks" not in patient.found()
    later = patient.later(days=2)
    later.note_runs(*frequent)
    assert "roll_up" in later.found()["tasks"]


def test_an_api_that_is_gone_is_found(patient: Patient) -> None:
    assert "api" not in patient.later(minutes=9).found()
    check = patient.later(minutes=11).examine()["api"]
    assert (check.verdict, check.text) == ("problem", "no API process lives, for 11 min already")
    patient.sql("UPDATE site SET last_alive_at = NULL")
    assert patient.examine()["api"].verdict == "warning"


def test_days_on_which_nobody_took_views_are_named(patient: Patient) -> None:
    gap = {"start": patient.now - timedelta(days=2, hours=1), "end": patient.now - timedelta(days=2)}
    patient.sql("INSERT INTO gaps (started_at, ended_at) VALUES (:start, :end)", **gap)
    assert patient.examine()["api"].verdict == "warning"
    assert str(gap["start"].date()) in patient.found()["api"]


# Rollups, retention, what was refused


def test_a_day_that_waits_to_be_rolled_up_is_found_and_rolled_up(patient: Patient) -> None:
    patient.store(patient.event(1), patient.event(3))
    assert "rollup" not in patient.found(), "the next tick does it"
    later = patient.later(minutes=11)
    later.note_runs()
    check = later.examine()["rollup"]
    assert [finding.text for finding in check.findings] == [
        f"{later.today - timedelta(days=n)} has waited 11 min to be rolled up" for n in (3, 1)
    ]
    assert later.mend() == [
        f"rolled up {later.today - timedelta(days=3)}: 2 rows written",
        f"rolled up {later.today - timedelta(days=1)}: 2 rows written",
    ]
    assert "rollup" not in later.found()


def test_a_day_that_changed_just_now_does_not_wait_however_old_it_is(patient: Patient) -> None:
    patient.store(patient.event(3))
    later = patient.later(hours=5)
    later.mend()
    entry = f"{int((later.now.timestamp() - 30) * 1000)}-0"
    stream.put(patient.redis, [patient.event(3)])
    ((_, fields),) = cast(list[Any], patient.redis.xrange(stream.STREAM_KEY))
    patient.redis.delete(stream.STREAM_KEY)
    patient.redis.xadd(stream.STREAM_KEY, fields, id=entry)
    assert later.write().entries == 1
    assert "rollup" not in later.found()
    assert "rollup" in later.later(minutes=11).found()


def test_a_rollup_that_another_process_is_at_is_left_to_it(patient: Patient) -> None:
    patient.store(patient.event(3))
    later = patient.later(hours=1)
    day = later.today - timedelta(days=3)
    with patient.engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(710862, :day)"), {"day": day.toordinal()})
        assert later.mend() == [f"not done: {day} is being rolled up by another process"]


def test_what_is_kept_past_its_time_is_found(patient: Patient) -> None:
    patient.store(patient.event(8), patient.event(25))
    patient.later(hours=1).mend()
    patient.sql(
        "UPDATE daily_stats SET day = day - 10 WHERE day = :day", day=patient.today - timedelta(days=25)
    )
    check = patient.examine()["retention"]
    assert [finding.severity for finding in check.findings] == ["problem", "warning"]
    assert f"raw events of {patient.today - timedelta(days=25)}" in check.findings[0].text
    assert "daily rows of" in check.findings[1].text
    retention.drop_expired(patient.engine, patient.redis, patient.settings, patient.now)
    assert "retention" not in patient.found()


def test_what_the_next_run_drops_is_not_late(patient: Patient) -> None:
    patient.store(patient.event(8))
    patient.later(hours=1).mend()
    assert "retention" not in patient.found()


def test_salts_past_their_time_are_a_problem(patient: Patient) -> None:
    assert "retention" not in patient.later(hours=48).found()
    later = patient.later(hours=74)
    assert "salts are kept past their 48 hours" in later.found()["retention"]


def test_dead_letters_are_counted_by_reason(patient: Patient) -> None:
    letter = (
        "INSERT INTO dead_letters (entry, position, reason, detail, payload, created_at)"
        " SELECT n, 0, :reason, 'detail', '', :at FROM generate_series(:first, :last) AS n"
    )
    hour_ago = patient.now - timedelta(minutes=59)
    patient.sql(letter, reason="too_late", at=patient.now - timedelta(days=3), first=1, last=200)
    patient.sql(letter, reason="refused", at=hour_ago, first=201, last=202)
    check = patient.examine()["dead_letters"]
    assert check.verdict == "warning"
    assert check.text == (
        "202 events could not be stored, the first 3 days ago, the last 59 min ago: 200 too_late, 2 refused"
    )
    assert check.figures == {"letters": 202, "reasons": {"too_late": 200, "refused": 2}}
    patient.sql(letter, reason="refused", at=hour_ago, first=300, last=400)
    assert patient.examine()["dead_letters"].verdict == "problem", "that many at once are no bad client"


# Counts, countries, the way past Redis


def test_counts_shown_below_what_is_stored_are_found_and_raised(open_site: Open, patient: Patient) -> None:
    site = open_site(database_url=patient.settings.database_url)
    for address in ("192.0.2.1", "192.0.2.2"):
        assert site.story("s1", address=address)
    patient.write()
    assert "shown_counts" not in patient.found()
    key = keys.count("story", "s1")
    patient.redis.hset(key, "intentional", 1)
    check = patient.examine()["shown_counts"]
    assert (check.verdict, check.figures) == ("warning", {"compared": 1, "behind": 1})
    assert patient.mend() == ["raised what is shown of 1 entities to what is stored"]
    assert counts.shown(patient.redis, ("story", "s1")) == {"intentional": 2}
    assert patient.found() == {}


def test_counts_noted_for_the_next_tick_are_not_behind(open_site: Open, patient: Patient) -> None:
    site = open_site(database_url=patient.settings.database_url)
    past_redis = open_site(database_url=patient.settings.database_url, redis_enabled=False)
    site.story("s1", address="192.0.2.1")
    patient.write()
    past_redis.story("s1", address="192.0.2.2")
    assert "shown_counts" not in patient.found()
    patient.sql("DELETE FROM shown_behind")
    assert "shown_counts" in patient.found()


def test_views_that_come_past_redis_are_told(open_site: Open, patient: Patient) -> None:
    past_redis = open_site(database_url=patient.settings.database_url, redis_enabled=False)
    past_redis.story("s1")
    check = patient.examine()["fallback"]
    assert check.verdict == "warning"
    assert check.figures["past_redis"] == 1
    wanted = replace(patient.instance, settings=replace(patient.settings, redis_enabled=False))
    (told,) = [one for one in examine(wanted).checks if one.name == "fallback"]
    assert told.verdict == "ok"


def test_a_country_file_is_there_and_not_too_old(patient: Patient, tmp_path: Path) -> None:
    def found(file: Path | None, header: str | None = None) -> tuple[str, str]:
        settings = replace(patient.settings, country_file=file, country_header=header)
        (check,) = [
            one
            for one in examine(replace(patient.instance, settings=settings)).checks
            if one.name == "countries"
        ]
        return check.verdict, check.text

    file = tmp_path / "countries.mmdb"
    assert found(None) == ("ok", "no source of countries: every view has the country ZZ")
    assert found(None, "CF-IPCountry") == ("ok", "countries come from the header CF-IPCountry")
    assert found(file)[0] == "warning"
    for age_days, verdict in ((39, "ok"), (41, "warning")):
        built_at = patient.now - timedelta(days=age_days, hours=1)
        mmdb.write(file, "192.0.2.1", {"country_code": "AT"}, int(built_at.timestamp()))
        assert found(file)[0] == verdict
    file.write_bytes(b"nothing of the kind")
    assert found(file)[0] == "warning"


def test_sizes_are_told_of_every_table_with_its_partitions(patient: Patient) -> None:
    told = patient.examine()["sizes"].figures["bytes"]
    assert set(told) == set(Base.metadata.tables)
    whole = patient.sql("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('view_events')")
    assert sum(told["view_events"].values()) == whole[0][0]


def test_keys_that_run_out_are_seen_from_afar(patient: Patient) -> None:
    patient.sql(
        "INSERT INTO entities (id, entity_type, external_id, created_at)"
        " OVERRIDING SYSTEM VALUE VALUES (1500000000, 'page', '/far', :now)",
        now=patient.now,
    )
    assert "70% of the keys" in patient.found()["sizes"]


def test_readiness_is_503_while_a_partition_is_gone(patient: Patient) -> None:
    patient.sql(f"DROP TABLE view_events_{patient.today:%Y_%m_%d}")
    found = readiness.check(patient.engine, patient.redis, patient.settings, utc_now())
    assert not found.ready
    assert "footfall doctor --fix" in found.checks["partitions"]["problem"]
