"""Event ids: UUIDv7 (RFC 9562, 5.7), whose first 48 bits are a moment in milliseconds."""

import secrets
from datetime import datetime
from uuid import UUID

from footfall.event import EPOCH, MICROSECOND

VERSION_DIGIT, VARIANT_DIGIT = 12, 16  # where they stand (RFC 9562, 4)
RFC_VARIANT = "89ab"  # RFC 9562, 4.1


def uuid7(now: datetime) -> UUID:
    """A new id for `now`, ascending by the microsecond (RFC 9562, 6.2, method 3)."""
    milliseconds, microseconds = divmod((now - EPOCH) // MICROSECOND, 1000)
    fraction = microseconds * 4096 // 1000  # 12 bits
    return UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62))


def milliseconds_of(event_id: UUID) -> int | None:
    """Milliseconds since 1970 in a UUIDv7, which may be made up; None for any other UUID."""
    return milliseconds_in(event_id.hex)


def milliseconds_in(digits: str) -> int | None:
    """The same for a UUID's 32 hexadecimal digits, in lower case."""
    if digits[VERSION_DIGIT] != "7" or digits[VARIANT_DIGIT] not in RFC_VARIANT:
        return None
    return int(digits[:VERSION_DIGIT], 16)
