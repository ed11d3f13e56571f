"""The command: one seeded run, a summary, and 1 when something was lost or doubled."""

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, func, select

from footfall import stream, verify
from footfall.clock import site_day, utc_now
from footfall.database import make_engine
from footfall.schema import DeadLetter, EventKind, ViewEventRow
from tests.chaos import faults, midnight
from tests.chaos.stores import Stores
from tests.chaos.traffic import Seen, Traffic
from tests.chaos.verdict import Stored, Verdict, compare, database_spans, table
from tests.functional import balance
from tests.functional.instance import Instance

STEP_SECONDS = 0.05
START_SECONDS = 10.0  # about how long everything takes to be ready
MIDNIGHT_AT = 0.5  # of the run
ROLLUP_SECONDS = 15.0  # between rollups of the day that is over
ANSWERED_SECONDS = 90.0  # for what is unanswered when the faults are over
HEAL_SECONDS = 120.0


def main() -> int:
    """Read the command line, run, say what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Kill everything at random while views come in."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000), metavar="N")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="of faults; default 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, too")
    words = parser.parse_args()
    print(f"seed {words.seed}, {words.minutes:g} minutes", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="footfall-chaos-", dir="/tmp"))
    folder.chmod(0o755)
    verdict = Run(folder, words.seed, words.minutes).run()
    if words.json:
        words.json.write_text(json.dumps(verdict.as_json(), indent=2) + "\n")
    print(table(verdict))
    if verdict.is_good:
        shutil.rmtree(folder)
        return 0
    print(f"a promise was broken; the data and logs are in {folder}")
    return 1


class Run:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self._folder = folder
        self._seed = seed
        self._minutes = minutes
        self._injected: Counter[str] = Counter()
        self._rollups = 0
        self._said_at = 0.0
        self._unanswered = 0
        self._api_pid = 0
        self._api_starts: list[float] = []  # by the wall clock, when they were noticed

    def run(self) -> Verdict:
        """All of it. The folder keeps the data only when the verdict is bad or an error is raised."""
        verdict = Verdict(self._seed, self._minutes)
        stores = Stores(self._folder)
        keep = True
        try:
            verdict.left_out = self._left_out(stores)
            self._run(stores, verdict)
            keep = not verdict.is_good
        finally:
            stores.close(keep=keep)
        return verdict

    def _run(self, stores: Stores, verdict: Verdict) -> None:
        turn = _whole_minute(utc_now() + timedelta(seconds=START_SECONDS + 60 * self._minutes * MIDNIGHT_AT))
        settings = {
            **stores.environment,
            **midnight.make_zone(self._folder, turn),
            "FOOTFALL_TRUSTED_PROXIES": "1",
        }
        instance = Instance(self._folder / "data", settings)
        instance.start()
        try:
            seen = self._harm(instance, stores, turn)
            self._judge(instance, verdict, seen)
        finally:
            _, output = instance.stop(unbalanced="looked at already")
            (self._folder / "supervisor.log").write_text(output)

    def _harm(self, instance: Instance, stores: Stores, turn: datetime) -> Seen:
        lanes = [
            faults.Lane(faults.of_parts(instance, chance), chance)
            if of == "parts"
            else faults.Lane(faults.of_stores(stores, chance), chance)
            for of in ("parts", "stores")
            for chance in [random.Random(f"{self._seed} {of}")]
        ]
        traffic = Traffic(instance, self._seed)
        rollups = Rollups(instance, turn)
        ends_at = time.monotonic() + 60 * self._minutes
        traffic.start()
        try:
            while (left := ends_at - time.monotonic()) > 0:
                for lane in lanes:
                    lane.step(
                        self._note_fault, others_idle=all(one.is_idle for one in lanes if one is not lane)
                    )
                stores.tend()
                rollups.step()
                self._note_api(instance)
                self._say(traffic, left)
                time.sleep(STEP_SECONDS)
            for lane in lanes:
                lane.heal()
            traffic.stop_new()
            self._until(
                lambda: all(store.server.answers() for store in stores.all.values()), stores, HEAL_SECONDS
            )
            self._until(lambda: traffic.unanswered == 0, stores, ANSWERED_SECONDS)
        finally:
            for lane in lanes:
                lane.heal()
            self._unanswered = traffic.unanswered
            seen = traffic.stop()
        self._rollups = rollups.end()
        return seen

    def _judge(self, instance: Instance, verdict: Verdict, seen: Seen) -> None:
        self._note("everything is healed; comparing")
        verdict.faults = dict(sorted(self._injected.items()))
        verdict.never_answered, verdict.rollups_of_the_closed_day = self._unanswered, self._rollups
        if self._unanswered:
            verdict.problems.append(f"{self._unanswered} requests were not answered after all was healed")
        settings = instance.settings
        try:
            balance.check(settings)
        except AssertionError as error:
            verdict.problems += [f"balance: {error}", *getattr(error, "__notes__", [])]
        rolled = instance.cli("rollup")
        if rolled.returncode:
            verdict.problems.append(f"footfall rollup: {rolled.stderr}")
        engine, redis = make_engine(settings), stream.connect(settings)
        try:
            audited = verify.audit(engine, redis, settings, utc_now())
            verdict.shown_above = sum(1 for each in audited.differences if each.where == "shown count")
            verdict.problems += [
                f"audit: {each}" for each in audited.differences if each.where != "shown count"
            ]
            rows, verdict.days, verdict.dead_letters = _stored(engine)
        finally:
            redis.close()
            engine.dispose()
        if verdict.dead_letters:
            verdict.problems.append(f"{verdict.dead_letters} dead letters")
        log = (self._folder / "data" / "logs" / "api.log").read_text()
        compare(verdict, seen, rows, database_spans(log, self._api_starts, time.time()))

    def _note_fault(self, kind: str) -> None:
        self._injected[kind] += 1
        with (self._folder / "faults.log").open("a") as log:
            log.write(f"{utc_now().isoformat(timespec='milliseconds')} {kind}\n")

    def _note_api(self, instance: Instance) -> None:
        with contextlib.suppress(FileNotFoundError, KeyError):
            pid = int(instance.run["api"]["pid"])
            if pid != self._api_pid:
                self._api_pid = pid
                self._api_starts.append(time.time())

    def _until(self, holds: Callable[[], bool], stores: Stores, seconds: float) -> None:
        """Look after the stores until it holds, or the time is over."""
        deadline = time.monotonic() + seconds
        while not holds() and time.monotonic() < deadline:
            stores.tend()
            time.sleep(0.2)

    def _left_out(self, stores: Stores) -> list[str]:
        missing = [name for name in stores.all if name not in stores.disks]
        return (
            [f"full disks of {' and '.join(missing)}: small disks can be mounted by root only"]
            if missing
            else []
        )

    def _say(self, traffic: Traffic, left_seconds: float) -> None:
        now = time.monotonic()
        if now - self._said_at < (1.0 if sys.stdout.isatty() else 15.0):
            return
        self._said_at = now
        seen = traffic.seen
        self._note(
            f"{left_seconds:4.0f} s left, {self._injected.total()} faults, {len(seen.sent):,} views sent, "
            f"{len(seen.answered):,} answered, {traffic.unanswered} under way, statuses {dict(seen.statuses)}"
        )

    def _note(self, text: str) -> None:
        print(
            f"\r\x1b[K{text}" if sys.stdout.isatty() else text,
            end="" if sys.stdout.isatty() else "\n",
            flush=True,
        )


class Rollups:
    """`footfall rollup --day` of the day that has just ended, again and again while its last views come."""

    def __init__(self, instance: Instance, turn: datetime) -> None:
        self._instance = instance
        zone = instance.settings.time_zone
        self._day: date = site_day(turn - timedelta(seconds=1), zone)
        self._next = turn + timedelta(seconds=2)
        self._process: subprocess.Popen[bytes] | None = None
        self._good = 0

    def step(self) -> None:
        """Begin or note one when it is time. It may fail: stores are away."""
        if self._process is not None and self._process.poll() is not None:
            self._good += self._process.returncode == 0
            self._process = None
        if self._process is None and utc_now() >= self._next:
            self._next = utc_now() + timedelta(seconds=ROLLUP_SECONDS)
            self._process = subprocess.Popen(
                self._instance.command("rollup", "--day", str(self._day)),
                env=self._instance.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def end(self) -> int:
        """How many ended well."""
        if self._process is not None:
            self._process.wait(60)
            self._good += self._process.returncode == 0
        return self._good


def _whole_minute(wanted: datetime) -> datetime:
    """The one nearest to `wanted`."""
    return (wanted + timedelta(seconds=30)).replace(second=0, microsecond=0)


def _stored(engine: Engine) -> tuple[list[Stored], int, int]:
    """The rows, on how many days they are, and how many dead letters there are."""
    stored = select(ViewEventRow.id, EventKind.outcome).join(EventKind, EventKind.id == ViewEventRow.kind_id)
    with engine.connect() as connection:
        rows = [Stored(*row) for row in connection.execute(stored)]
        days = connection.scalar(select(func.count(func.distinct(ViewEventRow.day)))) or 0
        dead = connection.scalar(select(func.count()).select_from(DeadLetter)) or 0
    return rows, days, dead


if __name__ == "__main__":
    sys.exit(main())
