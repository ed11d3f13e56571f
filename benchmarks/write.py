"""What the writer costs, alone: from the queue into rows, by the size of the day and by its pages.

    .venv/bin/python -m benchmarks.write [--largest] [--quick]

One process writes what is queued, as a worker's does; CPU is its own and the stores', of writing only. The
last events of each step are measured, in three parts of which the fastest counts, since whatever else the
machine does only adds: what it costs to write into a day of that size. Writes results/write.json.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from benchmarks import fill, machine, report, systems
from worker.tasks import spare_the_garbage_collector

EVENTS = (10_000, 100_000, 1_000_000, 10_000_000)
ENTITIES = (100, 1_000, 10_000, 100_000)
PAGES = 5_000  # while the number of events grows
STEP = 100_000  # events that are measured together
PARTS = 3


@click.command()
@click.option("--quick", is_flag=True, help="To 100,000 events and 10,000 entities only.")
@click.option("--largest", is_flag=True, help="To 10 million events: several minutes and gigabytes.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=report.RESULTS / "write.json", show_default=True
)
def main(quick: bool, largest: bool, out: Path) -> None:
    """Fill days, print a table."""
    about = machine.describe()
    spare_the_garbage_collector()
    today = datetime.now(UTC).date()
    sizes = EVENTS[:2] if quick else EVENTS if largest else EVENTS[:3]
    found: dict[str, list[dict[str, Any]]] = {"by_events": [], "by_entities": []}
    with systems.throwaway() as folder, systems.stores(folder) as stores:
        fill.write(stores, today - timedelta(days=6), 1_000, 100)  # what is compiled and connected once
        before = 0
        for seed, size in enumerate(sizes):
            # the last part of the way tells about a day of that size
            last = min(STEP, (size - before) // (PARTS + 1))
            fill.write(stores, today, size - before - PARTS * last, PAGES, seed)
            parts = [fill.write(stores, today, last, PAGES, -PARTS * seed - n) for n in range(1, PARTS + 1)]
            found["by_events"].append(_line(parts, last, size))
            before = size
        for back, entities in enumerate(ENTITIES[:3] if quick else ENTITIES, 1):
            parts = [fill.write(stores, today - timedelta(days=back), STEP, entities)]
            found["by_entities"].append({"entities": entities, **_line(parts, STEP, STEP)})
    report.write(out, {"machine": about, **found})
    click.echo(report.table(rows(found)))


def rows(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """The table: a line a step."""
    lines = [["writer", "events in the day", "entities", "events/s", "CPU s per 1,000"]]
    for line in (*found["by_events"], *found["by_entities"]):
        cells = (line["events"], line.get("entities", PAGES), line["events_per_second"])
        lines.append(["", *map(report.shown, cells), report.shown(line["cpu_seconds_per_1000"])])
    return lines


def _line(parts_spent: list[dict[str, float]], events: int, size: int) -> dict[str, Any]:
    """What the fastest of some parts cost, each of that many `events`, in a day of that `size`."""
    spent = min(parts_spent, key=lambda spent: spent["seconds"])
    parts = {name: round(1000 * cpu / events, 5) for name, cpu in spent.items() if name != "seconds"}
    return {
        "events": size,
        "events_per_second": round(events / spent["seconds"]),
        "seconds_of_parts": [round(spent["seconds"], 3) for spent in parts_spent],
        "cpu_seconds_per_1000": round(sum(parts.values()), 5),
        "cpu_seconds_per_1000_by_part": parts,
    }


if __name__ == "__main__":
    main()
