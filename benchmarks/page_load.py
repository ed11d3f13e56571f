"""Whether a page loads more slowly with the script on it: the same page with and without, in turn.

    .venv/bin/python -m benchmarks.page_load [--loads 60]

Needs Debian's Chromium. Writes results/page_load.json beside it.
"""

import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from tests.browser.chromium import Browser, browser
from tests.browser.site import SCRIPT, Site, serving
from tests.functional.instance import Instance
from tests.waiting import wait_until

RESULTS = Path(__file__).parent / "results" / "page_load.json"
# A page that has something to do: a thousand paragraphs, and a script of its own that waits for them
PARAGRAPHS = "<script defer src='data:text/javascript,document.body.append(%22ready%22)'></script>" + (
    "<style>p{margin:1px}</style>"
)
TIMES = """
    const [page] = performance.getEntriesByType('navigation');
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    return [page.domContentLoadedEventEnd, page.loadEventEnd, paint ? paint.startTime : 0];
"""
NAMES = ("DOMContentLoaded", "load", "first contentful paint")


@click.command()
@click.option("--loads", type=int, default=60, show_default=True, help="Of each page.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(loads: int, out: Path) -> None:
    """Load a page with and without the script in turn, and compare."""
    with tempfile.TemporaryDirectory(prefix="footfall-bench-") as name:
        folder = Path(name)
        with (
            Instance(folder / "data").running() as instance,
            serving(instance.url) as site,
            browser(instance.url, folder / "profile") as tab,
        ):
            found = _alternate(tab, site, loads)
    document = {"loads": loads, "cores": os.cpu_count(), "milliseconds": found}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n")
    click.echo(f"{'ms, median of ' + str(loads):<28}{'without':>9}{'with':>9}{'ratio':>8}")
    for what, figures in found.items():
        ratio = figures["with"] / figures["without"]
        click.echo(f"{what:<28}{figures['without']:>9.1f}{figures['with']:>9.1f}{ratio:>8.2f}")


def _alternate(tab: Browser, site: Site, loads: int) -> dict[str, dict[str, float]]:
    heads = {"without": PARAGRAPHS, "with": PARAGRAPHS + SCRIPT.format(attributes="")}
    times: dict[str, list[list[float]]] = {name: [] for name in heads}
    for load in range(loads + 2):
        for name, head in heads.items():
            site.head = head
            tab.driver.get(f"{site.url('localhost')}/page-{load}")
            measured = _times(tab)
            if load >= 2:  # what is compiled and connected once
                times[name].append(measured)
    return {
        what: {name: round(statistics.median(one[n] for one in rows), 2) for name, rows in times.items()}
        for n, what in enumerate(NAMES)
    }


def _times(tab: Browser) -> list[float]:
    """Milliseconds since the navigation began."""
    found: list[Any] = []

    def is_loaded() -> bool:
        found[:] = tab.script(TIMES)
        return found[1] > 0 and found[2] > 0

    wait_until(is_loaded, "the page to be loaded")
    return [float(value) for value in found]


if __name__ == "__main__":
    main()
