"""PostgreSQL: the engine, a reader's snapshot, and bringing the schema up to this code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.dialects.postgresql import insert

from footfall import patience
from footfall.errors import SchemaError, SettingsError
from footfall.schema import Site
from footfall.settings import Settings

PROJECT_FILE = Path(__file__).resolve().parent.parent / "pyproject.toml"

# Shorter than the 30 s after which another writer takes a batch over: a statement that hangs is given
# up before somebody else starts on the same entries.
STATEMENT_TIMEOUT_MS = 25_000
# A process that stops in the middle of a transaction (a lost host, a paused container) holds up the other
# writers of the day for no longer than this.
IDLE_TIMEOUT_MS = 10_000
CONNECT_SECONDS = 5  # until a server that takes a connection and says nothing is given up
# Beyond the statement timeout, within which a server that lives has given up by itself
SPARE_SECONDS = 5.0
# A host that is lost says no goodbye. Without these, whoever waits for it does so for a quarter of an hour
# (what was sent is not acknowledged) or for two hours (nothing was sent), on either side; with them, for less
# than half a minute. On a unix socket they mean nothing.
LOST_HOST = {
    "keepalives_idle": 10,  # s without a word, then a probe
    "keepalives_interval": 3,  # s between probes
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms without an acknowledgement
}
LOST_HOST_OF_SERVER = " ".join(
    f"-c {'tcp_' * (not name.startswith('tcp_'))}{name}={value}" for name, value in LOST_HOST.items()
)


def make_engine(settings: Settings, *, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Engine:
    """An engine that connects when first used and drops connections that the server has closed."""
    return create_engine(
        settings.database_url,
        pool_pre_ping=True,
        json_deserializer=orjson.loads,  # breakdowns are most of what readers fetch
        hide_parameters=True,  # no message of an error quotes data
        pool_size=5,
        max_overflow=5,
        pool_timeout=5,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "footfall",
            **LOST_HOST,
            "options": f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS} {LOST_HOST_OF_SERVER}",
        },
    )


def make_serving_engine(settings: Settings) -> Engine:
    """The same for those who answer requests: they do not wait without end for a PostgreSQL that does not
    answer, and are refused at once when it is known not to.
    """
    engine = make_engine(settings)
    patience.limit(engine, STATEMENT_TIMEOUT_MS / 1_000 + SPARE_SECONDS)
    return engine


@contextmanager
def read_snapshot(engine: Engine) -> Iterator[Connection]:
    """One REPEATABLE READ READ ONLY transaction: every statement in it sees the same moment."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration from pyproject.toml, pointed at a database."""
    config = Config(toml_file=PROJECT_FILE)
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str, settings: Settings) -> None:
    """Bring the schema to this code's revision and hold the site to its time zone. May be run again.

    Raises `SettingsError` when the database was started with another time zone, `SchemaError` when it is
    newer than this code.
    """
    try:
        command.upgrade(alembic_config(database_url), "head")
    except CommandError as error:
        raise SchemaError(
            f"the database is newer than this code, start the version that it was brought to: {error}"
        ) from error
    engine = make_engine(settings)
    try:
        with engine.begin() as connection:
            keep_time_zone(connection, settings.time_zone.key)
    finally:
        engine.dispose()


def keep_time_zone(connection: Connection, time_zone: str) -> None:
    """Record the site's time zone at the first start, and refuse another one later.

    Days are the keys of everything; moving their borders would count some views twice and lose others.
    """
    connection.execute(insert(Site).values(time_zone=time_zone).on_conflict_do_nothing())
    kept = connection.scalar(select(Site.time_zone))
    if kept != time_zone:
        raise SettingsError(
            f"FOOTFALL_TIME_ZONE is {time_zone}, but this database counts its days in {kept}; "
            f"set FOOTFALL_TIME_ZONE={kept}"
        )
