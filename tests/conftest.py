"""Real servers for the tests: started when the first test asks, stopped after the last."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from footfall.cli.embedded import Postgres, Redis, socket_folder


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """One folder for all servers of the run, with a name short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="footfall-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(server_folder: Path) -> Iterator[str]:
    """The address of a PostgreSQL with an empty database."""
    server = Postgres(
        server_folder / "postgres", socket_folder(server_folder), server_folder / "postgres.log"
    )
    process = server.start()
    yield server.url
    server.stop(process)


@pytest.fixture(scope="session")
def redis_url(server_folder: Path) -> Iterator[str]:
    """The address of an empty Redis."""
    server = Redis(server_folder / "redis", socket_folder(server_folder), server_folder / "redis.log")
    process = server.start()
    yield server.url
    server.stop(process)
