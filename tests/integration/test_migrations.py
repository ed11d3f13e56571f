"""The migrations go up, down and up again, and give what the models say."""

import io
import logging
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import date

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from footfall import days, schema_check
from footfall.database import alembic_config, keep_time_zone, migrate
from footfall.definitions import BREAKDOWNS, COUNTS, FIGURE_COLUMNS
from footfall.doctor import drift
from footfall.errors import SettingsError
from footfall.schema import Base
from tests.factory import EVENTS, make_settings

NO_BREAKDOWNS = ", '{}'" * len(BREAKDOWNS)


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """A database of its own, without tables."""
    name = "migrations"
    server = create_engine(
        make_settings(DATABASE_URL=postgres_url).database_url, isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield str(server.url.set(database=name).render_as_string(hide_password=False))
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.scalars(
            text(
                "SELECT relname FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            )
        ).all()
    engine.dispose()
    return set(found) - {"alembic_version"}


OLD_COLUMNS = """
    SELECT occurred_at, visitor, entry, day, entity_id, version, id, authenticated, outcome, device,
        view_type, view_source, country, referrer_domain
"""
OLD_EVENTS = """
    INSERT INTO entities (entity_type, external_id, created_at)
    VALUES ('page', '/a', '2026-03-09'), ('book', 'b', '2026-03-09');
    INSERT INTO view_events (occurred_at, visitor, entry, day, entity_id, version, id, authenticated, outcome,
        device, view_type, view_source, country, referrer_domain)
    SELECT CAST('2026-03-09 10:00+00' AS timestamptz) + n * interval '1 hour', nullif(n, 3), n,
        (CAST('2026-03-09 10:00+00' AS timestamptz) + n * interval '1 hour')::date, id, n,
        CAST(lpad(to_hex(n * 10 + id), 32, '0') AS uuid), n % 3 = 0,
        CASE WHEN n % 5 = 0 THEN 'bot' ELSE 'counted' END, 'mobile', 'intentional', 'web',
        CASE WHEN n % 5 > 2 THEN 'DE' END, CASE WHEN n % 2 = 0 THEN 'a.example' END
    FROM generate_series(1, 20) AS n CROSS JOIN entities WHERE entity_type <> 'site'
"""


def test_up_down_up_and_check(empty_url: str) -> None:
    config = alembic_config(empty_url)
    command.upgrade(config, "head")
    assert tables(empty_url) == set(Base.metadata.tables)
    command.check(config)
    command.downgrade(config, "base")
    assert tables(empty_url) == set()
    command.upgrade(config, "head")
    command.check(config)


def test_daily_rows_of_before_get_their_entitys_type(empty_url: str) -> None:
    config = alembic_config(empty_url)
    command.upgrade(config, "20261121_names")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO entities (entity_type, external_id, created_at)"
                " VALUES ('page', '/a', '2026-03-10'), ('book', 'b', '2026-03-10')"
            )
        )
        connection.execute(
            text(
                f"INSERT INTO daily_stats (entity_id, day, {FIGURE_COLUMNS})"  # noqa: S608 - constants
                f" SELECT id, '2026-03-09' {', 7' * len(COUNTS)} {NO_BREAKDOWNS} FROM entities"
            )
        )
    types = "SELECT e.entity_type, d.entity_type FROM daily_stats d JOIN entities e ON e.id = entity_id"
    for _ in range(2):
        command.upgrade(config, "head")
        with engine.connect() as connection:
            found = sorted(map(tuple, connection.execute(text(types))))
        assert found == [(kind, kind) for kind in ("book", "page", "site")]
        command.downgrade(config, "20261121_names")
    engine.dispose()


def test_referrers_of_before_are_known(empty_url: str) -> None:
    """Those of the site's daily rows, whose names were never told from made-up ones."""
    config = alembic_config(empty_url)
    command.upgrade(config, "20261121_entity_index")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        named = FIGURE_COLUMNS.replace("views_by_referrer,", "")
        values = ", 7" * len(COUNTS) + ", '{}'" * (len(BREAKDOWNS) - 1)
        for day, referrers in (("03-08", '{"a": 2, "b": 1}'), ("03-09", '{"b": 3, "(other)": 9}')):
            connection.execute(
                text(
                    f"INSERT INTO daily_stats (entity_id, entity_type, day, views_by_referrer, {named})"
                    f" SELECT id, 'site', '2026-{day}', :referrers {values} FROM entities"
                ),
                {"referrers": referrers},
            )
    command.upgrade(config, "head")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM referrer_domains ORDER BY domain")).all()
    assert [tuple(map(str, row)) for row in found] == [
        ("a", "2026-03-08", "2026-03-08"),
        ("b", "2026-03-08", "2026-03-09"),
    ]
    engine.dispose()


def test_events_of_before_keep_all_that_was_known_of_them(empty_url: str) -> None:
    """There and back: each event once, in its day's table, under the keys that it had."""
    config = alembic_config(empty_url)
    command.upgrade(config, "20261121_seen_runs")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        days.open_days(connection, [date(2026, 3, 9), date(2026, 3, 10)])
        connection.execute(text(OLD_EVENTS))
    whole = {False: "view_events", True: f"{EVENTS} AS v"}
    found = []
    for has_kinds in (False, True, False, True):
        command.upgrade(config, "head") if has_kinds else command.downgrade(config, "20261121_seen_runs")
        with engine.connect() as connection:
            found.append(connection.execute(text(f"{OLD_COLUMNS} FROM {whole[has_kinds]} ORDER BY id")).all())
            partitions = days.partitions(connection)
        assert {str(day) for day in partitions} == {"2026-03-09", "2026-03-10"}
        for table in ("view_events", *partitions.values()):
            with pytest.raises(IntegrityError, match="unique"), engine.begin() as connection:
                connection.execute(text(f"INSERT INTO {table} SELECT * FROM {table}"))
    assert len(found[0]) == 40
    assert found == [found[0]] * 4
    with engine.connect() as connection:
        assert schema_check.problems(connection) == []
        kinds = connection.execute(
            text("SELECT country, last_seen_on FROM event_kinds WHERE outcome = 'bot'")
        )
        assert {(row.country, str(row.last_seen_on)) for row in kinds} == {("ZZ", "2026-03-10")}
    engine.dispose()


def test_the_check_ignores_partitions_and_sees_a_missing_column(empty_url: str) -> None:
    config = alembic_config(empty_url)
    command.upgrade(config, "head")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        days.open_days(connection, [date(2026, 3, 10)])
    command.check(config)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE view_events DROP COLUMN referrer_domain"))
    engine.dispose()
    with pytest.raises(CommandError, match="referrer_domain"):
        command.check(config)


def test_a_dba_can_read_the_sql() -> None:
    out = io.StringIO()
    config = alembic_config("postgresql://")
    config.output_buffer = out
    with redirect_stdout(out):
        command.upgrade(config, "head", sql=True)
    assert "CREATE TABLE view_events" in out.getvalue()
    assert "PARTITION BY RANGE (day)" in out.getvalue()


def test_the_sql_gives_the_same_schema(empty_url: str) -> None:
    out = io.StringIO()
    config = alembic_config(empty_url)
    config.output_buffer = out
    command.upgrade(config, "head", sql=True)
    assert out.getvalue().count("-- Running upgrade") == len(
        list(ScriptDirectory.from_config(config).walk_revisions())
    )
    engine = create_engine(empty_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(out.getvalue())
        assert drift.differences(connection) == []
        assert schema_check.problems(connection) == []
    engine.dispose()


def test_migrating_online_gives_the_models_names(empty_url: str) -> None:
    migrate(empty_url, make_settings(DATABASE_URL=empty_url))
    engine = create_engine(empty_url)
    with engine.connect() as connection:
        assert drift.differences(connection) == []
    engine.dispose()


def test_going_back_warns_of_the_constraint_that_goes(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = alembic_config(empty_url)
    command.upgrade(config, "head")
    command.downgrade(config, "20261121_unique")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    command.downgrade(config, "20261121_content")
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.name.startswith("alembic")
    assert "view_counters_entity_id_view_type_unique" in warning.getMessage()
    assert "alembic upgrade head" in warning.getMessage()


def test_the_sites_time_zone_is_kept(empty_url: str) -> None:
    settings = make_settings(DATABASE_URL=empty_url, FOOTFALL_TIME_ZONE="Europe/Berlin")
    migrate(empty_url, settings)
    migrate(empty_url, settings)
    engine = create_engine(empty_url)
    with engine.begin() as connection, pytest.raises(SettingsError, match="FOOTFALL_TIME_ZONE=Europe/Berlin"):
        keep_time_zone(connection, "UTC")
    engine.dispose()


def test_a_drifted_schema_is_named_with_the_command_that_mends_it(empty_url: str) -> None:
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        assert schema_check.problems(connection) == ["the database is empty; run: footfall migrate"]
    migrate(empty_url, make_settings(DATABASE_URL=empty_url))
    with engine.begin() as connection:
        assert schema_check.problems(connection) == []
        connection.execute(text("UPDATE alembic_version SET version_num = '20261121_gaps'"))
        assert "footfall migrate" in schema_check.problems(connection)[0]
        connection.execute(
            text("UPDATE alembic_version SET version_num = :now"), {"now": schema_check.code_revision()}
        )
        connection.execute(text("ALTER TABLE view_events DROP CONSTRAINT view_events_day_id_unique"))
        (problem,) = schema_check.problems(connection)
        assert problem == ("view_events has no valid unique key on (day, id); run: footfall doctor --fix")
        connection.execute(
            text("ALTER TABLE view_events ADD CONSTRAINT view_events_day_id_unique UNIQUE (day, id)")
        )
        assert schema_check.problems(connection) == []
        connection.execute(
            text("ALTER TABLE entities DROP CONSTRAINT entities_entity_type_external_id_unique")
        )
        connection.execute(
            text(
                "CREATE UNIQUE INDEX partial ON entities (entity_type, external_id) WHERE deleted_at IS NULL"
            )
        )
        assert len(schema_check.problems(connection)) == 1, "a partial index serves no ON CONFLICT of ours"
    engine.dispose()
