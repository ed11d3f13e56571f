"""What a rollup costs, by the size of the day and by how many pages it has.

    .venv/bin/python -m benchmarks.roll_up [--largest] [--quick]

Days come from the real writer. Each is rolled up as a whole with all breakdowns and nothing there yet, five
times, of which the fastest counts: whatever else the machine does only adds. Then 10,000 events that came
after are added, as every minute does. Writes results/roll_up.json.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from sqlalchemy import text

from benchmarks import fill, machine, report, systems
from benchmarks.write import ENTITIES, EVENTS
from footfall import rollup

PAGES = 5_000
DAY = 200_000  # events, while the number of entities grows
TAIL = 10_000  # what comes in a busy minute
RUNS = 5


@click.command()
@click.option("--quick", is_flag=True, help="To 100,000 events and 10,000 entities only.")
@click.option("--largest", is_flag=True, help="To 10 million events: ten minutes and gigabytes.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=report.RESULTS / "roll_up.json", show_default=True
)
def main(quick: bool, largest: bool, out: Path) -> None:
    """Fill days, roll them up, print a table."""
    about = machine.describe()
    now = datetime.now(UTC)
    sizes = EVENTS[:2] if quick else EVENTS if largest else EVENTS[:3]
    found: dict[str, list[dict[str, Any]]] = {"by_events": [], "by_entities": []}
    with systems.throwaway() as folder, systems.stores(folder) as stores:
        day, before = now.date(), 0
        for seed, size in enumerate(sizes):
            fill.write(stores, day, size - before - TAIL * (seed > 0), PAGES, seed)
            found["by_events"].append(
                {"events": size, "entities": PAGES, **_costs(stores, day, now, PAGES, seed)}
            )
            before = size
        for back, entities in enumerate(ENTITIES[:3] if quick else ENTITIES, 1):
            day = now.date() - timedelta(days=back)
            events = DAY // 2 if quick else DAY
            fill.write(stores, day, events, entities)
            costs = _costs(stores, day, now, entities, back)
            found["by_entities"].append({"events": events, "entities": entities, **costs})
    report.write(out, {"machine": about, "tail": TAIL, **found})
    click.echo(report.table(rows(found)))


def rows(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """The table: a line a day."""
    lines = [["rollup", "events", "entities", "events/s", "s", f"s for {TAIL:,} more"]]
    for line in (*found["by_events"], *found["by_entities"]):
        names = ("events", "entities", "events_per_second", "seconds", "tail_seconds")
        lines.append(["", *(report.shown(line[name]) for name in names)])
    return lines


def _costs(stores: systems.Stores, day: date, now: datetime, entities: int, seed: int) -> dict[str, Any]:
    """Roll `day` up as a whole, then forward by some more events."""
    with stores.engine.connect() as connection:
        events = connection.scalar(text("SELECT count(*) FROM view_events WHERE day = :day"), {"day": day})
    runs = []
    for _ in range(RUNS):
        _forget(stores, day)
        _vacuum(stores)
        runs.append(_timed(stores, partial(rollup.roll_up, stores.engine, day, now, keep_visitors=True)))
    whole = min(runs, key=lambda run: run["seconds"])
    _vacuum(stores)
    fill.write(stores, day, TAIL, entities, 100 + seed)
    more = _timed(stores, partial(rollup.roll_forward, stores.engine, day, now))
    return {
        "events_per_second": round(events / whole["seconds"]),
        **whole,
        "seconds_of_runs": [run["seconds"] for run in runs],
        **{f"tail_{name}": value for name, value in more.items()},
    }


def _timed(stores: systems.Stores, work: Callable[[], object]) -> dict[str, float]:
    before, began = machine.cpu_seconds(stores.groups), time.perf_counter()
    work()
    took, after = time.perf_counter() - began, machine.cpu_seconds(stores.groups)
    cpu = sum(after[name] - before[name] for name in after)
    return {"seconds": round(took, 3), "cpu_seconds": round(cpu, 3)}


def _forget(stores: systems.Stores, day: date) -> None:
    with stores.engine.begin() as connection:
        for table in ("daily_stats", "seen_runs", "seen_visitors", "rollup_days"):
            connection.execute(text(f"DELETE FROM {table} WHERE day = :day"), {"day": day})  # noqa: S608


def _vacuum(stores: systems.Stores) -> None:
    # as autovacuum would have done by then
    with stores.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE view_events, daily_stats, seen_visitors, seen_runs"))


if __name__ == "__main__":
    main()
