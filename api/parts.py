"""What the view functions share: made once by each process, connecting when first used."""

import secrets
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app
from redis import Redis
from sqlalchemy import Engine

from footfall import stream
from footfall.acceptance import Acceptance
from footfall.answers import Answers
from footfall.countries import CountrySource
from footfall.database import make_serving_engine
from footfall.entities import Facts
from footfall.group_commit import GroupCommit
from footfall.intake import Edge
from footfall.limits import Limits
from footfall.salts import SaltCache
from footfall.scrape import Scraper
from footfall.settings import Settings
from footfall.traffic import Traffic

KEY = "footfall"


@dataclass(frozen=True, slots=True)
class Parts:
    """The process' settings, clients and caches."""

    settings: Settings
    engine: Engine
    redis: Redis
    acceptance: Acceptance
    group_commit: GroupCommit
    answers: Answers
    countries: CountrySource
    facts: Facts
    edge: Edge
    limits: Limits
    salts: SaltCache
    traffic: Traffic
    scraper: Scraper
    consumer: str  # of the queue, when this process writes for an impatient caller

    @classmethod
    def make(cls, settings: Settings) -> "Parts":
        """Everything for `settings`; nothing connects yet."""
        engine = make_serving_engine(settings)
        countries = CountrySource(settings.country_header, settings.country_file)
        salts = SaltCache(engine, settings.time_zone, settings.pepper)
        facts = Facts(engine)
        redis = stream.connect(settings)
        acceptance = Acceptance(engine, redis, settings)
        return cls(
            settings=settings,
            engine=engine,
            redis=redis,
            acceptance=acceptance,
            group_commit=GroupCommit(acceptance.take),
            answers=Answers(engine, redis, settings),
            countries=countries,
            facts=facts,
            edge=Edge(settings, salts.keys_for_days, countries.of_address, facts.owner_of),
            limits=Limits(redis, settings, salts.keys_for_days),
            salts=salts,
            traffic=Traffic(redis),
            scraper=Scraper(engine, redis, settings, countries),
            consumer=f"flush-{secrets.token_hex(6)}",
        )


def install(app: Flask, settings: Settings) -> None:
    """Give `app` its parts."""
    app.extensions[KEY] = Parts.make(settings)


def of(app: Flask) -> Parts:
    """The parts of `app`."""
    return cast(Parts, app.extensions[KEY])


def parts() -> Parts:
    """The parts of the app that handles the current request."""
    return of(current_app)
