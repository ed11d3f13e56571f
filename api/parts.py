"""What the view functions share: made once by each process, connecting when first used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app
from redis import Redis
from sqlalchemy import Engine

from footfall import stream
from footfall.countries import CountrySource
from footfall.database import make_engine
from footfall.event import ViewEvent
from footfall.intake import Edge
from footfall.salts import SaltCache
from footfall.settings import Settings

KEY = "footfall"


@dataclass(frozen=True, slots=True)
class Parts:
    """The process' settings, clients and caches."""

    settings: Settings
    engine: Engine
    redis: Redis
    pressure: stream.Pressure
    countries: CountrySource
    edge: Edge

    @classmethod
    def make(cls, settings: Settings) -> "Parts":
        """Everything for `settings`; nothing connects yet."""
        engine = make_engine(settings)
        countries = CountrySource(settings.country_header, settings.country_file)
        salts = SaltCache(engine, settings.time_zone)
        return cls(
            settings=settings,
            engine=engine,
            redis=stream.connect(settings),
            pressure=stream.Pressure(settings.queue_limit_entries),
            countries=countries,
            edge=Edge(settings, salts.for_days, countries.of_address),
        )

    def put(self, events: Sequence[ViewEvent]) -> None:
        """Queue `events` durably. Raises `Unavailable` when the queue is away or full."""
        if events:
            self.pressure.refuse_when_full(self.redis)
            stream.put(self.redis, events)


def install(app: Flask, settings: Settings) -> None:
    """Give `app` its parts."""
    app.extensions[KEY] = Parts.make(settings)


def parts() -> Parts:
    """The parts of the app that handles the current request."""
    return cast(Parts, current_app.extensions[KEY])
