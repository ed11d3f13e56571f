"""The command line. Every command imports its heavy parts only when it runs, so that --help is quick."""

import importlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from footfall.errors import FootfallError

if TYPE_CHECKING:
    from footfall.settings import Settings

# Commands with modules of their own: where they are, and the help of the list without importing them
LAZY_COMMANDS = {
    "adopt": ("footfall.cli.adopt", "Take over the view counts of another site's tables."),
    "dead-letters": (
        "footfall.cli.dead_letters",
        "Look at events that could not be stored; store or drop them.",
    ),
    "demo": ("footfall.cli.demo", "Send sample traffic to a throwaway instance and show the numbers."),
    "demo-data": ("footfall.cli.demo_data", "Fill the database with a month of invented traffic."),
    "doctor": ("footfall.cli.doctor", "Look at everything that can be wrong, and say what mends it."),
    "forget": ("footfall.cli.forget", "Forget a user, or an entity with all that is counted of it."),
    "geo": ("footfall.cli.geo", "Know the countries of viewers: `geo install` brings a country file."),
    "replay": ("footfall.cli.replay", "Send the page views of an access log."),
    "verify": ("footfall.cli.verify", "Check that everything stored says the same."),
}

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".footfall"),
    show_default=True,
    envvar="FOOTFALL_DATA_DIR",
    help="The folder of the instance.",
)


def ask(question: str, yes: bool) -> None:
    """Ask before what cannot be undone, unless the caller has said `--yes`; ends the command at a no."""
    if yes:
        return
    if not is_a_person_there():
        raise click.UsageError("nobody is there to be asked; add --yes")
    click.confirm(question, abort=True)


def is_a_person_there() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


class _Commands(click.Group):
    """A group that finds some of its commands in other modules and prints our errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LAZY_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LAZY_COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _ = LAZY_COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in LAZY_COMMANDS:
                rows.append((name, LAZY_COMMANDS[name][1]))
            elif command := super().get_command(ctx, name):
                rows.append((name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FootfallError as error:
            click.echo(f"{click.style('error:', fg='red')} {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands)
@click.version_option(package_name="footfall", message="%(prog)s %(version)s")
def main() -> None:
    """Footfall counts the views of your site, exactly once and without keeping who it was."""


@main.command("up")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The API's port; 0 takes a free one.",
)
@data_dir_option
def up_command(host: str, port: int, data_dir: Path) -> None:
    """Run all parts on this machine until Ctrl-C.

    PostgreSQL and Redis are started too, unless DATABASE_URL or REDIS_URL say where they are.
    """
    from footfall.cli.up import run

    run(data_dir, host, port, os.environ)


@main.command()
@data_dir_option
def migrate(data_dir: Path) -> None:
    """Bring the database to this version's schema. Running it again changes nothing."""
    from footfall import schema_check
    from footfall.database import make_engine
    from footfall.database import migrate as migrate_database

    settings = _settings(data_dir)
    migrate_database(settings.database_url, settings)
    engine = make_engine(settings)
    try:
        # somebody may have changed it past the migrations
        with engine.connect() as connection:
            schema_check.require(connection)
    finally:
        engine.dispose()
    click.echo("the schema is up to date")


@main.command()
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DAY",
    help="Only this day (YYYY-MM-DD).  [default: every closed day whose events have changed]",
)
@data_dir_option
def rollup(day: datetime | None, data_dir: Path) -> None:
    """Compute daily rows from the raw events. Running it again changes nothing."""
    from footfall.clock import site_day, utc_now
    from footfall.database import make_engine
    from footfall.rollup import days_to_roll, roll_up

    settings = _settings(data_dir)
    engine = make_engine(settings)
    try:
        if day is not None:
            days = [day.date()]
        else:
            with engine.connect() as connection:
                days = days_to_roll(connection, site_day(utc_now(), settings.time_zone))
        for each in days:
            result = roll_up(engine, each, utc_now())
            if result is not None:
                click.echo(f"{each}: {result.rows} rows written")
            elif day is None:
                click.echo(f"{each}: left to another process, which is at it")
            else:
                raise FootfallError(f"{each} has no raw events, or another process is rolling it up")
        if not days:
            click.echo("all closed days are rolled up")
    finally:
        engine.dispose()


@main.command()
@click.option(
    "--role",
    type=click.Choice(["user", "moderator", "admin", "service"]),
    required=True,
    help="What the bearer may do; `user` is an ordinary signed-in user.",
)
@click.option("--subject", required=True, help="Who the bearer is (the claim `sub`).")
@data_dir_option
def token(role: str, subject: str, data_dir: Path) -> None:
    """Print a token for the API, and nothing else."""
    from footfall.access import make_token
    from footfall.clock import utc_now

    click.echo(make_token(_settings(data_dir, need_stores=False), subject, role, utc_now()))


def _settings(data_dir: Path, *, need_stores: bool = True) -> "Settings":
    from footfall.cli.data_dir import environment
    from footfall.settings import Settings

    return Settings.from_mapping(environment(data_dir, os.environ, need_stores=need_stores))
