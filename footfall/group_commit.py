"""Views of concurrent requests made durable together: one round trip, one wait for the disk for all of them.

Whoever comes while a group is on its way is part of the next one, so groups grow with the load and nobody
waits for company. An error leaves a whole group's outcome unknown; what becomes of it then, `take` decides.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

from footfall.errors import Limited, Unavailable
from footfall.event import View
from footfall.stream import Taken

log = logging.getLogger(__name__)

MOST_VIEWS = 1_000  # of a group: what a transaction of the fallback writes well within its timeout
# Longer than a Redis that hangs and a database that hangs after it; then the client may try again
LONGEST_WAIT_SECONDS = 35.0
NO_COUNT = "the counts cannot be read now"
LIMITED = "too many new ids today, or too many view types of this one"

Done = Callable[[list[Taken] | Exception], None]


class Submission(NamedTuple):
    """Views that came together, and who is told what became of them."""

    views: Sequence[View]
    now: datetime
    done: Done


class GroupCommit:
    """Takes views for one process, from any thread, in a thread of its own."""

    def __init__(self, take: Callable[[Sequence[View], datetime], list[Taken]]) -> None:
        self._take = take
        self._queue: SimpleQueue[Submission] = SimpleQueue()  # its put and get cannot miss each other
        self._starting = Lock()
        self._thread: Thread | None = None

    @property
    def waiting(self) -> int:
        """How many submissions are not on their way yet."""
        return self._queue.qsize()

    def submit(self, views: Sequence[View], now: datetime, done: Done) -> None:
        """Take `views` with the next group. `done` gets what became of each, or the error of all.

        It is called once, in this object's thread, and must neither wait nor raise.
        """
        self._queue.put(Submission(views, now, done))
        if self._thread is None:
            self._start()

    def take(self, view: View, now: datetime) -> Taken:
        """The same for who waits. Raises `Limited`, and `Unavailable` also when it takes too long."""
        result: Future[list[Taken]] = Future()

        def done(taken: list[Taken] | Exception) -> None:
            if isinstance(taken, Exception):
                result.set_exception(taken)
            else:
                result.set_result(taken)

        self.submit([view], now, done)
        try:
            (taken,) = result.result(LONGEST_WAIT_SECONDS)
        except TimeoutError:
            raise Unavailable("the stores take too long") from None
        if taken.status == "limited":
            raise Limited(LIMITED, retry_after_seconds=3600)
        if taken.status == "unavailable":
            raise Unavailable(NO_COUNT)
        return taken

    def _start(self) -> None:
        with self._starting:  # by the first view, so that it lives in the process that serves
            if self._thread is None:
                self._thread = Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._commit(self._next_group())

    def _next_group(self) -> list[Submission]:
        group = [self._queue.get()]
        views = len(group[0].views)
        while views < MOST_VIEWS:
            try:
                group.append(self._queue.get_nowait())
            except Empty:
                break
            views += len(group[-1].views)
        return group

    def _commit(self, group: Sequence[Submission]) -> None:
        try:
            taken = self._take([view for one in group for view in one.views], max(one.now for one in group))
        except Exception as error:
            if len(group) == 1 or isinstance(error, Unavailable):
                for one in group:
                    one.done(error)
                return
            # a bug, perhaps of one view only: under their ids, those that were taken are taken once
            log.exception("a group failed; its views are tried one by one")
            for one in group:
                self._commit([one])
            return
        start = 0
        for one in group:
            one.done(taken[start : start + len(one.views)])
            start += len(one.views)
