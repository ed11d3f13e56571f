"""Redis' scripts: sent by their digest, and whole only to a Redis that does not know them yet."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

FOLDER = Path(__file__).parent / "lua"


class Call(NamedTuple):
    """A script of this package by its name, with the names of the keys that it touches."""

    script: str
    keys: Sequence[str]
    arguments: Sequence[Any]


def run(redis: Redis, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
    """The answer of one script. Raises `RedisError`; then it may have run, unless the error is an answer."""
    return run_all(redis, [Call(script, keys, arguments)])[0]


def run_all(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """The answers of scripts that run one after the other, in one round trip; parallel to `calls`.

    Raises `RedisError`: the first script's that failed, or the connection's; then any of them may have run.
    """
    replies = _send(redis, "EVALSHA", calls)
    unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:  # these have not run
        for index, reply in zip(unknown, _send(redis, "EVAL", [calls[i] for i in unknown]), strict=True):
            replies[index] = reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def words(call: Call, command: str) -> list[Any]:
    """The command that runs a script, EVALSHA by its digest or EVAL by its text, as Redis reads it."""
    name = _digest(call.script) if command == "EVALSHA" else _text(call.script)
    return [command, name, len(call.keys), *call.keys, *call.arguments]


def _send(redis: Redis, command: str, calls: Sequence[Call]) -> list[Any]:
    with redis.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*words(call, command))  # type: ignore[no-untyped-call]
        return list(pipeline.execute(raise_on_error=False))


@cache
def _text(script: str) -> str:
    return (FOLDER / f"{script}.lua").read_text()


@cache
def _digest(script: str) -> str:
    return sha1(_text(script).encode(), usedforsecurity=False).hexdigest()  # Redis' name for it
