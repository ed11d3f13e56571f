"""What lies in deploy/ asks for what /metrics says; every alert fires, and has its entry in the runbook.

The files are read as text: no parser of YAML is among the dependencies, and they are written plainly enough.
Where Prometheus' own promtool is installed (Debian: prometheus), it says whether rules fire when they should.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from api.parts import of
from footfall import metrics
from footfall.cli import main
from footfall.doctor import examination
from tests.integration.api import bearer
from tests.integration.content import Open
from tests.integration.everything import site_with_everything
from tests.prometheus_text import Family, Scrape, parse

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = (ROOT / "deploy" / "alerts.yml").read_text()
CONFIG = (ROOT / "deploy" / "prometheus.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
OF_ALERTS, OF_CHECKS = RUNBOOK.split("\n# What the doctor finds\n")

# A value that needs no quotes: it begins with none of YAML's signs and holds neither ": " nor " #"
PLAIN = r"(?![-?:,\[\]{}#&*!|>'\"%@`])(?:(?!: | #).)*[^:\s]"
QUOTED = r'"(?:[^"\\])*"'
LINES = (
    r" *#.*|",
    r"groups:",
    r"  - name: [a-z-]+",
    r"    rules:",
    r"      - alert: Footfall[A-Za-z]+",
    rf"        expr: {PLAIN}",
    r"        for: \d+[mh]",
    r"        labels:",
    r"          severity: (critical|warning)",
    r"        annotations:",
    rf"          summary: ({PLAIN}|{QUOTED})",
    r"          runbook: docs/runbook\.md#[a-z]+",
)
NAME = re.compile(r"\b(footfall_\w+?)(_bucket|_sum|_count)?\b(?!\w)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=|!=|=~|!~)"([^"]*)"')


def alerts() -> dict[str, dict[str, str]]:
    """{alert: {"expr", "severity", "summary", "runbook", perhaps "for"}}"""
    found = {}
    for block in re.split(r"^      - alert: ", ALERTS, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition("\n")
        found[name] = dict(re.findall(r"^ +(expr|for|severity|summary|runbook): (.+)$", rest, re.MULTILINE))
    return found


def sections(text: str) -> dict[str, str]:
    """{title of a section: its text}"""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def panels() -> Iterator[dict[str, Any]]:
    yield from DASHBOARD["panels"]


def expressions() -> list[tuple[str, str]]:
    """(where, expression) of all rules and all panels."""
    of_panels = [
        (panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])
    ]
    return [*((name, alert["expr"]) for name, alert in alerts().items()), *of_panels]


@pytest.fixture
def scrape(open_site: Open, tmp_path: Path, clock: object) -> Scrape:
    site = site_with_everything(open_site, tmp_path)
    of(site.client.application).traffic.flush()
    return parse(site.client.get("/metrics", headers=bearer(site.settings, "moderator")).text)


def test_rules_and_panels_ask_for_what_is_exported(scrape: Scrape) -> None:
    asked = 0
    for where, expression in expressions():
        assert "footfall_" in expression, where
        for name, suffix, matchers in NAME.findall(expression):
            assert name in scrape.families, f"{where}: {name} is not exported"
            family = scrape.families[name]
            assert suffix in {found for found, _ in family.samples}, f"{where}: {name}{suffix}"
            for label, operator, value in MATCHER.findall(matchers):
                assert has(family, label, operator, value), f"{where}: {name}{{{label}{operator}{value}}}"
            asked += 1
    assert asked > 60


def has(family: Family, label: str, operator: str, value: str) -> bool:
    """Whether there is what the matcher looks for, or leaves out."""
    values = {dict(labels).get(label, "") for _, labels in family.samples}
    if label == "source":
        return value in {"header", "file", "none"}  # one of them at a time
    if operator in {"=", "!="}:
        return value in values
    return all(any(re.fullmatch(one, found) for found in values) for one in value.split("|"))


def test_labels_that_are_shown_or_summed_by_exist(scrape: Scrape) -> None:
    for where, expression in expressions():
        summed = {word.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for word in by.split(",")}
        assert summed <= labels_of(scrape, expression), where
    for name, alert in alerts().items():
        assert set(re.findall(r"\$labels\.(\w+)", alert["summary"])) <= labels_of(scrape, alert["expr"]), name
    for panel in panels():
        for target in panel.get("targets", []):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= labels_of(scrape, target["expr"]), panel["title"]


def labels_of(scrape: Scrape, expression: str) -> set[str]:
    """The labels of all that an expression asks for."""
    families = [scrape.families[name] for name, _, _ in NAME.findall(expression)]
    return {label for family in families for _, labels in family.samples for label, _ in labels}


def test_what_is_exported_is_shown_or_watched() -> None:
    asked = {name for _, expression in expressions() for name, _, _ in NAME.findall(expression)}
    assert asked == set(metrics.METRICS)


def test_the_rules_are_written_plainly_and_completely() -> None:
    for number, line in enumerate(ALERTS.splitlines(), 1):
        assert any(re.fullmatch(pattern, line) for pattern in LINES), f"alerts.yml:{number}: {line}"
    assert len(alerts()) == ALERTS.count("- alert:") == len(set(re.findall(r"alert: (\w+)", ALERTS)))
    for name, alert in alerts().items():
        assert set(alert) - {"for"} == {"expr", "severity", "summary", "runbook"}, name
        assert alert["expr"].count("(") == alert["expr"].count(")"), name


def test_every_alert_has_an_entry_in_the_runbook_and_no_entry_is_left_over() -> None:
    entries = sections(OF_ALERTS)
    assert list(entries) == list(alerts())
    for name, alert in alerts().items():
        assert alert["runbook"] == f"docs/runbook.md#{name.lower()}"
    for name, entry in entries.items():
        assert parts_of(name, entry) == ["Means", "At risk", "Do"], name


def test_every_check_of_the_doctor_has_an_entry_in_the_runbook_and_no_entry_is_left_over() -> None:
    entries = sections(OF_CHECKS)
    # what cannot even be used is found before any check is done
    assert list(entries) == ["settings", *(check.name for check in examination.CHECKS)]
    for name, entry in entries.items():
        assert parts_of(name, entry) == ["Means", "Do"], name


def parts_of(name: str, entry: str) -> list[str]:
    """The paragraphs' names. An entry has a command, and refers to alerts that there are."""
    assert re.search(r"^    \S", entry, re.MULTILINE), f"{name}: no command"
    assert set(re.findall(r"\bFootfall[A-Z]\w+", entry)) <= set(alerts()), name
    return re.findall(r"^\*\*(.+?)\.\*\* \S", entry, re.MULTILINE)


def test_the_commands_of_the_runbook_exist() -> None:
    context = click.Context(main)
    used = re.findall(r"(?:^    |\$\()footfall ([^)\n]+)", RUNBOOK, re.MULTILINE)
    assert len(used) >= 5
    for words in (line.split() for line in used):
        command: click.Command | None = main
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert command is not None, words
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
    for path in re.findall(r"deploy/[\w.-]+", RUNBOOK + (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists()


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert {source["uid"] for source in sources} == {"${datasource}"}
            assert panel["targets"]
    (variable,) = DASHBOARD["templating"]["list"]
    assert [variable[key] for key in ("name", "type", "query")] == ["datasource", "datasource", "prometheus"]


def test_the_example_scrapes_what_is_there() -> None:
    assert "  - alerts.yml" in CONFIG
    assert "metrics_path" not in CONFIG  # /metrics is what Prometheus asks for by itself
    assert re.findall(r"targets: \[(.*)\]", CONFIG) == ['"127.0.0.1:8000"']
    assert "FOOTFALL_METRICS_TOKEN" in CONFIG


# Whether they fire, by promtool: in a healthy day none, and each by what it is for

MINUTES = 27 * 60  # for those that look back a day; the others need no more than:
FEW_MINUTES = 3 * 60
LOOK_BACK = {"FootfallNoViews", "FootfallRetentionLate"}
NOW = f"0+60x{MINUTES}"  # a moment that is always now: promtool's clock begins at 0


def still(value: float) -> str:
    return f"{value}+0x{MINUTES}"


def rate(a_minute: float) -> str:
    return f"0+{a_minute}x{MINUTES}"


TRACKED = 'kind="tracking",method="POST",endpoint="/api/track/page-view"'
REFUSED = 'footfall_refusals_total{reason="invalid"}'
HEALTHY = {
    "footfall_build_info": still(1),
    "footfall_redis_enabled": still(1),
    'footfall_up{store="redis"}': still(1),
    'footfall_up{store="postgresql"}': still(1),
    'footfall_scrape_problems{store="postgresql"}': still(0),
    f'footfall_requests_total{{{TRACKED},status="204"}}': rate(60),
    f'footfall_requests_total{{{TRACKED},status="503"}}': still(0),
    f'footfall_request_duration_seconds_bucket{{{TRACKED},le="0.01"}}': rate(60),
    f'footfall_request_duration_seconds_bucket{{{TRACKED},le="1.0"}}': rate(60),
    f'footfall_request_duration_seconds_bucket{{{TRACKED},le="+Inf"}}': rate(60),
    REFUSED: rate(1),
    'footfall_refusals_total{reason="unavailable"}': still(0),
    'footfall_events_accepted_total{way="redis"}': rate(60),
    'footfall_events_accepted_total{way="postgresql"}': still(5),
    'footfall_events_dead_letters_total{way="redis"}': still(3),
    'footfall_dead_letters{reason="refused"}': still(3),
    # a busy queue, empty now and then
    "footfall_queue_events": " ".join(["0 40 90"] * (MINUTES // 3)),
    "footfall_queue_entries": " ".join(["0 40 50"] * (MINUTES // 3)),
    "footfall_queue_limit_entries": still(1_000_000),
    "footfall_queue_oldest_age_seconds": still(0.5),
    # a day that events still come to, looked at in the moment
    "footfall_ledger_unbalanced": " ".join(["0 1 0"] * (MINUTES // 3)),
    "footfall_redis_memory_used_bytes": still(100),
    "footfall_redis_memory_limit_bytes": still(500),
    "footfall_redis_durable": still(1),
    "footfall_schema_ok": still(1),
    "footfall_rollups_waiting": still(0),
    "footfall_rollup_last_timestamp_seconds": NOW,
    "footfall_partitions_overdue": still(0),
    "footfall_salts_overdue": still(0),
    "footfall_country_problem": still(0),
    'footfall_country_source_info{source="file"}': still(1),
    'footfall_country_lookups_total{result="known"}': rate(50),
    'footfall_country_lookups_total{result="unknown"}': rate(10),
    "footfall_country_file_built_timestamp_seconds": still(0),
}
NO_COUNTRIES = {
    'footfall_country_lookups_total{result="known"}': still(0),
    'footfall_country_lookups_total{result="unknown"}': rate(60),
}
NO_SOURCE = {
    **NO_COUNTRIES,
    'footfall_country_source_info{source="file"}': "",
    'footfall_country_source_info{source="none"}': still(1),
}
WITHOUT_REDIS = {
    'footfall_events_accepted_total{way="postgresql"}': rate(60),
    "footfall_redis_enabled": still(0),
}
SILENCE = f"0+60x{MINUTES - 120} {(MINUTES - 120) * 60}+0x119"
CASES: list[tuple[str | None, dict[str, str]]] = [
    (None, {}),
    (None, {"footfall_redis_memory_limit_bytes": ""}),  # no limit
    (None, WITHOUT_REDIS),
    (None, NO_SOURCE),  # a site that wants no countries
    (None, {'footfall_up{store="redis"}': f"1+0x{FEW_MINUTES - 2} 0 0 1"}),  # a restart
    ("FootfallNotScraped", {"footfall_build_info": ""}),
    ("FootfallTrackingErrors", {f'footfall_requests_total{{{TRACKED},status="503"}}': rate(2)}),
    ("FootfallTrackingSlow", {f'footfall_request_duration_seconds_bucket{{{TRACKED},le="0.01"}}': rate(50)}),
    ("FootfallRefusals", {REFUSED: rate(10)}),
    ("FootfallNoViews", {'footfall_events_accepted_total{way="redis"}': SILENCE, REFUSED: still(0)}),
    ("FootfallFallbackInUse", {'footfall_events_accepted_total{way="postgresql"}': rate(5)}),
    ("FootfallStoreAway", {'footfall_up{store="postgresql"}': still(0)}),
    ("FootfallStoreStruggles", {'footfall_scrape_problems{store="postgresql"}': still(1)}),
    ("FootfallRedisMemory", {"footfall_redis_memory_used_bytes": still(310)}),
    ("FootfallRedisNotDurable", {"footfall_redis_durable": still(0)}),
    ("FootfallSchemaBehind", {"footfall_schema_ok": still(0)}),
    ("FootfallEventsNotWritten", {"footfall_queue_oldest_age_seconds": still(61)}),
    ("FootfallQueueFilling", {"footfall_queue_entries": still(500_001)}),
    ("FootfallDeadLetters", {'footfall_events_dead_letters_total{way="redis"}': rate(0.1)}),
    ("FootfallDeadLetters", {'footfall_dead_letters{reason="refused"}': rate(0.1)}),
    ("FootfallEventsLost", {"footfall_queue_events": " ".join(["3 43 93"] * (MINUTES // 3))}),
    ("FootfallLedgerUnbalanced", {"footfall_ledger_unbalanced": still(1)}),
    ("FootfallRollupLate", {"footfall_rollups_waiting": still(1)}),
    ("FootfallRollupLate", {"footfall_rollup_last_timestamp_seconds": still(-93_600)}),
    ("FootfallRetentionLate", {"footfall_partitions_overdue": still(1)}),
    ("FootfallSaltsKept", {"footfall_salts_overdue": still(1)}),
    ("FootfallCountriesMissing", {"footfall_country_problem": still(1)}),
    ("FootfallCountriesMissing", NO_COUNTRIES),
    ("FootfallCountryFileOld", {"footfall_country_file_built_timestamp_seconds": still(-8_000_000)}),
]


def test_every_alert_has_a_case() -> None:
    assert {name for name, _ in CASES} - {None} == set(alerts())
    assert all(set(changes) <= set(HEALTHY) | set(NO_SOURCE) for _, changes in CASES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus")
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    file = tmp_path / "tests.yml"  # JSON is YAML
    rules = str(ROOT / "deploy" / "alerts.yml")
    tests = [promtools_test(name, {**HEALTHY, **changes}) for name, changes in CASES]
    file.write_text(json.dumps({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}))
    command = ["promtool", "test", "rules", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert result.returncode == 0, result.stdout + result.stderr


def promtools_test(name: str | None, series: dict[str, str]) -> dict[str, Any]:
    """That of all alerts this one fires, or none."""
    minutes = MINUTES - 1 if name in LOOK_BACK else FEW_MINUTES
    return {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items() if values],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if name else [],
            }
        ],
    }
