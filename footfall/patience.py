"""PostgreSQL that does not answer is not waited for without end, by those who answer requests.

The server gives up a statement after its timeout, and TCP gives up a host that is lost. What neither sees is
a server that stands still behind a kernel that acknowledges (a paused container, a proxy without its server):
connections to it are ended here. While no new one can be had in time, whoever needs one is refused at once,
and somebody looks now and then, aside.
"""

import logging
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from math import ceil
from threading import Lock, Thread
from typing import Any

import psycopg2
from psycopg2 import extensions
from sqlalchemy import Engine, event

from footfall.breaker import Breaker

log = logging.getLogger(__name__)

# What SQLAlchemy sends before it uses a connection that has been idle
PING = "SELECT 1"
PING_SECONDS = 5.0
SLOW_SECONDS = 1.0  # a connection that is refused sooner keeps nobody waiting
TICK_SECONDS = 0.5


class Watch:
    """Ends connections on which somebody waits for too long, in a thread that lives as long as any wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waits: dict[object, tuple[int, int]] = {}  # the tick that ends it, and the socket's number
        self._ticks = 0  # and no clock: what is frozen or set must end nothing
        self._is_running = False

    @contextmanager
    def ending(self, socket_number: int, seconds: float) -> Iterator[None]:
        """Whoever waits on that socket in the block gets an error when it takes longer."""
        wait = object()
        with self._lock:
            self._waits[wait] = (self._ticks + ceil(seconds / TICK_SECONDS), socket_number)
            if not self._is_running:
                self._is_running = True
                Thread(target=self._run, name="patience", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.pop(wait, None)

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            with self._lock:
                self._ticks += 1
                late = [wait for wait, (last_tick, _) in self._waits.items() if self._ticks > last_tick]
                for wait in late:
                    _end(self._waits.pop(wait)[1])
                if not self._waits:
                    self._is_running = False
                    return


WATCH = Watch()


def _end(socket_number: int) -> None:
    log.warning("PostgreSQL does not answer, a connection to it is ended")
    with suppress(OSError), socket.socket(fileno=os.dup(socket_number)) as connected:
        connected.shutdown(socket.SHUT_RDWR)


class Cursor(extensions.cursor):
    """Waits for as long as its connection does."""

    connection: "Connection"

    def execute(self, query: Any, vars: Any = None) -> None:
        """As psycopg2's."""
        with self.connection.patience(PING_SECONDS if query == PING else None):
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        """As psycopg2's."""
        with self.connection.patience():
            super().executemany(query, vars_list)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """As psycopg2's."""
        with self.connection.patience():
            super().copy_expert(sql, file, size)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """As psycopg2's; only a cursor that has a name asks the server for more."""
        most = self.arraysize if size is None else size
        if self.name is None:
            return super().fetchmany(most)
        with self.connection.patience():
            return super().fetchmany(most)


class Connection(extensions.connection):
    """One on which nobody waits for longer than `statement_seconds`."""

    statement_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = Cursor
        # a number of our own: libpq's may be somebody else's as soon as it has closed its socket
        self._socket = os.dup(self.fileno())
        self._let_go = weakref.finalize(self, os.close, self._socket)

    def patience(self, seconds: float | None = None) -> AbstractContextManager[None]:
        """The block is on its way to the server and back."""
        return WATCH.ending(self._socket, seconds or self.statement_seconds)

    def commit(self) -> None:
        """As psycopg2's."""
        with self.patience():
            super().commit()

    def rollback(self) -> None:
        """As psycopg2's."""
        with self.patience():
            super().rollback()

    def close(self) -> None:
        """As psycopg2's."""
        super().close()
        self._let_go()


class Door:
    """Makes an engine's connections, as long as they can be had in time."""

    def __init__(self, statement_seconds: float) -> None:
        self._statement_seconds = statement_seconds
        self._breaker = Breaker("PostgreSQL", "who needs it is refused")

    def connect(self, _dialect: Any, _record: Any, args: Any, options: Any) -> Connection:
        """For SQLAlchemy's `do_connect`. Raises psycopg2's `OperationalError`."""
        if not self._breaker.is_closed:
            if self._breaker.is_time_to_look:
                Thread(
                    target=self._look, args=(args, options), name="look-for-postgresql", daemon=True
                ).start()
            raise psycopg2.OperationalError("PostgreSQL does not answer; somebody looks every other second")
        began = time.monotonic()
        try:
            connection = self._connect(args, options)
        except psycopg2.OperationalError as error:
            if time.monotonic() - began >= SLOW_SECONDS:
                self._breaker.open(error)
            raise
        return connection

    def _look(self, args: Any, options: Any) -> None:
        with self._breaker.looking() as is_the_one:
            if is_the_one:
                began = time.monotonic()
                try:
                    self._connect(args, options).close()
                except psycopg2.OperationalError:
                    if time.monotonic() - began >= SLOW_SECONDS:
                        return
                self._breaker.close()  # also to who refuses: nobody waits for that

    def _connect(self, args: Any, options: Any) -> Connection:
        connection = psycopg2.connect(*args, connection_factory=Connection, **options)
        connection.statement_seconds = self._statement_seconds
        return connection


def limit(engine: Engine, statement_seconds: float) -> None:
    """Let nobody wait for `engine` without end: for no statement longer than `statement_seconds`, and for no
    connection once one could not be had in time.
    """
    event.listen(engine, "do_connect", Door(statement_seconds).connect)
