"""A benchmark that fills tables by SQL of its own keeps up with the schema."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks import read


def test_reading_can_be_measured(tmp_path: Path) -> None:
    out = tmp_path / "read.json"
    result = CliRunner().invoke(read.main, ["--scale", "0.001", "--runs", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())["milliseconds"]
    assert found["site-wide, 30 days, 1,000,000 views today"]["median_ms"] > 0
