"""Real PostgreSQL and Redis for the integration tests: migrated once, empty at the start of each test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, make_url, text

from footfall import stream
from footfall.cli import main
from footfall.database import make_engine, migrate
from footfall.settings import Settings
from tests.factory import PEPPER, SECRET, make_settings
from tests.integration.content import Open, Site, site_on
from tests.integration.own_redis import OwnRedis
from tests.integration.patient import Patient, healthy

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)  # where a test's clock begins


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> str:
    """The address of a database at this code's revision."""
    migrate(postgres_url, make_settings(DATABASE_URL=postgres_url))
    return postgres_url


@pytest.fixture
def settings(migrated_url: str, redis_url: str) -> Settings:
    """Settings that point at the real servers."""
    return make_settings(DATABASE_URL=migrated_url, REDIS_URL=redis_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine on empty tables. For what needs several connections; `connection` is cheaper."""
    engine = make_engine(settings)
    yield engine
    empty(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    """The address of a migrated database to which nobody connects, so that it can be copied."""
    server = _administering(postgres_url)
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE template"))
    server.dispose()
    url = str(server.url.set(database="template").render_as_string(hide_password=False))
    migrate(url, make_settings(DATABASE_URL=url))
    return url


@pytest.fixture
def own_url(template_url: str) -> Iterator[str]:
    """The address of a database of the test's own, at this code's revision."""
    server = _administering(template_url)
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE own TEMPLATE template"))
        yield str(server.url.set(database="own").render_as_string(hide_password=False))
        connection.execute(text("DROP DATABASE own WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def patient(own_url: str, settings: Settings, redis: Redis) -> Iterator[Patient]:
    """A healthy instance on a database of its own, for a test to harm."""
    made = healthy(own_url, settings)
    yield made
    made.engine.dispose()
    made.redis.close()


@pytest.fixture
def connection(engine_without_cleaning: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back: nothing that a test does stays."""
    with engine_without_cleaning.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture(scope="session")
def engine_without_cleaning(migrated_url: str) -> Iterator[Engine]:
    """One engine for all tests that roll back."""
    engine = create_engine(make_settings(DATABASE_URL=migrated_url).database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    """A client of an empty Redis."""
    client = stream.connect(settings)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def footfall(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls a command for the tests' servers, at a time that stands still."""
    monkeypatch.setattr("footfall.clock.utc_now", lambda: NOW)
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "FOOTFALL_PEPPER": PEPPER,
        "FOOTFALL_JWT_SECRET": SECRET,
    }

    def call(*words: str, **changed: str) -> Result:
        return CliRunner().invoke(main, [*words, "--data-dir", str(tmp_path)], env=environment | changed)

    return call


@pytest.fixture
def own() -> Iterator[OwnRedis]:
    """A Redis of the test's own, to harm."""
    folder = Path(tempfile.mkdtemp(prefix="footfall-redis-", dir="/tmp"))
    redis = OwnRedis(folder)
    yield redis
    redis.server.stop(redis.process)
    shutil.rmtree(folder)


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    """The time, which stands still until a test moves it."""
    with freeze_time(NOW) as frozen:
        assert isinstance(frozen, FrozenDateTimeFactory)
        yield frozen


@pytest.fixture
def open_site(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Open]:
    """Starts processes on the same stores, with some settings replaced."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(site_on(settings, engine, redis, **changes))


@pytest.fixture
def site(open_site: Open) -> Site:
    """A process that uses Redis."""
    return open_site()


@pytest.fixture(params=[True, False], ids=["redis", "database"])
def either(open_site: Open, request: pytest.FixtureRequest) -> Site:
    """A process on either store."""
    return open_site(redis_enabled=request.param)


def _administering(url: str) -> Engine:
    """An engine that makes and drops databases."""
    server = make_url(make_settings(DATABASE_URL=url).database_url).set(database="postgres")
    return create_engine(server, isolation_level="AUTOCOMMIT")


def empty(engine: Engine) -> None:
    """Bring the tables back to what the migrations leave."""
    with engine.begin() as connection:
        partitions = connection.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'view_events'::regclass")
        ).all()
        for partition in partitions:
            connection.execute(text(f"DROP TABLE {partition}"))
        connection.execute(
            text(
                "TRUNCATE event_days, rollup_days, daily_stats, dead_letters, salts, view_counters,"
                " view_slots, shown_behind, tallies, gaps, seen_visitors, seen_runs, audits, adoptions,"
                " event_kinds, referrer_domains RESTART IDENTITY"
            )
        )
        connection.execute(text("UPDATE site SET last_alive_at = NULL"))
        connection.execute(text("DELETE FROM entities WHERE entity_type <> 'site'"))
