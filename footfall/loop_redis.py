"""Scripts that answer OK, run from an event loop at a quarter of what redis-py takes for it.

One connection, one command at a time. After anything but an answer it is closed, so that no late answer
passes for the next command's.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redis.connection import SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from footfall import scripts
from footfall.scripts import Call

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 5.0
OK = b"+OK"
NO_SCRIPT = b"-NOSCRIPT"


class LoopRedis:
    """A client of the Redis at `url`, connecting when first used, for one event loop."""

    def __init__(self, url: str) -> None:
        # {"host", "port", "path", "db", "username", "password", "connection_class"}, as far as it tells
        self._where: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        self._connection: _Connection | None = None

    @property
    def can_connect(self) -> bool:
        """Whether this client can; TLS it leaves to redis-py."""
        return self._where.get("connection_class") is not SSLConnection

    async def run(self, call: Call) -> None:
        """Run a script. Raises `RedisError`; then it may have run, unless the error is an answer.

        Not to be called again before it returns.
        """
        try:
            connection = self._connection
            if connection is None or not connection.is_open:
                connection = await self._connect()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    try:
                        await connection.ask(scripts.words(call, "EVALSHA"))
                    except NoScriptError:
                        await connection.ask(scripts.words(call, "EVAL"))
            except TimeoutError:
                raise RedisTimeoutError("no answer in time") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up. It may be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connect(self) -> "_Connection":
        loop, where = asyncio.get_running_loop(), self._where
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if "path" in where:
                    _, made = await loop.create_unix_connection(_Connection, where["path"])
                else:
                    address = where.get("host", "localhost"), where.get("port", 6379)
                    _, made = await loop.create_connection(_Connection, *address)
                self._connection = connection = made
                if "password" in where:
                    user = [where["username"]] if "username" in where else []
                    await connection.ask(["AUTH", *user, where["password"]])
                if where.get("db"):
                    await connection.ask(["SELECT", where["db"]])
        except (OSError, TimeoutError) as error:
            raise RedisConnectionError("Redis cannot be reached") from error
        return connection


class _Connection(asyncio.Protocol):
    """What is sent is answered by one line."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = False
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    async def ask(self, words: Sequence[str | bytes | int]) -> None:
        """Send a command; returns when it is answered with OK. Raises `RedisError`."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(_packed(words))
        answer = await self._answer
        if answer == OK:
            return
        if answer.startswith(NO_SCRIPT):
            raise NoScriptError
        raise ResponseError(answer[1:].decode(errors="replace"))

    def close(self) -> None:
        """Hang up; who waits for an answer gets an error."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._received += data
        if self._received.endswith(b"\r\n"):
            received, self._received = self._received[:-2], b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(received)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RedisConnectionError("Redis has hung up"))


def _packed(words: Sequence[str | bytes | int]) -> bytes:
    """A command as RESP has it: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(raw), raw, b"\r\n")
    return b"".join(parts)
