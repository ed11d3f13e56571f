"""What the doctor looks at and what it says: an instance, findings, checks, a report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from redis import Redis
from sqlalchemy import Engine

from footfall.schema_check import MEND, Flaw
from footfall.settings import Settings

Severity = Literal["warning", "problem"]  # a problem loses or refuses views, or breaks a promise
Verdict = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Commands:
    """How things are done where this instance runs: under Compose, or from a data folder."""

    folder: str = ""  # the option that names the folder, with a blank before it
    psql: str = 'psql "$DATABASE_URL"'
    redis_cli: str = 'redis-cli -u "$REDIS_URL"'
    start: str = "docker compose up --detach --wait"
    log: str = "docker compose logs --tail 50 {part}"
    restart: str = "docker compose restart {part}"
    pids: Mapping[str, int] = field(default_factory=dict)  # of parts that are started again when they end

    def own(self, words: str) -> str:
        """A command of footfall."""
        return f"footfall {words}{self.folder}"

    def sql(self, statement: str) -> str:
        """A statement for PostgreSQL."""
        # in double quotes where they change nothing: many statements have single ones in them
        is_plain = not set('"$`\\!') & set(statement)
        return f"{self.psql} -c " + (f'"{statement}"' if is_plain else shlex.quote(statement))

    def redis(self, words: str) -> str:
        """A command for Redis."""
        return f"{self.redis_cli} {words}"

    def read_log(self, part: str) -> str:
        """What shows the end of a part's log."""
        return self.log.format(part=part)

    def start_again(self, part: str) -> str:
        """What starts a part anew."""
        return f"kill {self.pids[part]}" if part in self.pids else self.restart.format(part=part)

    def of_flaw(self, flaw: Flaw) -> str:
        """What mends a flaw of the schema."""
        if flaw.is_sql:
            return self.sql(flaw.command)
        return f"{flaw.command}{self.folder}" if flaw.command.startswith("footfall ") else flaw.command


class Expected(NamedTuple):
    """What the schedule says of a task: at least so often, by workers of that queue."""

    interval_seconds: float
    queue: str


@dataclass(frozen=True, slots=True)
class Instance:
    """What is examined. Stores that nobody has an address of are in `unknown`, with the reason."""

    settings: Settings
    engine: Engine
    redis: Redis
    now: datetime
    schedule: Mapping[str, Expected]
    commands: Commands = field(default_factory=Commands)
    unknown: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None  # that holds the stores' data, if they are embedded

    @property
    def mend(self) -> str:
        """The command that does the safe ones."""
        return self.commands.own(MEND.removeprefix("footfall "))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, and the command that mends it or shows more."""

    severity: Severity
    text: str
    command: str
    fixable: bool = False  # by --fix


@dataclass(frozen=True, slots=True)
class Found:
    """What a check has found: a sentence for when all is well, findings for when not, numbers."""

    text: str
    findings: Sequence[Finding] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)  # JSON
    is_fatal: bool = False  # what builds upon it cannot be looked at


@dataclass(frozen=True, slots=True)
class Check:
    """A check that was done, or skipped because of another one."""

    name: str
    verdict: Verdict
    text: str
    findings: Sequence[Finding] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, found: Found) -> "Check":
        """The worst finding is the verdict; the only one is the sentence."""
        findings = found.findings
        verdicts: list[Severity] = [finding.severity for finding in findings]
        verdict: Verdict = "problem" if "problem" in verdicts else "warning" if verdicts else "ok"
        text = found.text
        if findings:
            text = findings[0].text if len(findings) == 1 else f"{len(findings)} findings"
        return cls(name, verdict, text, findings, found.figures)

    def as_json(self) -> dict[str, Any]:
        """Names that stay."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "text": self.text,
            "findings": [
                {
                    "severity": finding.severity,
                    "text": finding.text,
                    "command": finding.command,
                    "fixable": finding.fixable,
                }
                for finding in self.findings
            ],
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order in which they are of use."""

    checked_at: datetime
    checks: Sequence[Check]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        verdicts = {check.verdict for check in self.checks}
        return "problem" if "problem" in verdicts else "warning" if "warning" in verdicts else "ok"

    def as_json(self) -> dict[str, Any]:
        """Names that stay."""
        return {
            "verdict": self.verdict,
            "checked_at": self.checked_at.isoformat(),
            "checks": [check.as_json() for check in self.checks],
        }


def ago(seconds: float) -> str:
    """A length of time for people: 40 s, 12 min, 3 h, 5 days."""
    for size, unit, least in ((86_400, "days", 2), (3_600, "h", 2), (60, "min", 2)):
        if seconds >= least * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(amount: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if amount < 1_024:
            return f"{amount:.0f} {unit}"
        amount /= 1_024
    return f"{amount:.1f} GB"
