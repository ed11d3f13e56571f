"""Whether memory stays flat: two million views through one instance, and what its processes hold meanwhile.

    .venv/bin/python -m benchmarks.memory [--views 2000000] [--seconds 900]

Writes results/memory.json: samples every few seconds, and for each part the mean of the first and the last
quarter of the views, and the slope of a straight line through the second half.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import text

from benchmarks import machine, report, systems, traffic, wrk

VIEWS = 2_000_000
SLICE_SECONDS = 20
SAMPLE_SECONDS = 5.0
AMOUNT = "views"  # beside the parts, in a sample


@click.command()
@click.option("--views", type=int, default=VIEWS, show_default=True)
@click.option("--seconds", type=int, default=900, show_default=True, help="Then it ends, with fewer views.")
@click.option("--connections", type=int, default=64, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=report.RESULTS / "memory.json", show_default=True
)
def main(views: int, seconds: int, connections: int, out: Path) -> None:
    """Send views until there are enough, print a table."""
    wrk.require()
    about = machine.describe()
    with systems.throwaway() as folder:
        requests = folder / "requests.txt"
        traffic.write_requests(requests)
        with systems.ours(folder) as system:
            document = {"machine": about, **_watched(system, requests, views, seconds, connections)}
    report.write(out, document)
    click.echo(report.table(rows(document)))


def rows(document: dict[str, Any]) -> list[list[str]]:
    """The table: a line a part."""
    lines = [
        [f"memory, MB, over {document['durable']:,} views", "first quarter", "last", "MB per million, later"]
    ]
    for part, its in document["parts"].items():
        figures = (its["first_quarter_mb"], its["last_quarter_mb"], its["mb_per_million_views"])
        lines.append([f"  {part}", *(f"{figure:.1f}" for figure in figures)])
    lines.append(["waiting in the stream at the end", str(document["waiting_at_the_end"]), "", ""])
    return lines


def trend(amounts: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Means of the first and last quarter of the way, and the slope by a million in the second half: in the
    first one, caches fill.
    """
    most = max(amounts)
    pairs = list(zip(amounts, values, strict=True))
    late = [pair for pair in pairs if pair[0] >= most / 2]
    line = statistics.linear_regression(*zip(*late, strict=True)) if len({at for at, _ in late}) > 1 else None
    return {
        "first_quarter_mb": round(statistics.fmean(value for at, value in pairs if at <= most / 4), 2),
        "last_quarter_mb": round(statistics.fmean(value for at, value in pairs if at >= most * 3 / 4), 2),
        "mb_per_million_views": round(1e6 * line.slope, 3) if line else 0.0,
    }


def _watched(
    system: systems.System, requests: Path, views: int, seconds: int, connections: int
) -> dict[str, Any]:
    wrk.run(system.url, requests, SLICE_SECONDS // 4, connections)
    system.wait_until_drained()
    before, answered, refused = system.rows(), 0, 0
    deadline = time.monotonic() + seconds
    with machine.sampled(lambda: _sample(system, before), SAMPLE_SECONDS) as samples:
        while answered < views and time.monotonic() < deadline:
            load = wrk.run(system.url, requests, SLICE_SECONDS, connections)
            answered, refused = answered + load.accepted, refused + load.refused + load.broken
        system.wait_until_drained()
    amounts = [sample[AMOUNT] for sample in samples]
    return {
        "answered": answered,
        "refused_or_broken": refused,
        "durable": system.rows() - before,
        "waiting_at_the_end": system.waiting(),
        "balanced": system.balanced(),
        "parts": {part: trend(amounts, [sample[part] for sample in samples]) for part in system.groups},
        "samples": [{name: round(value, 1) for name, value in sample.items()} for sample in samples],
    }


def _sample(system: systems.System, before: int) -> dict[str, float]:
    with system.engine.connect() as connection:
        # every view of this load is one of a counter's; counting rows would be work that grows
        written = connection.scalar(text("SELECT sum(count) FROM view_counters")) or 0
    return {AMOUNT: float(written) - before, **machine.memory_mb(system.groups)}


if __name__ == "__main__":
    main()
