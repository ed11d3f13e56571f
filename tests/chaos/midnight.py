"""A time zone in which midnight comes when the run wants it."""

import os
import struct
import zoneinfo
from datetime import datetime
from pathlib import Path

NAME = "Chaos/Midnight"
DAY_SECONDS = 86_400


def make_zone(folder: Path, midnight: datetime) -> dict[str, str]:
    """Make the zone known to this process; the environment that makes it known to others, and the site's.

    A fixed offset such that a day of the site begins at `midnight`, a whole minute: Celery writes its times
    with the zone's offset, and reads none with seconds.
    """
    offset = -int(midnight.timestamp()) % DAY_SECONDS
    if offset % 60:
        raise ValueError("midnight must come at a whole minute")
    if offset > DAY_SECONDS // 2:
        offset -= DAY_SECONDS
    file = folder / "zones" / NAME
    file.parent.mkdir(parents=True)
    # TZif (RFC 9636), version 1: one kind of local time, no transitions
    header = struct.pack(">4s16x6l", b"TZif", 0, 0, 0, 0, 1, 4)
    file.write_bytes(header + struct.pack(">lBB", offset, 0, 0) + b"CHA\0")
    places = [str(folder / "zones"), *zoneinfo.TZPATH]
    zoneinfo.reset_tzpath(places)
    zoneinfo.ZoneInfo.clear_cache()
    return {"PYTHONTZPATH": os.pathsep.join(places), "FOOTFALL_TIME_ZONE": NAME}
