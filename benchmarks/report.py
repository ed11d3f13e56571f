"""How results are kept and shown: JSON files, and tables of text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(file: Path, document: dict[str, Any]) -> None:
    """Keep a result."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n")


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text, all but the first to the right."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def at(document: dict[str, Any], *names: str) -> Any:
    """What is found along `names`; None when it is not there."""
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def shown(value: Any) -> str:
    """A figure with three digits or more."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"


def ratio(ours: Any, other: Any, *, more_is_better: bool = False) -> str:
    """How many times better ours is: above 1 is better, whatever is measured."""
    if not all(
        isinstance(value, int | float) and not isinstance(value, bool) and value for value in (ours, other)
    ):
        return ""
    return f"{ours / other if more_is_better else other / ours:.3g} x"
