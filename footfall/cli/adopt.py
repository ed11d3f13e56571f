"""`footfall adopt`: what another site has counted so far, taken over from its database."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from footfall.cli import data_dir_option
from footfall.content_types import CONTENT_TYPES

if TYPE_CHECKING:
    from footfall.adoption import Progress, Report

SHOWN_DAYS = 5  # of those that are skipped for the same reason


@click.command("adopt")
@click.option(
    "--from",
    "source_url",
    required=True,
    metavar="DATABASE_URL",
    help="The other site's PostgreSQL. It is only read. PGPASSWORD keeps the password out of sight.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "books", "counters", "daily"]),
    default="auto",
    show_default=True,
    help="Which tables: book_view_statistics; ViewCounterTotal and ViewCounterDaily; <type>_stats_daily.",
)
@click.option(
    "--entity-type",
    type=click.Choice(list(CONTENT_TYPES)),
    help="What books or daily rows are about.  [default: what the table is called after]",
)
@click.option("--schema", help="Only tables in this schema of the source.")
@click.option("--another-site", is_flag=True, help="The same table from another address is another site's.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be taken over.")
@data_dir_option
def command(
    source_url: str,
    layout: str,
    entity_type: str | None,
    schema: str | None,
    another_site: bool,
    dry_run: bool,
    data_dir: Path,
) -> None:
    """Take over the view counts of another site's tables.

    All-time totals are added to the counters, and days that Footfall has no events of get the daily
    numbers. Running it again adds only what the source has counted meanwhile, so run it before the
    switch and once more after it. Each view must be told to one of the two sites, not to both.
    """
    from footfall.adoption import adopt
    from footfall.cli.data_dir import environment
    from footfall.clock import utc_now
    from footfall.database import make_engine
    from footfall.other_site import open_source
    from footfall.settings import Settings
    from footfall.stream import connect

    settings = Settings.from_mapping(environment(data_dir, os.environ))
    engine, redis = make_engine(settings, statement_timeout_ms=3_600_000), connect(settings)
    try:
        with open_source(source_url, layout, entity_type, schema) as source, _bars() as progress:
            reports = adopt(
                engine,
                redis,
                settings,
                source,
                utc_now(),
                dry_run=dry_run,
                is_another_site=another_site,
                progress=progress,
            )
            notes = source.notes
    finally:
        redis.close()
        engine.dispose()
    for each in reports:
        click.echo(_table(each, dry_run))
    for note in notes:
        click.echo(f"note: {note}")
    if dry_run:
        click.echo("dry run: nothing was changed")


def _table(report: "Report", dry_run: bool) -> str:
    reading = report.reading
    rows = [("rows", reading.rows), ("  added to others of the same key", reading.duplicates)]
    rows += [("  left out", reading.left_out.total())]
    rows += [(f"    {why}", n) for why, n in reading.left_out.most_common()]
    rows += [("entities, new", report.new), ("entities, known", report.known)]
    if report.deleted:
        rows += [("entities, deleted here and left so", report.deleted)]
    if report.has_totals:
        rows += [("all-time views before", report.before), ("  added", report.added)]
        rows += [("all-time views after", report.before + report.added)]
    rows += [("days taken", len(report.views_of_days)), ("  views added", sum(report.views_of_days.values()))]
    rows += [("days skipped", len(report.skipped))]
    width = max(len(name) for name, _ in rows)
    table = report.table
    title = f"{table.schema}.{table.name} ({table.layout}){', would be taken over' if dry_run else ''}"
    lines = [f"{name:<{width}}  {n:>13,}" for name, n in rows]
    return "\n".join([click.style(title, bold=True), *(f"  {each}" for each in [*lines, *_skipped(report)])])


def _skipped(report: "Report") -> Iterator[str]:
    """Why days are skipped, and which."""
    for why in dict.fromkeys(report.skipped.values()):
        of_it = [day.isoformat() for day, reason in report.skipped.items() if reason == why]
        more = f" and {len(of_it) - SHOWN_DAYS} more" if len(of_it) > SHOWN_DAYS else ""
        yield f"  {', '.join(of_it[-SHOWN_DAYS:])}{more}: {why}"


@contextmanager
def _bars() -> "Iterator[Progress]":
    """A bar for each step on standard error, where there is a person to see it."""
    from footfall.cli.replay import progress_bar

    step, bar = "", None

    def end() -> None:
        if bar is not None:
            bar.finish()
            bar.render_finish()

    def progress(name: str, done: int, length: int) -> None:
        nonlocal step, bar
        if not sys.stderr.isatty():
            return
        if name != step:
            end()
            step, bar = name, progress_bar(max(length, 1), name)
        assert bar is not None  # noqa: S101 - for the type checker
        bar.update(done)

    try:
        yield progress
    finally:
        end()
