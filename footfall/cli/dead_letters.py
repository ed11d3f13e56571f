"""`footfall dead-letters`: the events that could not be stored. Store them after all, or let them go."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from footfall.cli import ask, data_dir_option
from footfall.errors import FootfallError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from footfall.dead_letters import LetterRow, Replayed

MOST = 100  # letters that are listed unless asked for more
PRIVATE = {"visitor", "slot", "slot_ends_at"}
SPOKEN = {
    "row": "stored",
    "duplicate": "a duplicate: its id was stored meanwhile",
    "erased": "dropped: what it was of has been deleted",
}

some = click.argument("ids", nargs=-1, type=int, metavar="[ID]...")


@click.group("dead-letters")
def command() -> None:
    """Look at events that could not be stored; store or drop them.

    Each was accepted once and is kept with the reason, such as data that the database refused, or an
    envelope of a newer version. When the reason is gone, replay it: it is stored once, as if it came now,
    on the day on which it happened.
    """


@command.command("list")
@click.option(
    "--limit", type=click.IntRange(1), default=MOST, show_default=True, help="How many, oldest first."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, one a line.")
@data_dir_option
def list_command(limit: int, as_json: bool, data_dir: Path) -> None:
    """List dead letters, oldest first."""
    from footfall import dead_letters
    from footfall.cli.stores import opened

    with opened(data_dir) as (_, engine, _redis), engine.connect() as connection:
        letters, total = dead_letters.listed(connection, limit), dead_letters.count(connection)
    for letter in letters:
        click.echo(json.dumps(_as_json(letter), default=str) if as_json else _line(letter))
    if not as_json and total > len(letters):
        click.echo(f"and {total - len(letters):,} more")
    if not as_json and not total:
        click.echo("no dead letters")


@command.command()
@click.argument("letter_id", type=int, metavar="ID")
@data_dir_option
def show(letter_id: int, data_dir: Path) -> None:
    """Print all that is known of one, as JSON."""
    from footfall import dead_letters
    from footfall.cli.stores import opened

    with opened(data_dir) as (_, engine, _redis), engine.connect() as connection:
        letter = dead_letters.find(connection, letter_id)
    if letter is None:
        raise FootfallError(f"there is no dead letter {letter_id}; see `footfall dead-letters list`")
    click.echo(json.dumps(_as_json(letter), default=str, indent=2))


@command.command()
@some
@click.option("--all", "all_", is_flag=True, help="All but those that came too late.")
@data_dir_option
def replay(ids: tuple[int, ...], all_: bool, data_dir: Path) -> None:
    """Store them after all. Exit code 1 when some could not be.

    Each is stored exactly once, also if this is interrupted and run again. What still cannot be stored
    stays, with the new reason. Those that came too late, for a day whose raw events have been dropped,
    never can: its numbers are final.
    """
    from footfall import dead_letters
    from footfall.cli.stores import opened
    from footfall.clock import utc_now

    fates: Counter[str] = Counter()
    problems = 0
    with opened(data_dir) as (settings, engine, _):
        with engine.connect() as connection:
            chosen = _chosen(connection, ids, all_, dead_letters.replayable)
            too_late = dead_letters.count(connection) - len(chosen) if all_ else 0
        for one in dead_letters.replay(engine, settings, chosen, utc_now()):
            fates.update(one.fates)
            problems += one.problem is not None
            if not all_ or one.problem:
                click.echo(_outcome(one))
    if all_:
        click.echo(_summary(fates))
        if too_late:
            click.echo(f"{too_late:,} came too late and cannot be replayed; `discard` lets them go")
    sys.exit(1 if problems else 0)


@command.command()
@some
@click.option("--all", "all_", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_dir_option
def discard(ids: tuple[int, ...], all_: bool, yes: bool, data_dir: Path) -> None:
    """Delete them for good. The ledger counts them as erased."""
    from redis.exceptions import RedisError

    from footfall import dead_letters
    from footfall.cli.stores import opened

    gone, is_hidden = 0, True
    with opened(data_dir) as (_, engine, redis):
        with engine.connect() as connection:
            chosen = _chosen(connection, ids, all_, dead_letters.ids)
        if chosen:
            ask(f"Delete {len(chosen):,} dead letters for good?", yes)
        for discarded in dead_letters.discard(engine, chosen):
            gone += discarded.letters
            try:
                dead_letters.hide(engine, redis, discarded)
            except RedisError:
                is_hidden = False
    click.echo(f"{gone:,} discarded")
    if not is_hidden:
        raise FootfallError(
            "Redis did not answer, so shown counts still hold them; lower these later with"
            " `footfall verify --lower-shown`"
        )


def _chosen(
    connection: "Connection",
    ids: tuple[int, ...],
    all_: bool,
    everything: Callable[["Connection"], Sequence[int]],
) -> Sequence[int]:
    """The letters that were asked for. Raises `FootfallError` when one does not exist."""
    from footfall import dead_letters

    if all_ == bool(ids):
        raise click.UsageError("name the dead letters by their ids, or all of them by --all")
    if all_:
        return everything(connection)
    missing = set(ids) - set(dead_letters.ids(connection))
    if missing:
        spoken = ", ".join(map(str, sorted(missing)))
        raise FootfallError(f"there is no dead letter {spoken}; see `footfall dead-letters list`")
    return ids


def _outcome(one: "Replayed") -> str:
    spoken = [
        SPOKEN[fate] if amount == 1 else f"{amount} of its events {SPOKEN[fate]}"
        for fate, amount in one.fates.items()
        if fate in SPOKEN
    ]
    if one.problem:
        spoken.append(f"cannot be stored, {one.problem}")
    return f"{one.id}: {'; '.join(spoken)}"


def _summary(fates: Counter[str]) -> str:
    if not fates:
        return "nothing to replay"
    names = {
        "row": "stored",
        "duplicate": "duplicates",
        "erased": "dropped",
        "dead_letter": "still dead letters",
    }
    return ", ".join(f"{fates[fate]:,} {name}" for fate, name in names.items() if fates[fate])


def _line(letter: "LetterRow") -> str:
    day = letter.day or "day unknown"
    names = {f"{each['entity_type']} {each['external_id']}" for each in _events(letter)}
    spoken = ", ".join(sorted(names)) or "unreadable"
    return (
        f"{letter.id}  {letter.created_at:%Y-%m-%d %H:%M}  {day}  {spoken}  {letter.reason}: {letter.detail}"
    )


def _as_json(letter: "LetterRow") -> dict[str, Any]:
    events = _events(letter)
    found = {
        "id": letter.id,
        "parked_at": letter.created_at.isoformat(),
        "day": str(letter.day) if letter.day else None,
        "reason": letter.reason,
        "detail": letter.detail,
        "events": events,
    }
    return found if events else {**found, "payload": bytes(letter.payload).decode(errors="replace")}


def _events(letter: "LetterRow") -> list[dict[str, Any]]:
    """What can be read of it; who viewed is left out."""
    from footfall import dead_letters
    from footfall.event import ViewEvent

    events = [one.event for one in dead_letters.events_of(letter)]
    return [
        {name: value for name, value in event._asdict().items() if name not in PRIVATE}
        for event in events
        if isinstance(event, ViewEvent)
    ]
