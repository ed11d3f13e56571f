"""Event ids: UUIDv7 (RFC 9562, 5.7), whose first 48 bits are a moment in milliseconds."""

import secrets
from datetime import datetime
from uuid import UUID

from footfall.event import EPOCH, MICROSECOND

RFC_VARIANT = 0b10  # RFC 9562, 4.1


def uuid7(now: datetime) -> UUID:
    """A new id for `now`, ascending by the microsecond (RFC 9562, 6.2, method 3)."""
    milliseconds, microseconds = divmod((now - EPOCH) // MICROSECOND, 1000)
    fraction = microseconds * 4096 // 1000  # 12 bits
    return UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62))


def milliseconds_of(event_id: UUID) -> int | None:
    """Milliseconds since 1970 in a UUIDv7, which may be made up; None for any other UUID."""
    number = event_id.int
    is_version_7 = number >> 76 & 0xF == 7 and number >> 62 & 0b11 == RFC_VARIANT
    return number >> 80 if is_version_7 else None
