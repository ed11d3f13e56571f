"""What the doctor says of the database, and what it does: each harm is found, named and mended."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from footfall import counts, days, keys, readiness, schema_check, stream
from footfall.clock import utc_now
from footfall.database import alembic_config
from footfall.doctor import mending
from footfall.errors import SchemaError
from footfall.schema import Base
from tests.factory import EVENTS
from tests.integration.patient import Patient

UNIQUE = sorted(schema_check.REQUIRED_UNIQUE.items())


def constraint_name(table: str, columns: tuple[str, ...]) -> str:
    (name,) = {
        str(one.name)
        for one in Base.metadata.tables[table].constraints
        if tuple(column.name for column in getattr(one, "columns", ())) == columns
        and type(one).__name__ in {"UniqueConstraint", "PrimaryKeyConstraint"}
    }
    return name


@contextmanager
def writing_refused(patient: Patient) -> Iterator[None]:
    """While the block lasts, and ten seconds after somebody looked, nothing is written and nothing lost."""
    patient.engine.dispose()  # a fresh connection looks at once
    stream.put(patient.redis, [patient.event()])
    with pytest.raises(SchemaError):
        patient.write()
    assert stream.backlog(patient.redis, utc_now()).entries == 1
    assert not readiness.check(patient.engine, patient.redis, patient.settings, utc_now()).ready
    yield
    patient.engine.dispose()
    assert dict(patient.write().fates) == {"row": 1}
    assert patient.sql("SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_healthy_instance_gives_no_finding(patient: Patient) -> None:
    assert patient.found() == {}
    assert patient.is_ready()
    assert patient.mend() == []


@pytest.mark.parametrize(("table", "columns"), UNIQUE, ids=[table for table, _ in UNIQUE])
def test_a_dropped_key_is_found_refused_and_added(
    patient: Patient, table: str, columns: tuple[str, ...]
) -> None:
    name = constraint_name(table, columns)
    patient.sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    found = patient.found()
    assert found == {"unique_keys": f"problem: {table} has no valid unique key on ({', '.join(columns)})"}
    with writing_refused(patient):
        assert patient.mend() == [f"added {name}"]
    patient.store()
    assert "unique_keys" not in patient.found()
    assert "drift" not in patient.found()


@pytest.mark.parametrize(
    ("instead", "is_said"),
    [
        ("CREATE INDEX {name} ON {table} ({key})", "not unique"),
        ("CREATE UNIQUE INDEX {name} ON {table} ({key}) WHERE count > 0", "partial"),
        ("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE ({key}) DEFERRABLE", "deferrable"),
        ("CREATE UNIQUE INDEX something_else ON {table} ({key}) WHERE count > 0", "partial"),
    ],
)
def test_a_key_that_serves_no_on_conflict_is_none(patient: Patient, instead: str, is_said: str) -> None:
    name = "view_counters_entity_id_view_type_unique"
    patient.sql(f"ALTER TABLE view_counters DROP CONSTRAINT {name}")
    patient.sql(instead.format(name=name, table="view_counters", key="entity_id, view_type"))
    assert is_said in patient.found()["unique_keys"]
    assert not patient.is_ready()
    assert f"added {name}" in patient.mend()
    assert "unique_keys" not in patient.found()


def test_an_index_that_could_not_be_built_is_no_key(patient: Patient) -> None:
    name = "view_counters_entity_id_view_type_unique"
    patient.sql(f"ALTER TABLE view_counters DROP CONSTRAINT {name}")
    double_every_counter(patient)
    with (
        patient.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(Exception, match="could not create unique index"),
    ):
        connection.execute(
            text(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON view_counters (entity_id, view_type)")
        )
    assert "not valid" in patient.found()["unique_keys"]
    patient.mend()
    assert "unique_keys" not in patient.found()


@pytest.mark.parametrize("index", ["(id, day)", "(day, id) INCLUDE (entity_id)"])
def test_another_key_that_serves_is_enough_to_write(patient: Patient, index: str) -> None:
    patient.sql("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique")
    patient.sql(f"CREATE UNIQUE INDEX other ON view_events {index}")
    assert "unique_keys" not in patient.examine() or patient.examine()["unique_keys"].verdict == "ok"
    assert patient.is_ready()
    event = patient.event()
    patient.store(event, event)
    assert patient.sql("SELECT count(*) FROM view_events WHERE id = :id", id=event.id) == [(1,)]


@pytest.mark.parametrize(
    ("harm", "is_said"),
    [
        (
            "ALTER TABLE view_events RENAME COLUMN referrer_domain TO land",
            "no column referrer_domain, but land",
        ),
        ("ALTER TABLE view_events DROP COLUMN referrer_domain", "no column referrer_domain"),
        ("ALTER TABLE view_counters ALTER COLUMN count TYPE integer", "count is integer and not bigint"),
        ("ALTER TABLE view_events ALTER COLUMN visitor SET NOT NULL", "visitor refuses NULL"),
        ("ALTER TABLE view_events ALTER COLUMN referrer_domain SET NOT NULL", "referrer_domain refuses NULL"),
        ("ALTER TABLE tallies ADD COLUMN more integer NOT NULL", "more wants a value"),
        ("ALTER TABLE dead_letters ALTER COLUMN id DROP IDENTITY", "not filled by the database"),
    ],
)
def test_a_changed_column_is_found_refused_and_mended_by_the_command(
    patient: Patient, harm: str, is_said: str
) -> None:
    if "referrer_domain SET NOT NULL" in harm:
        patient.sql("UPDATE view_events SET referrer_domain = 'a.example'")
    patient.sql(harm)
    check = patient.examine()["columns"]
    assert (check.verdict, is_said in check.text) == ("problem", True), check.text
    assert "drift" not in patient.found(), "nothing is said twice"
    with patient.engine.connect() as connection:
        (flaw,) = schema_check.column_flaws(connection)
    assert flaw.command in check.findings[0].command
    with writing_refused(patient):
        assert patient.mend() == [], "nobody but a person knows what was meant"
        patient.sql(flaw.command)
    # a column that nobody knows may stay
    assert set(patient.found()) == ({"drift"} if "ADD COLUMN" in harm else set())


def test_a_missing_table_is_found_and_the_rest_is_still_examined(patient: Patient) -> None:
    patient.sql("DROP TABLE tallies")
    found = patient.found()
    assert "the table tallies is missing" in found["columns"]
    assert "pg_restore --table=tallies" in patient.examine()["columns"].findings[0].command
    assert found["fallback"] == "skipped: not looked at: see columns"
    assert patient.examine()["partitions"].verdict == "ok"
    assert not patient.is_ready()


def test_an_empty_database_is_said_and_nothing_is_asked_of_its_tables(patient: Patient) -> None:
    patient.sql("DROP SCHEMA public CASCADE")
    patient.sql("CREATE SCHEMA public")
    examined = patient.examine()
    assert examined["revision"].findings[0].command == "footfall migrate"
    assert "empty" in examined["revision"].text
    assert {check.verdict for name, check in examined.items() if name in ("columns", "rollup", "sizes")} == {
        "skipped"
    }
    assert examined["queue"].verdict == "ok"
    assert patient.mend() == []


def test_an_older_revision_needs_migrating(patient: Patient) -> None:
    patient.sql("UPDATE alembic_version SET version_num = '20261121_unique'")
    check = patient.examine()["revision"]
    assert "20261121_unique" in check.text
    assert check.findings[0].command == "footfall migrate"
    patient.sql("UPDATE alembic_version SET version_num = :head", head=schema_check.code_revision())
    assert patient.found() == {}


def test_a_newer_revision_is_said_to_be_newer(patient: Patient) -> None:
    patient.sql("UPDATE alembic_version SET version_num = '20991231_later'")
    check = patient.examine()["revision"]
    assert "newer than this code" in check.text
    assert check.findings[0].command == f"alembic downgrade {schema_check.code_revision()}"
    assert not patient.is_ready()


def test_other_differences_are_named_with_the_sql_that_undoes_them(patient: Patient) -> None:
    for harm in (
        "DROP INDEX view_events_version_occurred_at_index",
        "ALTER TABLE view_events ADD COLUMN colour text",
        "ALTER TABLE entities ALTER COLUMN external_id DROP NOT NULL",
        "ALTER TABLE event_kinds DROP CONSTRAINT event_kinds_outcome_check",
        "ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_pkey",
    ):
        patient.sql(harm)
    findings = patient.examine()["drift"].findings
    assert {finding.severity for finding in findings} == {"warning"}
    assert sorted(finding.text for finding in findings) == [
        "dead_letters has no constraint dead_letters_pkey",
        "entities.external_id has another nullable than the model",
        "event_kinds has no constraint event_kinds_outcome_check",
        "the column view_events.colour is in no model",
        "the index view_events_version_occurred_at_index is missing",
    ]
    assert patient.is_ready(), "views can be written all the same"
    for finding in findings:
        patient.sql(finding.command.partition(" -c ")[2].strip("\"'").replace("'\"'\"'", "'"))
    assert patient.found() == {}


def test_tables_of_others_are_no_drift(patient: Patient) -> None:
    patient.sql("CREATE TABLE books (id integer PRIMARY KEY, title text)")
    assert patient.found() == {}


# Duplicates


def double_every_counter(patient: Patient) -> None:
    """Identical rows, which no key tells apart."""
    patient.sql("INSERT INTO view_counters SELECT * FROM view_counters")


def test_duplicate_counters_are_found_and_merged(patient: Patient) -> None:
    patient.store(*(patient.event(entity_type="book", external_id="b") for _ in range(4)))
    counted = "SELECT count, sealed FROM view_counters c JOIN entities e ON e.id = entity_id"
    counted += " WHERE external_id = 'b'"
    assert patient.sql(counted) == [(5, 0)]
    pairs = patient.sql("SELECT count(*) FROM view_counters")[0][0]
    patient.sql("ALTER TABLE view_counters DROP CONSTRAINT view_counters_entity_id_view_type_unique")
    double_every_counter(patient)
    patient.sql("UPDATE view_counters SET count = 7 WHERE ctid = (SELECT max(ctid) FROM view_counters)")
    found = patient.found()
    assert found["duplicates"].startswith(f"problem: {pairs} pairs of (entity_id, view_type)")
    assert "can be merged" in found["duplicates"]
    assert patient.mend() == [
        f"merged the rows of {pairs} pairs of (entity_id, view_type) in view_counters",
        "added view_counters_entity_id_view_type_unique",
    ]
    assert patient.sql("SELECT count(*) FROM view_counters") == [(pairs,)]
    assert patient.sql(counted)[0][0] in {10, 12}
    assert {"duplicates", "unique_keys"}.isdisjoint(patient.found())


def test_what_was_merged_is_shown_at_the_next_tick(patient: Patient) -> None:
    counts_of = ("book", "b")
    patient.redis.hset(keys.count(*counts_of), mapping={"": "book\0b", "intentional": 1})
    patient.sql("ALTER TABLE view_counters DROP CONSTRAINT view_counters_entity_id_view_type_unique")
    double_every_counter(patient)
    patient.mend()
    patient.write()
    assert counts.shown(patient.redis, counts_of) == {"intentional": 2}


def test_the_merge_is_that_of_the_migration() -> None:
    script = ScriptDirectory.from_config(alembic_config("postgresql://")).get_revision("20261121_unique")
    merge = script.module.MERGE
    assert (
        " ".join(mending.MERGE_COUNTERS.split())
        == " ".join(merge.split()) + " RETURNING entity_id, view_type"
    )


def test_other_duplicates_are_shown_and_left_to_a_person(patient: Patient) -> None:
    patient.sql("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique")
    patient.sql("INSERT INTO view_events SELECT * FROM view_events")
    rows = patient.sql("SELECT count(*) FROM view_events")[0][0]
    check = patient.examine()["duplicates"]
    assert f"{rows // 2} times the same (day, id) in view_events" in check.text
    assert not check.findings[0].fixable
    show = check.findings[0].command.partition(" -c ")[2].strip('"')
    assert len(patient.sql(show)) == rows
    (line,) = patient.mend()
    assert line.startswith("not done: view_events")
    assert patient.sql("SELECT count(*) FROM view_events") == [(rows,)], "nothing is deleted"
    patient.sql(
        "DELETE FROM view_events AS a USING view_events AS b"
        " WHERE a.ctid > b.ctid AND a.tableoid = b.tableoid AND a.id = b.id"
    )
    assert patient.mend() == ["added view_events_day_id_unique"]
    assert patient.found() == {}


def test_what_cannot_be_mended_keeps_nothing_else_from_it(patient: Patient) -> None:
    for table, columns in (("tallies", ("day", "name")), ("salts", ("day",))):
        patient.sql(f"ALTER TABLE {table} DROP CONSTRAINT {constraint_name(table, columns)}")
    patient.sql("INSERT INTO salts SELECT * FROM salts")
    patient.sql("DROP TABLE " + days.partition_name(patient.today + timedelta(days=1)))
    done = patient.mend()
    assert [line.partition(":")[0] for line in done].count("not done") == 1
    assert "added tallies_day_name_unique" in done
    assert any("empty partition" in line for line in done)


# Partitions


def test_a_day_without_partition_gets_an_empty_one(patient: Patient) -> None:
    tomorrow = patient.today + timedelta(days=1)
    patient.sql(f"DROP TABLE {days.partition_name(tomorrow)}")
    assert f"{tomorrow} takes events, but its partition is gone" in patient.found()["partitions"]
    assert not patient.is_ready()
    assert patient.mend() == [f"made an empty partition for {tomorrow}"]
    assert patient.found() == {}
    patient.store(patient.event(days_ago=-1))


def test_todays_events_are_written_again_after_its_partition_was_lost(patient: Patient) -> None:
    patient.sql(f"DROP TABLE {days.partition_name(patient.today)}")
    stream.put(patient.redis, [patient.event()])
    with pytest.raises(Exception, match="no partition"):
        patient.write()
    assert "tonight's rollup replaces the daily rows" in patient.found()["partitions"]
    daily = patient.sql("SELECT entity_id, views FROM daily_stats WHERE day = :day", day=patient.today)
    patient.mend()
    assert dict(patient.write().fates) == {"row": 1}
    assert daily == patient.sql(
        "SELECT entity_id, views FROM daily_stats WHERE day = :day", day=patient.today
    )
    assert "partitions" not in patient.found()


def test_a_detached_partition_is_attached_with_its_rows(patient: Patient) -> None:
    name = days.partition_name(patient.today)
    rows = patient.sql("SELECT count(*) FROM view_events")
    patient.sql(f"ALTER TABLE view_events DETACH PARTITION {name}")
    assert f"{name} is detached" in patient.found()["partitions"]
    assert not patient.is_ready()
    assert patient.mend() == [f"attached the partition of {patient.today}"]
    assert patient.sql("SELECT count(*) FROM view_events") == rows
    assert patient.found() == {}


def test_a_closed_day_whose_rows_are_gone_is_sealed_with_what_its_daily_rows_hold(patient: Patient) -> None:
    old = patient.today - timedelta(days=4)
    patient.store(
        *(patient.event(4, entity_type="book", external_id="b", view_type=kind) for kind in ("a", "a", "c"))
    )
    patient.store(patient.event(4))
    later = patient.later(hours=1)
    later.mend()  # rolls the day up
    daily = patient.sql("SELECT entity_id, views FROM daily_stats WHERE day = :day ORDER BY 1", day=old)
    patient.sql(f"DROP TABLE {days.partition_name(old)}")
    assert "sealing the day keeps them" in patient.found()["partitions"]
    assert patient.mend() == [f"sealed {old}: its raw events are gone, its daily rows stay"]
    assert patient.found() == {}
    assert daily == patient.sql(
        "SELECT entity_id, views FROM daily_stats WHERE day = :day ORDER BY 1", day=old
    )
    # a counter is what was sealed and the raw rows
    assert patient.sql(
        "SELECT view_type, c.count - c.sealed, count(v.id) FILTER (WHERE v.outcome = 'counted')"
        f" FROM view_counters c LEFT JOIN {EVENTS} AS v USING (entity_id, view_type)"
        " GROUP BY 1, 2, c.entity_id HAVING c.count - c.sealed <> count(v.id)"
    ) == []  # fmt: skip


def test_missing_partitions_of_the_next_days_are_made(patient: Patient) -> None:
    ahead = [patient.today, patient.today + timedelta(days=1)]
    for day in ahead:
        patient.sql(f"DROP TABLE {days.partition_name(day)}")
        patient.sql("DELETE FROM event_days WHERE day = :day", day=day)
    assert patient.examine()["partitions"].verdict == "warning"
    assert patient.is_ready(), "the writer makes them when it needs them"
    assert patient.mend() == [f"made the partition of {day}" for day in ahead]
    assert "partitions" not in patient.found()


def test_a_partition_of_which_nobody_knows_is_noted_and_rolled_up(patient: Patient) -> None:
    yesterday = patient.today - timedelta(days=1)
    patient.store(patient.event(1))
    views = "SELECT sum(views) FROM daily_stats WHERE entity_type = 'page'"
    patient.sql("DELETE FROM event_days WHERE day = :day", day=yesterday)
    check = patient.examine()["partitions"]
    assert (check.verdict, "is not in event_days" in check.text) == ("problem", True)
    assert patient.mend() == [f"noted {yesterday}, which has a partition"]
    patient.later(hours=2).mend()
    assert patient.sql(views) == [(3,)]
    assert patient.found() == {}


def test_a_partition_of_a_sealed_day_is_left_to_a_person(patient: Patient) -> None:
    old = patient.today - timedelta(days=9)
    with patient.engine.begin() as connection:
        days.open_days(connection, [old])
    patient.sql("UPDATE event_days SET sealed_at = :now WHERE day = :day", now=patient.now, day=old)
    assert "is sealed" in patient.found()["partitions"]
    assert patient.mend() == []
    patient.sql("DELETE FROM event_days WHERE day = :day", day=old)
    patient.sql("UPDATE event_days SET sealed_at = :now WHERE day < :day", now=patient.now, day=patient.today)
    tomorrow = patient.today + timedelta(days=1)
    patient.sql(f"DROP TABLE {days.partition_name(tomorrow)}")
    assert "is sealed" in patient.found()["partitions"]
    assert patient.mend() == [f"made an empty partition for {tomorrow}"]
    assert patient.sql("SELECT count(*) FROM event_days WHERE day = :day", day=old) == [(0,)]


# The site


def test_another_time_zone_is_found(patient: Patient) -> None:
    patient.sql("UPDATE site SET time_zone = 'Europe/Vienna'")
    check = patient.examine()["site"]
    assert check.findings[0].command == "export FOOTFALL_TIME_ZONE=Europe/Vienna"


def test_a_missing_row_of_the_site_is_put_back_by_the_command(patient: Patient) -> None:
    patient.sql("DELETE FROM entities WHERE entity_type = 'site'")
    (finding,) = patient.examine()["site"].findings
    patient.sql(finding.command.partition(" -c ")[2].strip('"'))
    assert "site" not in patient.found()


def test_a_database_that_does_not_keep_what_it_commits_is_found(patient: Patient, own_url: Any) -> None:
    patient.sql("ALTER DATABASE own SET synchronous_commit = off")
    patient.engine.dispose()
    assert list(patient.found()) == ["postgres"], "everything else can still be looked at"
    assert "synchronous_commit = off" in patient.found()["postgres"]
    patient.sql("ALTER DATABASE own SET synchronous_commit = on")
    patient.sql("ALTER DATABASE own SET default_transaction_read_only = on")
    patient.engine.dispose()
    assert "refuses writes" in patient.found()["postgres"]
