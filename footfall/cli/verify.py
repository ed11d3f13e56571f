"""`footfall verify`: the audit, now, and what it found for a person or for a script."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from footfall.cli import data_dir_option

if TYPE_CHECKING:
    from footfall.verify import Difference, Verdict

NAMES = {
    "daily row": "daily rows",
    "counter": "counters",
    "shown count": "shown counts",
    "ledger": "closed days of the ledger",
}
NOTHING = {"daily row": "no row", "counter": "no counter"}


@click.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option(
    "--lower-shown",
    is_flag=True,
    help="Lower shown counts that are above the counters. Visitors then see them fall.",
)
@data_dir_option
def command(as_json: bool, lower_shown: bool, data_dir: Path) -> None:
    """Check that everything stored says the same. Exit code 1 when it does not.

    Compares daily rows with the raw events they were computed from, counters with sealed and raw views,
    shown counts in Redis with counters, and the ledger's two sides. May be run while views come in; what
    is on its way is no difference. Shown counts that are behind are raised, nothing else is changed.
    """
    from footfall.cli.stores import opened
    from footfall.clock import utc_now
    from footfall.verify import audit

    with opened(data_dir) as (settings, engine, redis):
        verdict = audit(engine, redis, settings, utc_now(), lower_shown=lower_shown, tell=_tell)
    _tell("")
    click.echo(json.dumps(verdict.as_json(), indent=2) if as_json else _report(verdict))
    sys.exit(0 if verdict.ok else 1)


def _tell(step: str) -> None:
    """What is being looked at, in a line that the next one replaces."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{step and f'{step} ...'}", nl=False, err=True)


def _report(verdict: "Verdict") -> str:
    lines = ["looked at:"]
    for where, amount in verdict.looked_at.items():
        days = f" of {', '.join(map(str, verdict.days))}" if where == "daily row" and verdict.days else ""
        lines.append(f"  {amount:,} {NAMES[where]}{days}")
    if verdict.not_looked_at:
        lines += ["not looked at:", *(f"  {reason}" for reason in verdict.not_looked_at)]
    if verdict.ok:
        return "\n".join([*lines, click.style("no differences", fg="green")])
    noun = "difference" if verdict.found == 1 else "differences"
    lines.append(click.style(f"{verdict.found:,} {noun}:", fg="red"))
    lines += [f"  {_spoken(each)}" for each in verdict.differences]
    more = verdict.found - len(verdict.differences)
    return "\n".join([*lines, f"  and {more:,} more"] if more else lines)


def _spoken(difference: "Difference") -> str:
    day = f" on {difference.day}" if difference.day else ""
    name = f" of {difference.entity_type} {difference.entity_id}" if difference.entity_type else ""
    stored, recomputed = (
        NOTHING.get(difference.where, "none") if value is None else json.dumps(value)
        for value in (difference.stored, difference.recomputed)
    )
    return f"{difference.where}{name}{day}, {difference.figure}: stored {stored}, recomputed {recomputed}"
