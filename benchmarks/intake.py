"""What a view costs from the request to the row: Footfall and the usual design under the same load.

    .venv/bin/python -m benchmarks.intake [--seconds 20] [--baseline-seconds 8] [--rounds 3] [--only ours]

In each round one after the other is started afresh with stores of its own, warmed up, and sent views by wrk
as fast as it answers them. CPU is that of all its processes from the first request until the last view is
written, idle ticks and rollups within that time included, wrk's excluded. Of the rounds the cheapest counts,
for both: whatever else the machine does only adds. Writes results/intake.json.
"""

import os
import statistics
import time
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import Any

import click

from benchmarks import machine, report, systems, traffic, wrk

WARM_UP_SECONDS = 3
NO_COST = ("refused", "broken connections", "ledger balanced", "CPU taken by others, %")  # not compared


@click.command()
@click.option("--seconds", type=int, default=20, show_default=True, help="Of load on Footfall, a round.")
@click.option(
    "--baseline-seconds", type=int, default=8, show_default=True, help="Its queue grows; this bounds it."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--connections", type=int, default=64, show_default=True)
@click.option("--only", type=click.Choice(["ours", "baseline"]), help="Measure one of the two.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=report.RESULTS / "intake.json", show_default=True
)
def main(
    seconds: int, baseline_seconds: int, rounds: int, connections: int, only: str | None, out: Path
) -> None:
    """Measure both, print a table."""
    wrk.require()
    about = machine.describe()
    lengths = {"ours": seconds, "baseline": baseline_seconds}
    names = [name for name in lengths if only in (None, name)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with systems.throwaway() as folder:
        requests = folder / "requests.txt"
        traffic.write_requests(requests)
        for number, name in product(range(rounds), names):
            with _started(name, folder / str(number)) as system:
                found[name].append(measured(system, requests, lengths[name], connections))
    cheapest = {name: _cheapest(its) for name, its in found.items()}
    document = {"machine": about, "connections": connections, "systems": cheapest}
    report.write(out, document)
    click.echo(report.table(rows(document)))


def measured(system: systems.System, requests: Path, seconds: int, connections: int) -> dict[str, Any]:
    """Load on a system that runs, and what it did with it."""
    wrk.run(system.url, requests, WARM_UP_SECONDS, connections)
    system.wait_until_drained()
    rows_before = system.rows()
    cpu_before = machine.cpu_seconds(system.groups)
    began, busy_before = time.monotonic(), machine.busy_seconds()
    with machine.sampled(lambda: machine.memory_mb(system.groups), 1.0) as memory:
        load = wrk.run(system.url, requests, seconds, connections)
        ended = time.monotonic()
        system.wait_until_drained()
        took, window = load.seconds + time.monotonic() - ended, time.monotonic() - began
        cpu, busy = machine.cpu_seconds(system.groups), machine.busy_seconds() - busy_before
    durable = system.rows() - rows_before
    others = busy - sum(cpu.values()) + sum(cpu_before.values()) - load.cpu_seconds
    per_1000 = {name: round((cpu[name] - cpu_before[name]) / durable * 1000, 4) for name in cpu}
    return {
        "load_seconds": load.seconds,
        "answered": load.answers,
        "refused": load.refused,
        "broken": load.broken,
        "durable": durable,
        "accepted_per_second": round(load.accepted / load.seconds),
        "durable_per_second": round(durable / took),
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "cpu_seconds_per_1000": round(sum(per_1000.values()), 4),
        "cpu_seconds_per_1000_by_part": per_1000,
        "wrk_cpu_seconds_per_1000": round(load.cpu_seconds / load.answers * 1000, 4),
        # of all cores: what else ran, which makes every figure here worse
        "others_cpu_percent": round(max(100 * others / window / (os.cpu_count() or 1), 0)),
        "memory_mb": round(statistics.fmean(sum(sample.values()) for sample in memory)),
        "memory_peak_mb": round(max(sum(sample.values()) for sample in memory)),
        "memory_peak_mb_by_part": {name: round(max(sample[name] for sample in memory)) for name in cpu},
        "bytes_per_event": round(system.table_bytes() / system.rows()),
        "waiting_at_the_end": system.waiting(),
        "balanced": system.balanced(),
    }


def _cheapest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    costs = [each["cpu_seconds_per_1000"] for each in rounds]
    return {**rounds[costs.index(min(costs))], "cpu_seconds_per_1000_of_rounds": costs}


def rows(document: dict[str, Any]) -> list[list[str]]:
    """The table: a line a figure, and by how many times ours is better where both are there."""
    found = document["systems"]
    names = list(found)
    lines = [["", *names, *(["better by"] if len(names) > 1 else [])]]
    parts = {part: None for one in found.values() for part in one["cpu_seconds_per_1000_by_part"]}
    figures: dict[str, tuple[str, ...]] = {
        "CPU s per 1,000 durable views": ("cpu_seconds_per_1000",),
        **{f"  {part}": ("cpu_seconds_per_1000_by_part", part) for part in parts},
        "durable views/s": ("durable_per_second",),
        "accepted views/s": ("accepted_per_second",),
        "p50, ms": ("p50_ms",),
        "p99, ms": ("p99_ms",),
        "memory, MB": ("memory_mb",),
        "  at most": ("memory_peak_mb",),
        "bytes per raw event": ("bytes_per_event",),
        "refused": ("refused",),
        "broken connections": ("broken",),
        "ledger balanced": ("balanced",),
        "CPU taken by others, %": ("others_cpu_percent",),
    }
    for label, where in figures.items():
        values = [report.at(found[name], *where) for name in names]
        line = [label, *map(report.shown, values)]
        if len(values) > 1:
            is_cost = label not in NO_COST
            line.append(report.ratio(*values, more_is_better=label.endswith("/s")) if is_cost else "")
        lines.append(line)
    return lines


def _started(name: str, folder: Path) -> AbstractContextManager[systems.System]:
    return systems.ours(folder) if name == "ours" else systems.baseline(folder)


if __name__ == "__main__":
    main()
