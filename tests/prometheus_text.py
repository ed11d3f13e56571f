"""Prometheus' text format 0.0.4, read as strictly as it is written down: whatever is not in order fails.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

HELP = re.compile(r"# HELP ([a-z_][a-z0-9_]*) (\S[^\n\\]*)")
TYPE = re.compile(r"# TYPE ([a-z_][a-z0-9_]*) (counter|gauge|histogram)")
SAMPLE = re.compile(r"([a-z_][a-z0-9_]*)(?:\{(.+)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?!$)|$)')
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")
SUFFIXES = {"_bucket", "_sum", "_count"}

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Family:
    """One metric: its samples by suffix and labels."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of /metrics."""

    text: str
    families: Mapping[str, Family]

    def value(self, name: str, suffix: str = "", **labels: str) -> float | None:
        """One sample's value; None when there is none with exactly these labels."""
        if name not in self.families:
            return None
        return self.families[name].samples.get((suffix, frozenset(labels.items())))

    def by(self, name: str, label: str) -> dict[str, float]:
        """{value of that label: value}, without samples of 0."""
        samples = self.families[name].samples
        return {dict(labels)[label]: value for (_, labels), value in samples.items() if value}


def parse(text: str) -> Scrape:
    """Read an answer. Raises AssertionError for what Prometheus or its conventions do not take."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.removesuffix("\n").split("\n"))
    for line in lines:
        if line.startswith("# HELP"):
            name, family = _head(line, next(lines))
            assert name not in families, f"{name} comes twice"
            families[name] = family
        else:
            _add(line, name, family)
    for name, family in families.items():
        _check(name, family)
    return Scrape(text, families)


def _head(help_line: str, type_line: str) -> tuple[str, Family]:
    about, kind = HELP.fullmatch(help_line), TYPE.fullmatch(type_line)
    assert about, help_line
    assert kind, type_line
    assert about[1] == kind[1]
    return about[1], Family(kind[2], about[2])


def _add(line: str, name: str, family: Family) -> None:
    found = SAMPLE.fullmatch(line)
    assert found, line
    suffix = found[1].removeprefix(name)
    assert found[1] == name + suffix, f"{line} stands under {name}"
    assert suffix in (SUFFIXES if family.kind == "histogram" else {""}), line
    labels = dict(_labels(found[2] or ""))
    assert NUMBER.fullmatch(found[3]), line
    key = (suffix, frozenset(labels.items()))
    assert key not in family.samples, f"{line} comes twice"
    family.samples[key] = float(found[3])


def _labels(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    names = set()
    while place < len(text):
        found = LABEL.match(text, place)
        assert found, text
        assert found[1] not in names, text
        names.add(found[1])
        yield found[1], re.sub(r"\\(.)", lambda escaped: {"n": "\n"}.get(escaped[1], escaped[1]), found[2])
        place = found.end()


def _check(name: str, family: Family) -> None:
    assert family.samples, f"{name} has no sample"
    assert name.startswith("footfall_")
    assert (family.kind == "counter") == name.endswith("_total"), name
    if family.kind != "gauge":
        assert all(value >= 0 for value in family.samples.values()), name
    if family.kind == "histogram":
        _check_histogram(family)


def _check_histogram(family: Family) -> None:
    buckets: dict[Labels, list[tuple[float, float]]] = {}
    for (suffix, labels), value in family.samples.items():
        if suffix == "_bucket":
            bound = float(dict(labels)["le"])
            buckets.setdefault(labels - {("le", dict(labels)["le"])}, []).append((bound, value))
    of_series = {labels for suffix, labels in family.samples if suffix == "_count"}
    assert set(buckets) == of_series == {labels for suffix, labels in family.samples if suffix == "_sum"}
    for labels, series in buckets.items():
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(series)), "bounds and amounts rise"
        assert series[-1] == (float("inf"), family.samples["_count", labels])
