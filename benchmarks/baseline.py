"""What Footfall is compared with: a Celery message and an inserted row for every view.

The usual design, fairly written: the endpoint does no more than it must, nothing in the request waits for
PostgreSQL, tasks keep their connection, results and events are off, and there is a process for each core.
Answered views are in Redis, under the same `appendfsync always`.
"""

import hashlib
import os
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from flask import Flask, request
from sqlalchemy import DateTime, String, Uuid, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

app = Flask(__name__)
queue = Celery("baseline", broker=os.environ["CELERY_BROKER_URL"])
queue.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
engine = create_engine(os.environ["DATABASE_URL"])  # connects when first used, after the fork


class Base(DeclarativeBase):
    """The table's root."""


class SiteEvent(Base):
    """A view, as a row: its key, and an index for the pages' numbers of a day."""

    __tablename__ = "site_events"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    path: Mapped[str] = mapped_column(String(2048), index=True)
    viewer_ip_hash: Mapped[str] = mapped_column(String(64))
    user_agent_hash: Mapped[str] = mapped_column(String(64))
    device_type: Mapped[str] = mapped_column(String(20))
    view_source: Mapped[str] = mapped_column(String(20))
    view_type: Mapped[str] = mapped_column(String(20))
    referrer_domain: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


@app.post("/api/track/page-view")
def page_view() -> tuple[str, int]:
    """Hash what is personal, queue the view, answer."""
    body = request.get_json(force=True)
    user_agent = request.headers.get("User-Agent", "")
    address = request.headers.get("X-Forwarded-For", request.remote_addr or "").rpartition(",")[2].strip()
    write_event.delay(
        {
            "id": str(uuid.UUID(body["id"]) if body.get("id") else uuid.uuid4()),
            "path": str(body["path"])[:2048],
            "viewer_ip_hash": hashlib.sha256(address.encode()).hexdigest(),
            "user_agent_hash": hashlib.sha256(user_agent.encode()).hexdigest(),
            "device_type": device_type(user_agent),
            "view_source": "web",
            "view_type": "intentional",
            "referrer_domain": urlsplit(body.get("referrer") or "").hostname,
            "created_at": datetime.now(UTC).isoformat(),
        }
    )
    return "", 204


@app.get("/api/health")
def health() -> dict[str, str]:
    """That it answers."""
    return {"status": "ok"}


@queue.task(name="baseline.write_event", max_retries=3)
def write_event(event: dict[str, Any]) -> None:
    """One view, one row, one commit."""
    row = {**event, "id": uuid.UUID(event["id"]), "created_at": datetime.fromisoformat(event["created_at"])}
    with engine.begin() as connection:
        connection.execute(insert(SiteEvent).values(row))


def device_type(user_agent: str) -> str:
    """What the user agent says it runs on."""
    if "iPad" in user_agent or "Tablet" in user_agent:
        return "tablet"
    return "mobile" if "Mobile" in user_agent else "desktop"
