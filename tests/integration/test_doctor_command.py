"""`footfall doctor` as people and machines read it: a table, JSON, exit codes, commands to copy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import celeryconfig
from footfall.cli import main
from footfall.cli.data_dir import DataDir
from footfall.cli.doctor import schedule
from footfall.doctor.examination import CHECKS
from tests.factory import PEPPER
from tests.integration.patient import Patient

Run = Callable[..., Result]
NAMES = [entry.name for entry in CHECKS]


@pytest.fixture
def doctor(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on the patient, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, columns: int = 120, color: bool = False, **environment: str | None) -> Result:
        given = {
            "DATABASE_URL": patient.settings.database_url,
            "REDIS_URL": patient.settings.redis_url,
            "FOOTFALL_PEPPER": PEPPER,
            "COLUMNS": str(columns),
        }
        return CliRunner(env={**given, **environment}).invoke(main, ["doctor", *words], color=color)

    return run


def test_a_healthy_instance_ends_with_0_and_a_line_a_check(doctor: Run) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    *lines, empty, summary = result.output.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert (empty, summary) == ("", "nothing to mend")


def test_json_keeps_its_names(doctor: Run, patient: Patient) -> None:
    patient.sql("ALTER TABLE tallies DROP CONSTRAINT tallies_day_name_unique")
    result = doctor("--json")
    told: dict[str, Any] = json.loads(result.output)
    assert list(told) == ["verdict", "checked_at", "checks", "done"]
    assert (told["verdict"], result.exit_code, told["done"]) == ("problem", 1, [])
    assert [check["name"] for check in told["checks"]] == NAMES
    assert {tuple(check) for check in told["checks"]} == {("name", "verdict", "text", "findings", "figures")}
    (finding,) = told["checks"][NAMES.index("unique_keys")]["findings"]
    assert finding == {
        "severity": "problem",
        "text": "tallies has no valid unique key on (day, name)",
        "command": "footfall doctor --fix",
        "fixable": True,
    }


def test_fix_says_what_it_did_and_looks_again(doctor: Run, patient: Patient) -> None:
    patient.sql("ALTER TABLE tallies DROP CONSTRAINT tallies_day_name_unique")
    result = doctor("--fix")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "--fix: added tallies_day_name_unique"
    assert result.output.endswith("nothing to mend\n")
    assert json.loads(doctor("--fix", "--json").output)["done"] == []


def test_what_fix_cannot_mend_is_still_a_problem(doctor: Run, patient: Patient) -> None:
    patient.sql("ALTER TABLE salts DROP CONSTRAINT salts_pkey")
    patient.sql("INSERT INTO salts SELECT * FROM salts")
    result = doctor("--fix")
    assert result.exit_code == 1
    assert "--fix: not done: salts has" in result.output


def test_warnings_alone_end_with_0(doctor: Run, patient: Patient) -> None:
    patient.sql("DROP INDEX view_events_version_occurred_at_index")
    result = doctor()
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "1 warning"


@pytest.mark.parametrize("columns", [20, 40, 69, 80, 120])
def test_no_line_is_wider_than_the_terminal_but_for_what_is_copied(
    doctor: Run, patient: Patient, columns: int
) -> None:
    patient.sql("ALTER TABLE view_events RENAME COLUMN referrer_domain TO land")
    patient.sql("ALTER TABLE tallies DROP CONSTRAINT tallies_day_name_unique")
    patient.sql("ALTER TABLE salts DROP CONSTRAINT salts_pkey")
    output = doctor(columns=columns).output
    longest = max(len(word) for word in output.split())
    assert "\x1b" not in output, "no colours where nobody sees them"
    for line in output.splitlines():
        assert len(line) <= max(columns, longest + 30) or line.lstrip().startswith("$ ")
    assert "view_events has no column referrer_domain" in " ".join(output.split())
    (command,) = [line for line in output.splitlines() if "RENAME COLUMN" in line]
    assert command.endswith(
        'psql "$DATABASE_URL" -c "ALTER TABLE view_events RENAME COLUMN land TO referrer_domain"'
    )


def test_in_a_pipe_a_sentence_is_a_line(doctor: Run) -> None:
    assert all(len(line.split()) > 2 for line in doctor(COLUMNS=None).output.splitlines()[:-2])


def test_a_terminal_gets_colours(doctor: Run) -> None:
    assert click.style("ok     ", fg="green") in doctor(color=True).output


def test_a_folder_in_which_nothing_was_ever_started(doctor: Run, tmp_path: Path) -> None:
    nothing = {"DATABASE_URL": None, "REDIS_URL": None, "FOOTFALL_PEPPER": None}
    result = doctor("--json", "--data-dir", str(tmp_path / "none"), **nothing)
    assert result.exit_code == 1
    (check,) = json.loads(result.output)["checks"]
    assert (check["name"], "nothing was ever started" in check["text"]) == ("settings", True)
    assert not (tmp_path / "none").exists()


def test_a_stopped_instance_says_how_it_is_started(doctor: Run, tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "stopped")
    with folder.locked():
        folder.make_secrets()
    nothing = {"DATABASE_URL": None, "REDIS_URL": None, "FOOTFALL_PEPPER": None}
    result = doctor("--json", "--fix", "--data-dir", str(folder.path), **nothing)
    assert result.exit_code == 1
    checks = {check["name"]: check for check in json.loads(result.output)["checks"]}
    for store in ("postgres", "redis"):
        assert "nothing is running" in checks[store]["text"]
        assert checks[store]["findings"][0]["command"] == f"footfall up --data-dir {folder.path}"
    assert checks["rollup"]["verdict"] == "skipped"


def test_a_setting_that_is_wrong_is_a_finding_too(doctor: Run) -> None:
    result = doctor("--json", FOOTFALL_TIME_ZONE="Mars/Olympus")
    (check,) = json.loads(result.output)["checks"]
    assert check["findings"][0]["command"] == "export FOOTFALL_TIME_ZONE=..."
    assert result.exit_code == 1


def test_wrong_use_ends_with_2(doctor: Run) -> None:
    assert doctor("--mend").exit_code == 2


def test_no_password_is_printed(doctor: Run, patient: Patient) -> None:
    url = "postgresql://footfall:verysecret@127.0.0.1:1/footfall"
    for words in ((), ("--json",)):
        assert "verysecret" not in doctor(*words, DATABASE_URL=url).output


def test_the_schedule_is_read_as_it_is() -> None:
    told = schedule()
    entries: list[dict[str, Any]] = list(celeryconfig.beat_schedule.values())
    assert set(told) == {entry["task"] for entry in entries}
    assert told["footfall.write_events"] == (1.0, "write")
    assert told["footfall.roll_up"] == (86_400.0, "upkeep")
    for entry in entries:
        if not isinstance(entry["schedule"], float):
            calendar = entry["schedule"]
            days = (calendar.day_of_week, calendar.day_of_month, calendar.month_of_year)
            assert [len(each) for each in days] == [7, 31, 12], "at least daily, or the doctor is wrong"
