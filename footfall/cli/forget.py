"""`footfall forget`: what somebody has asked to be forgotten."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from footfall.cli import ask, data_dir_option
from footfall.errors import FootfallError, Invalid

if TYPE_CHECKING:
    from footfall.entities import Name
    from footfall.forget import Forgotten


@click.command("forget")
@click.option("--user", "user_id", metavar="ID", help="A user, by the id in the site's tokens (`sub`).")
@click.option("--entity", metavar="TYPE/ID", help="An entity, such as story/12; a page: page//path.")
@click.option("--also-ownership", is_flag=True, help="With --user: also that the user owns entities.")
@click.option("--yes", is_flag=True, help="With --entity: do not ask.")
@data_dir_option
def command(user_id: str | None, entity: str | None, also_ownership: bool, yes: bool, data_dir: Path) -> None:
    """Forget a user, or an entity with all that is counted of it.

    A user: the views of the days whose salt there still is (48 hours) become nobody's; views stay counted,
    unique viewers of those days are one less. In older days nobody can find the user, so there is nothing
    to forget. What the user views from now on is new.

    An entity: its events, counters and daily rows are deleted, as by DELETE /api/entities.
    """
    if (user_id is None) == (entity is None):
        raise click.UsageError("name either a --user or an --entity")
    if user_id is not None:
        _forget_user(user_id, also_ownership, data_dir)
    elif entity is not None:
        name = _name(entity)
        ask(f"Delete all that is counted of {name[0]} {name[1]}?", yes)
        _forget_entity(name, data_dir)


def _forget_user(user_id: str, also_ownership: bool, data_dir: Path) -> None:
    from footfall.cli.stores import opened
    from footfall.forget import forget_user

    if not user_id:
        raise click.BadParameter("must not be empty", param_hint="--user")
    with opened(data_dir) as (settings, engine, redis):
        forgotten = forget_user(engine, redis, settings, user_id, also_ownership=also_ownership)
    click.echo(_report(forgotten, also_ownership))
    if forgotten.unreadable:
        ids = " ".join(map(str, forgotten.unreadable))
        raise FootfallError(
            f"these dead letters hold the user, and this version cannot read them: {ids};"
            " replay or discard them with `footfall dead-letters`, and run this again"
        )


def _forget_entity(name: "Name", data_dir: Path) -> None:
    from footfall.cli.stores import opened
    from footfall.clock import utc_now
    from footfall.forget import forget_entity

    with opened(data_dir) as (settings, engine, redis):
        if not forget_entity(engine, redis, settings, name, utc_now()):
            raise FootfallError(f"there is no {name[0]} {name[1]}")
    click.echo("forgotten: its events, counters and daily rows")


def _name(entity: str) -> "Name":
    from footfall import fields

    kind, _, external_id = entity.partition("/")
    try:
        content_type = fields.content_type(kind, "TYPE")
        return content_type.name, fields.external_id(content_type, external_id, "ID")
    except Invalid as error:
        raise click.BadParameter(str(error), param_hint="--entity") from error


def _report(forgotten: "Forgotten", also_ownership: bool) -> str:
    days = ", ".join(map(str, forgotten.days)) or "no day has a salt"
    lines = [
        f"looked at the days that somebody can still be found in: {days}",
        f"{forgotten.events:,} events are nobody's now, {forgotten.slots:,} slots are gone,"
        f" {forgotten.dead_letters:,} dead letters were changed",
    ]
    if also_ownership:
        lines.append(f"{forgotten.entities:,} entities have no owner now")
    return "\n".join(lines)
