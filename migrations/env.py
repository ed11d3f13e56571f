"""How Alembic meets the database: DATABASE_URL, or the URL that `footfall.database` hands over."""

import os
from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool

from footfall.errors import SettingsError
from footfall.schema import PARTITION_PREFIX, Base
from footfall.settings import normalised_database_url


def include_name(name: str | None, type_: str, _parents: Any) -> bool:
    """Leave the days' partitions out of comparisons: they come and go with the days."""
    return not (type_ == "table" and name is not None and name.startswith(PARTITION_PREFIX))


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SettingsError("DATABASE_URL is not set")
    return normalised_database_url(url)


def run_offline() -> None:
    """Write the SQL for a person to read (`alembic upgrade head --sql`); needs no database."""
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    engine = create_engine(database_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
