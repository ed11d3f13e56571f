"""What the writer costs, alone: from the queue into rows, by the size of the day and by its pages.

    .venv/bin/python -m benchmarks.write [--largest] [--quick]

One process writes what is queued, as a worker's does; CPU is its own and the stores', of writing only. The
last events of each step are measured: what it costs to write into a day of that size. Writes
results/write.json.
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
STEP = 100_000  # events, while the number of entities grows


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
            # the last tenth of the way tells about a day of that size
            last = min(STEP, (size - before) // 2)
            fill.write(stores, today, size - before - last, PAGES, seed)
            found["by_events"].append(_line(fill.write(stores, today, last, PAGES, -seed - 1), last, size))
            before = size
        for back, entities in enumerate(ENTITIES[:3] if quick else ENTITIES, 1):
            spent = fill.write(stores, today - timedelta(days=back), STEP, entities)
            found["by_entities"].append({"entities": entities, **_line(spent, STEP, STEP)})
    report.write(out, {"machine": about, **found})
    click.echo(report.table(rows(found)))


def rows(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """The table: a line a step."""
    lines = [["writer", "events in the day", "entities", "events/s", "CPU s per 1,000"]]
    for line in (*found["by_events"], *found["by_entities"]):
        cells = (line["events"], line.get("entities", PAGES), line["events_per_second"])
        lines.append(["", *map(report.shown, cells), report.shown(line["cpu_seconds_per_1000"])])
    return lines


def _line(spent: dict[str, float], events: int, size: int) -> dict[str, Any]:
    parts = {name: round(1000 * cpu / events, 5) for name, cpu in spent.items() if name != "seconds"}
    return {
        "events": size,
        "events_per_second": round(events / spent["seconds"]),
        "cpu_seconds_per_1000": round(sum(parts.values()), 5),
        "cpu_seconds_per_1000_by_part": parts,
    }


if __name__ == "__main__":
    main()
