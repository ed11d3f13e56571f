"""All benchmarks in one run: `make bench`, or `.venv/bin/python -m benchmarks [--quick] [--largest]`.

About half an hour; with `--quick` about five minutes of smaller ones, whose results and charts go to
results/quick. Each also runs alone: `python -m benchmarks.intake --help`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import intake, machine, memory, plots, read, report, roll_up, write, wrk
from benchmarks.systems import ROOT
from footfall.errors import FootfallError

CHARTS = ROOT / "docs"
# What runs, with its arguments in a whole and in a quick run
STEPS: dict[str, tuple[click.Command, list[str], list[str]]] = {
    "intake": (intake.main, [], ["--seconds", "15", "--rounds", "1"]),
    "write": (write.main, [], ["--quick"]),
    "roll_up": (roll_up.main, [], ["--quick"]),
    "memory": (memory.main, [], ["--views", "100000", "--seconds", "60"]),
    "read": (read.main, [], ["--scale", "0.02", "--runs", "5"]),
}
GROWING = ("write", "roll_up")  # which know --largest
READ_SHOWN = ("entity (most viewed), 30 days", "site-wide, 30 days", "top pages, day")


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Smaller, in five minutes.")
@click.option("--largest", is_flag=True, help="Also days of 10 million events; half an hour more.")
@click.option(
    "--only", type=click.Choice(list(STEPS)), multiple=True, help="Run these; the others as they were."
)
@click.option("--results", type=click.Path(path_type=Path), help="Where the results go.")
@click.option("--charts", type=click.Path(path_type=Path), help="Where the charts go.")
def main(
    quick: bool, largest: bool, only: tuple[str, ...], results: Path | None, charts: Path | None
) -> None:
    """Run all, print one table, draw."""
    try:
        wrk.require()
    except FootfallError as error:
        raise click.ClickException(str(error)) from error
    results = results or (report.RESULTS / "quick" if quick else report.RESULTS)
    charts = charts or (results if quick else CHARTS)
    results.mkdir(parents=True, exist_ok=True)
    for name, (command, whole, small) in STEPS.items():
        if not only or name in only:
            click.secho(f"\n{name}", bold=True)
            more = ["--largest"] if largest and name in GROWING else []
            out = ["--out", str(results / f"{name}.json")]
            command.main([*(small if quick else whole), *more, *out], standalone_mode=False)
    found = {
        name: json.loads(file.read_text()) for name in STEPS if (file := results / f"{name}.json").exists()
    }
    for name, chart in drawn(found).items():
        (charts / f"measured-{name}.svg").write_text(chart)
    click.echo("\n" + summary(found))


def summary(found: dict[str, dict[str, Any]]) -> str:
    """Everything on one page, with the machine named."""
    about = found["intake"]["machine"] if "intake" in found else machine.describe()
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB, Linux {about['kernel']}, "
        f"Python {about['python']}; {about['at']}, load before {about['load_before'][0]}"
    ]
    tables = {
        "intake": intake.rows,
        "write": write.rows,
        "roll_up": roll_up.rows,
        "memory": memory.rows,
        "read": _read_rows,
    }
    for name, rows in tables.items():
        if name in found:
            lines += ["", report.table(rows(found[name]))]
    return "\n".join(lines)


def drawn(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{name: chart} of what was measured."""
    charts = {}
    if "intake" in found:
        parts = {
            name: its["cpu_seconds_per_1000_by_part"] for name, its in found["intake"]["systems"].items()
        }
        parts = {
            name: {part: cpu for part, cpu in its.items() if cpu >= 0.0005} for name, its in parts.items()
        }
        charts["cpu"] = plots.bars("CPU per 1,000 durable views, all processes", "seconds", parts)
    if "write" in found:
        charts |= _growth("write", "Writing: CPU per 1,000 events", found["write"], "cpu_seconds_per_1000")
    if "roll_up" in found:
        charts |= _growth("rollup", "Rolling a day up", found["roll_up"], "seconds")
    if "memory" in found:
        samples = found["memory"]["samples"]
        series = {
            part: [(sample["views"], sample[part]) for sample in samples] for part in found["memory"]["parts"]
        }
        charts["memory"] = plots.lines("Memory of one instance under load", "views written", "MB", series)
    return charts


def _growth(name: str, what: str, its: dict[str, Any], figure: str) -> dict[str, str]:
    """Two charts: as the day grows, and as its entities become more. What is per event is flat at best."""
    shown = {"as a whole": figure}
    if "tail" in its:
        shown[f"only {its['tail']:,} more"] = f"tail_{figure}"
    days = f"days of {its['by_entities'][0]['events']:,} events"
    wanted = {"events": ("events in the day", what), "entities": ("entities", f"{what}, {days}")}
    charts = {}
    for key, (label, title) in wanted.items():
        series = {line: [(at[key], at[field]) for at in its[f"by_{key}"]] for line, field in shown.items()}
        charts[f"{name}-{key}"] = plots.lines(
            title, label, "seconds", series, log_x=True, log_y="tail" in its
        )
    return charts


def _read_rows(document: dict[str, Any]) -> list[list[str]]:
    found = document["milliseconds"]
    lines = [["reading, uncached", "median ms"]]
    for name, figures in found.items():
        if name.startswith(READ_SHOWN) and "never" not in name:
            lines.append([f"  {name}", f"{figures['median_ms']:.1f}"])
    return lines


if __name__ == "__main__":
    sys.exit(main())
