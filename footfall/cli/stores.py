"""The stores of an instance, for commands that work on both; a store that is away is one line of text."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as NoRedis
from redis.exceptions import TimeoutError as RedisTimeout
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from footfall.errors import FootfallError
from footfall.settings import Settings


class Stores(NamedTuple):
    """What a command works on."""

    settings: Settings
    engine: Engine
    redis: Redis


@contextmanager
def opened(data_dir: Path) -> Iterator[Stores]:
    """The stores of the instance in `data_dir`, or of the environment, until the block ends.

    Raises `FootfallError` when they are not known, and when one does not answer.
    """
    from footfall.cli import _settings
    from footfall.database import make_engine
    from footfall.stream import connect

    # what a worker would log, the command says in its own words
    logging.getLogger("footfall").addHandler(logging.NullHandler())
    settings = _settings(data_dir)
    engine, redis = make_engine(settings), connect(settings)
    try:
        yield Stores(settings, engine, redis)
    except OperationalError as error:
        first_line = str(error.orig).partition("\n")[0]
        raise FootfallError(f"the database did not do it: {first_line}; check DATABASE_URL") from error
    except (NoRedis, RedisTimeout) as error:
        raise FootfallError("Redis does not answer; check REDIS_URL") from error
    finally:
        redis.close()
        engine.dispose()
