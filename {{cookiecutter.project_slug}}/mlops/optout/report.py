"""What an opt-out has done so far, in a file: where it continues when it was interrupted, and what remains of it.

    reports/optout/<id>.json and .html

The files name the subjects, so Git ignores them; what Git keeps names only the id. The page is `report.html`, rendered:
it runs nothing and loads nothing.
"""

import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from ..audit.policy import Verdict, worst
from ..audit.report import format_time
from ..files import atomic_write, read_json, write_json
from .plan import Plan

FOLDER = Path("reports/optout")
SCHEMA = "optout/1"


@dataclass
class OptOutReport:
    """An opt-out."""

    id: str  # says nothing about the subjects
    subjects: list[dict[str, Any]]  # id, line of the registry that decides, end of consent
    by: str = ""  # who did it, as Git knows them
    plan: dict[str, Any] = field(default_factory=dict)  # what was found before anything was changed
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # by step: when (UTC), and with what results
    version: dict[str, Any] = field(default_factory=dict)  # the new one: number, metrics, dataset, registry's digest
    answers: dict[str, Any] = field(default_factory=dict)  # of `audit verify` and `audit deployed`, at the end
    stopped: dict[str, str] = field(default_factory=dict)  # why it did not come to its end, and the fix
    schema: str = SCHEMA

    def record(self, step: str, *results: str) -> None:
        """Record that a step is done; one that is done again keeps its time."""
        self.done.setdefault(step, {"at": format_time(datetime.now(UTC)), "told": list(results)})

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.id}.json"

    @property
    def page_path(self) -> Path:
        """Where it is for people."""
        return self.path.with_suffix(".html")

    def html(self) -> str:
        """Return the page; it never says more than the audit answered."""
        verdicts = [Verdict(answer["verdict"]) for answer in self.answers.values()]
        end = worst([*verdicts, Verdict.FAIL] if self.stopped or not verdicts else verdicts)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        plan = self.plan or asdict(Plan([]))
        return environment.get_template("report.html").render(report=self, plan=plan, end=end).lstrip()

    def write(self) -> None:
        """Write both files."""
        with atomic_write(self.page_path) as new:
            new.write_text(self.html(), encoding="utf-8", newline="\n")
        write_json(self.path, asdict(self))


def find_or_create(subjects: list[dict[str, Any]]) -> OptOutReport:
    """Return the report of these subjects' withdrawal, if it was begun before, or a new one."""
    for path in sorted(FOLDER.glob("*.json")):
        report = read_json(path)
        if report["schema"] == SCHEMA and _withdrawals(report["subjects"]) == _withdrawals(subjects):
            return OptOutReport(**report)
    return OptOutReport(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", subjects)


def _withdrawals(subjects: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(subject["subject"], subject["ended_at"]) for subject in subjects}
