"""The names of everything in Redis.

All names share one hash tag, so that a script may touch several of them on a cluster too.
"""

from hashlib import blake2b
from uuid import UUID

TAG = "{footfall}"
STREAM = f"{TAG}:views"
LEDGER = f"{TAG}:ledger"  # fields "<day>:<tally>"
TRAFFIC = f"{TAG}:traffic"  # what the API's processes answered, see `traffic`
RUN = f"{TAG}:run"  # the Redis process whose counts were last compared with the database
ASKED = f"{TAG}:asked"  # a sorted set: which answers were asked for, by when
CACHE_TALLY = f"{TAG}:cache-tally"  # fields hits, misses
RUNS = f"{TAG}:runs"  # fields: a task's name, or RUNS_SINCE; how its last run went
PROBE = f"{TAG}:probe"  # written by who looks whether Redis takes writes
CELERY_PREFIX = "footfall-celery:"  # of what Celery keeps in the same Redis: its queues


def limits(minute: int) -> str:
    """A hash {keyed hash of a viewer or a network: views} of a minute, by its number since 1970."""
    return f"{TAG}:limits:{minute}"


def of_entity(entity_type: str, external_id: str) -> str:
    """What the names of everything about one entity begin with; a digest, because ids may be long."""
    digest = blake2b(f"{entity_type}\0{external_id}".encode(), digest_size=12)
    return f"{TAG}:{digest.hexdigest()}"


def count(entity_type: str, external_id: str) -> str:
    """A hash {view type: shown count}; its empty field holds the entity's name and says that it is seeded."""
    return f"{of_entity(entity_type, external_id)}:count"


def id_slot(event_id: UUID) -> str:
    """What an id was answered, so that the same id again is answered the same, whatever is said of it."""
    return f"{TAG}:id:{event_id.hex}"


def viewer_slot(entity_type: str, external_id: str, name: bytes) -> str:
    """That a viewer has viewed the entity within the window. `name` is a keyed hash of both."""
    return f"{of_entity(entity_type, external_id)}:slot:{name.hex()}"
