"""The load: Debian's wrk with load.lua, and what it says at the end."""

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from footfall.errors import FootfallError

SCRIPT = Path(__file__).parent / "load.lua"
RESULT = "RESULT "


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw. An answer is any status; one in `refused` was none of 2xx or 3xx."""

    seconds: float
    answers: int
    refused: int
    broken: int  # connections that failed or timed out
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float = 0.0  # of wrk itself, which shares the machine

    @property
    def accepted(self) -> int:
        """How many views were answered with 2xx."""
        return self.answers - self.refused


def require() -> None:
    """Raise `FootfallError` when there is no wrk."""
    if shutil.which("wrk") is None:
        raise FootfallError("the load comes from wrk, which is not installed: apt install wrk")


def run(url: str, requests: Path, seconds: int, connections: int = 64, threads: int = 1) -> Load:
    """Send the requests of that file for so long, as fast as they are answered."""
    require()
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(SCRIPT),
        url,
    ]
    before = _children_cpu()
    done = subprocess.run(
        command,
        env={**os.environ, "FOOTFALL_BENCH_REQUESTS": str(requests)},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise FootfallError(f"wrk ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return parse(done.stdout, _children_cpu() - before)


def parse(output: str, cpu_seconds: float = 0.0) -> Load:
    """Read the line that load.lua prints. Raises `FootfallError` when there is none."""
    for line in output.splitlines():
        if line.startswith(RESULT):
            return Load(**json.loads(line.removeprefix(RESULT)), cpu_seconds=round(cpu_seconds, 2))
    raise FootfallError(f"wrk said nothing of its result:\n{output}")


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
