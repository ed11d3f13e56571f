"""An instance on a database of its own, healthy at first, as the doctor's tests harm and examine it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine, make_url, text

from footfall import liveness, readiness, retention, rollup, stream, writer
from footfall.cli.doctor import schedule
from footfall.clock import site_day, utc_now
from footfall.database import make_engine
from footfall.doctor.examination import examine
from footfall.doctor.mending import mend
from footfall.doctor.report import Check, Instance
from footfall.event import ViewEvent
from footfall.settings import Settings
from tests.factory import make_event, store


@dataclass(frozen=True, slots=True)
class Patient:
    """What the doctor examines, and how a test harms it. Its time is the real one: servers' clocks count."""

    instance: Instance

    @property
    def engine(self) -> Engine:
        return self.instance.engine

    @property
    def redis(self) -> Redis:
        return self.instance.redis

    @property
    def settings(self) -> Settings:
        return self.instance.settings

    @property
    def now(self) -> datetime:
        return self.instance.now

    @property
    def today(self) -> date:
        return site_day(self.now, self.settings.time_zone)

    def later(self, **by: float) -> "Patient":
        """The same after some time in which nobody did anything."""
        return replace(self, instance=replace(self.instance, now=self.now + timedelta(**by)))

    def sql(self, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement; its rows, if it gives any."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    def event(self, days_ago: float = 0, **values: Any) -> ViewEvent:
        return make_event(self.settings, self.now - timedelta(days=days_ago), **values)

    def store(self, *events: ViewEvent) -> None:
        """Events on the real way."""
        store(self.engine, self.redis, self.settings, events)

    def write(self) -> writer.Written:
        return writer.drain(self.engine, self.redis, self.settings, "test")

    def examine(self) -> dict[str, Check]:
        """All checks, by name."""
        return {check.name: check for check in examine(self.instance).checks}

    def found(self) -> dict[str, str]:
        """{check: verdict and text} of all that are not ok."""
        return {
            name: f"{check.verdict}: {' | '.join(one.text for one in check.findings) or check.text}"
            for name, check in self.examine().items()
            if check.verdict != "ok"
        }

    def mend(self) -> list[str]:
        return mend(self.instance, examine(self.instance))

    def is_ready(self) -> bool:
        return readiness.check(self.engine, self.redis, self.settings, utc_now()).ready

    def note_runs(self, *tasks: str, error: str = "") -> None:
        """As if these tasks had just run; all of the schedule if none is named."""
        for task in tasks or self.instance.schedule:
            liveness.note_run(self.redis, task, self.now, error)

    @contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """Redis with other settings, for as long as the block lasts."""
        names = {name.replace("_", "-"): value for name, value in values.items()}
        before = {name: str(self.redis.config_get(name)[name]) for name in names}
        try:
            for name, value in names.items():
                self.redis.config_set(name, value)
            yield
        finally:
            for name, value in before.items():
                self.redis.config_set(name, value)


def healthy(url: str, settings: Settings) -> Patient:
    """An instance that has just done everything it should; the caller disposes of the engine."""
    own = replace(settings, database_url=make_url(url).render_as_string(hide_password=False))
    patient = Patient(
        Instance(
            settings=own,
            engine=make_engine(own),
            redis=stream.connect(own),
            now=utc_now(),
            schedule=schedule(),
        )
    )
    retention.turn_days(patient.engine, own, patient.now)
    with patient.engine.begin() as connection:
        liveness.note_alive(connection, patient.now)
    patient.note_runs()
    patient.store(patient.event(), patient.event(1), patient.event(1, entity_type="book", external_id="b"))
    rollup.roll_up_closed_days(patient.engine, patient.today, patient.now)
    rollup.catch_up(patient.engine, patient.today, patient.now)
    return patient
