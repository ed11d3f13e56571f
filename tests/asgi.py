"""What stands behind the server, asked as a server asks it."""

from collections.abc import Iterable
from typing import Any

from api.asgi import Application, Scope


async def exchange(application: Application, scope: Scope, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the application sends for a request with a body in `pieces`; afterwards the client is gone."""
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    incoming += [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent
