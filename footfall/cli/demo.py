"""`footfall demo`: everything started in a throwaway folder, sample traffic sent, the numbers shown.

What is printed at the end is checked against what the API accepted; any difference is a failure.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from footfall.access import make_token
from footfall.cli import geo, sample
from footfall.cli.access_log import open_log
from footfall.cli.data_dir import DataDir, environment
from footfall.cli.processes import spawn, stop, tail
from footfall.cli.replay import progress_bar, replay, report, survey
from footfall.cli.sending import Sender
from footfall.clock import utc_now
from footfall.countries import CountryFile
from footfall.errors import FootfallError
from footfall.settings import Settings

T = TypeVar("T")

LIVE_VIEWS = 200
SHOWN_DAYS = sample.DAYS + 1  # midnight may pass between the log and the end
SHOWN_PAGES = 12
BAR_CHARACTERS = 30
START_SECONDS = 90.0
WRITE_SECONDS = 60.0
STOP_SECONDS = 90.0
COUNTRIES_SECONDS = 10.0
LOOK_SECONDS = 0.1
TAIL_LINES = 8
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOG_NAMES = ("up", "migrate", "api", "worker", "upkeep", "beat", "postgres", "redis")


class DemoFailed(FootfallError):
    """A step of the demo did not do what it should."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Instance:
    """The throwaway instance: its folder, its supervisor and the environment that both see."""

    folder: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    country_file: CountryFile | None

    @property
    def url(self) -> str | None:
        """The API's address, once everything is ready."""
        parts = DataDir(self.folder).run()
        return str(parts["api"]["url"]) if "api" in parts else None


@click.command("demo")
def command() -> None:
    """Start everything in a throwaway folder, send sample traffic, show the numbers, stop."""
    began = time.monotonic()
    with _ended_in_order(), _throwaway_folder() as folder:
        try:
            with _instance(folder, _bring_countries(folder)) as instance:
                _run(instance)
        except Exception as error:
            click.echo(_log_tails(folder / "logs"), err=True)
            raise DemoFailed(f"the demo failed: {error}") from error
    click.echo(f"\nEverything is stopped and removed again ({time.monotonic() - began:.0f} s).")


def _run(instance: Instance) -> None:
    with _step("starting PostgreSQL, Redis, API, worker and beat"):
        url = _wait(lambda: _started(instance), "everything to be ready", START_SECONDS)
    settings = Settings.from_mapping(environment(instance.folder, instance.environment))
    outcomes = Counter[str]()
    with _step("replaying the sample log"):
        outcomes += _replay_sample(instance, url)
    with _step("sending live page views"):
        outcomes += _send_page_loads(url, instance.country_file is not None)
    with _step("waiting until everything is written"):
        _wait(lambda: _queue_length(url) == 0, "the queue to be empty", WRITE_SECONDS)
    with _step("rolling up the closed days"):
        _roll_up(instance)
    with _step("reading the statistics"):
        token = make_token(settings, "demo", "moderator", utc_now())
        path = f"/api/admin/sitewide-stats?days={SHOWN_DAYS}"
        stats = _request(url, "GET", path, headers={"Authorization": f"Bearer {token}"})[1]
    click.echo("\n" + _days_table(stats["daily_views"]))
    click.echo("\n" + _pages_table(stats["views_by_page"]))
    if instance.country_file is not None:
        click.echo("\n" + _countries_table(stats["views_by_country"], instance.country_file))
    click.echo("\n" + _totals(stats))
    _check(stats, outcomes)


def _bring_countries(folder: Path) -> CountryFile | None:
    """Use the country file that is installed, else what comes quickly, else none."""
    click.echo(f"- looking for a country file (at most {COUNTRIES_SECONDS:.0f} s)")
    installed = DataDir(Path(os.environ.get("FOOTFALL_DATA_DIR") or ".footfall")).country_file
    try:
        if installed.exists():
            return geo.install(DataDir(folder), installed)
        return geo.fetch_and_install(DataDir(folder), COUNTRIES_SECONDS)
    except (OSError, FootfallError) as error:
        click.echo(f"    no countries in this demo: {str(error).splitlines()[0]}")
        return None


@contextmanager
def _throwaway_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _instance(folder: Path, country_file: CountryFile | None) -> Iterator[Instance]:
    (folder / "logs").mkdir(exist_ok=True)
    # whatever is set belongs to a real instance, whose database is not for sample traffic
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FOOTFALL_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    # page views come with invented addresses, as from a proxy
    known = {**inherited, "FOOTFALL_TRUSTED_PROXIES": "1"}
    process = spawn(_footfall("up", folder, "--port", "0"), _up_log(folder), environment=known)
    try:
        yield Instance(folder, process, known, country_file)
    finally:
        _ignore_signals()
        stop(process, signal.SIGTERM, patience_seconds=STOP_SECONDS)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        _ignore_signals()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """From here on everything is being stopped anyway; half of it would leave the rest running."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _step(what: str) -> Iterator[None]:
    click.echo(f"- {what}")
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError, KeyError, FootfallError) as error:
        raise DemoFailed(f"{what}: {str(error) or type(error).__name__}") from error


def _started(instance: Instance) -> str | None:
    if instance.process.poll() is not None:
        raise DemoFailed(f"`footfall up` ended with {instance.process.returncode}")
    return instance.url


def _replay_sample(instance: Instance, url: str) -> Counter[str]:
    log_file = instance.folder / "sample.log"
    log_file.write_bytes(b"".join(sample.lines(utc_now(), placed=instance.country_file is not None)))
    sender = Sender(url, DataDir(instance.folder).secrets()["api_key"])
    with open_log(log_file) as log:
        found = survey(log)
        with progress_bar(found.page_views, "  sending") as bar:
            sent = replay(log, found, sender, None, bar.update)
    sender.close()
    click.echo("\n".join(f"    {row}" for row in report(found, sent).splitlines()))
    if sent.refused:
        raise DemoFailed(f"{sent.refused.total()} events were refused")
    return sent.outcomes


def _send_page_loads(url: str, placed: bool) -> Counter[str]:
    outcomes = Counter[str]()
    with progress_bar(LIVE_VIEWS, "  sending") as bar:
        for load in sample.page_loads(LIVE_VIEWS, placed=placed):
            body = {"path": load.path} | ({"referrer": load.referrer} if load.referrer else {})
            headers = {"User-Agent": load.user_agent, "X-Forwarded-For": load.address}
            outcome, _ = _request(url, "POST", "/api/track/page-view", body, headers)
            outcomes[outcome or "none"] += 1
            bar.update(1)
    return outcomes


def _queue_length(url: str) -> int:
    checks = _request(url, "GET", "/api/health/ready", accepted=(200, 503))[1]["checks"]
    return int(checks["queue"].get("entries", -1))


def _roll_up(instance: Instance) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        _footfall("rollup", instance.folder),
        env=instance.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoFailed(done.stderr)


def _check(stats: dict[str, Any], outcomes: Counter[str]) -> None:
    """Whether the numbers that were shown are those that were accepted. Raises `DemoFailed`."""
    shown = {
        "views": stats["total_page_views"],
        "views of the days": sum(day["views"] for day in stats["daily_views"]),
        "crawlers": stats["not_counted"]["bot"],
    }
    sent = {
        "views": outcomes["counted"],
        "views of the days": outcomes["counted"],
        "crawlers": outcomes["bot"],
    }
    if shown != sent:
        raise DemoFailed(f"the statistics say {shown}, but {sent} were sent")
    click.echo(f"\nEach of the {sent['views']:,} views that were accepted is in these numbers, once.")


def _days_table(days: list[dict[str, Any]]) -> str:
    days = list(dropwhile(lambda day: not day["views"], days))
    most = max((day["views"] for day in days), default=1)
    rows = [f"{'day':<12}{'views':>8}{'unique viewers':>16}"]
    for day in days:
        bar = "#" * round(BAR_CHARACTERS * day["views"] / most)
        rows.append(f"{day['date']:<12}{day['views']:>8,}{day['unique_viewers']:>16,}  {bar}".rstrip())
    return "\n".join(rows)


def _pages_table(views_by_page: dict[str, int]) -> str:
    top = sorted(views_by_page.items(), key=lambda page: (-page[1], page[0]))[:SHOWN_PAGES]
    width = max(len(path) for path, _ in top) + 2
    rows = [f"{'page':<{width}}{'views':>8}"]
    return "\n".join(rows + [f"{path:<{width}}{views:>8,}" for path, views in top])


def _countries_table(views_by_country: dict[str, int], file: CountryFile) -> str:
    rows = [f"{'country':<10}{'views':>10}"]
    rows += [f"{country:<10}{views:>10,}" for country, views in views_by_country.items()]
    return "\n".join(rows + ["IP to country: DB-IP (https://db-ip.com), CC BY 4.0"] * file.is_dbip)


def _totals(stats: dict[str, Any]) -> str:
    rows = [("views", stats["total_page_views"]), ("visitor days", stats["visitor_days"])]
    rows += [(f"views on {name}", views) for name, views in stats["views_by_device"].items()]
    rows += [(f"not counted: {name}", n) for name, n in stats["not_counted"].items()]
    return "\n".join(f"{name:<22}{n:>8,}" for name, n in rows)


def _request(
    url: str,
    method: str,
    path: str,
    body: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    accepted: tuple[int, ...] = (200, 204),
) -> tuple[str | None, Any]:
    """The outcome that the answer's header names, and its JSON, None without a body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        payload = None if body is None else json.dumps(body)
        typed = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, payload, {**typed, **(headers or {})})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status not in accepted:
        raise DemoFailed(f"{method} {path} was answered with {response.status}: {content[:200]!r}")
    return response.getheader("X-View-Outcome"), json.loads(content) if content else None


def _wait(look: Callable[[], T | None], what: str, seconds: float) -> T:
    """The first answer of `look` that is true. Raises `DemoFailed` when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(LOOK_SECONDS)
    return found


def _footfall(name: str, folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "footfall", name, "--data-dir", str(folder), *words]


def _up_log(folder: Path) -> Path:
    return folder / "logs" / "up.log"


def _log_tails(logs: Path) -> str:
    tails = {name: tail(logs / f"{name}.log").splitlines() for name in LOG_NAMES}
    return "\n".join(
        "\n".join((f"--- the end of {name}.log", *lines[-TAIL_LINES:]))
        for name, lines in tails.items()
        if lines
    )
