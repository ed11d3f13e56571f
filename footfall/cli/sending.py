"""Brings batches of events to a running Footfall and does not give up at the first refusal."""

import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from footfall.errors import FootfallError

Event = dict[str, str]

BATCH_EVENTS = 1000  # the most that POST /api/track/batch takes
ANSWER_TIMEOUT_SECONDS = 30
PATIENCE_SECONDS = 120  # without progress
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
PASSING_STATUSES = frozenset((429, 502, 503, 504))  # a proxy's 502 and 504: the server restarts


class SendingFailed(FootfallError):
    """The server refused for good, or was away for longer than the sender waits."""

    code = "sending_failed"


@dataclass(slots=True)
class Sent:
    """What the server said to the events so far."""

    accepted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by reason

    def add(self, answer: dict[str, Any]) -> None:
        """Take over one answer of POST /api/track/batch."""
        self.accepted += answer["accepted"]
        self.outcomes.update(answer["outcomes"])
        self.refused.update(error["error"] for error in answer["errors"])


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    retry_after: str | None
    body: bytes


class Sender:
    """One kept-alive connection to one server; the events' ids make every repetition harmless."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        pause: Callable[[float], None] = time.sleep,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is the server's address, maybe with a path before `/api`.

        Raises `SendingFailed` if it is none.
        """
        self._connection = _connection(url)
        self._url = url
        self._path = f"{urlsplit(url).path.rstrip('/')}/api/track/batch"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._patience_seconds = patience_seconds
        self._pause = pause
        self._elapsed = elapsed
        self.sent = Sent()

    def send(self, events: Sequence[Event]) -> None:
        """Deliver the events, at most `BATCH_EVENTS`, and add the answer to `sent`.

        Raises `SendingFailed`; the events of this call may then have arrived or not.
        """
        response = self._until_answered(json.dumps({"events": events}).encode())
        if response.status == 413:
            self._send_smaller(events)
        elif response.status == 200:
            self.sent.add(json.loads(response.body))
        else:
            raise SendingFailed(f"{self._url} answered {_explanation(response)}")

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _send_smaller(self, events: Sequence[Event]) -> None:
        if len(events) == 1:
            self.sent.refused["larger than the server takes"] += 1
            return
        middle = len(events) // 2
        self.send(events[:middle])
        self.send(events[middle:])

    def _until_answered(self, body: bytes) -> _Response:
        give_up_at = self._elapsed() + self._patience_seconds
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            wanted_seconds = 0.0
            try:
                response = self._post(body)
                if response.status not in PASSING_STATUSES:
                    return response
                trouble = _explanation(response)
                wanted_seconds = _seconds(response.retry_after)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                trouble = str(error) or type(error).__name__
            wait_seconds = max(wanted_seconds, pause_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
            if self._elapsed() + wait_seconds > give_up_at:
                raise SendingFailed(
                    f"{self._url} took nothing for {self._patience_seconds:.0f} s: {trouble}. "
                    "The same may be sent again: nothing counts twice."
                )
            self._pause(wait_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _post(self, body: bytes) -> _Response:
        self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        return _Response(response.status, response.getheader("Retry-After"), response.read())


def _connection(url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SendingFailed(f"{url} is not an address: {error}") from error
    if not host or parts.scheme not in ("http", "https"):
        raise SendingFailed(f"{url} is not an address that starts with http:// or https://")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=ANSWER_TIMEOUT_SECONDS)
    return http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_SECONDS)


def _seconds(retry_after: str | None) -> float:
    # the other form, a date, says nothing that the back-off does not
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0


def _explanation(response: _Response) -> str:
    try:
        return f"{response.status}: {json.loads(response.body)['error']}"
    except (ValueError, TypeError, KeyError):
        return f"{response.status} {http.client.responses.get(response.status, '')}".rstrip()
