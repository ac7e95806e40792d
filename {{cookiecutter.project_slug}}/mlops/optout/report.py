"""What an opt-out has done so far, in a file: where it goes on when it was interrupted, and what remains of it.

    reports/optout/<id>.json and .html

The file names the subjects, so Git ignores it; what Git keeps names only the id.
"""

import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..audit.report import moment
from ..files import atomic_write, read_json, write_json
from . import html_report

FOLDER = Path("reports/optout")
SCHEMA = "optout/1"


@dataclass
class OptOutReport:
    """An opt-out.

    Args:
        id: Its name, which says nothing about the subjects.
        subjects: Whom it is about: id, the line of the registry that says so, and when their consent ended.
        by: Who asked for it, as Git knows them.
        plan: What was found before anything was changed.
        done: The steps that are done: when (UTC), and what they said.
        version: The version that came of it: number, metrics, dataset, digest of the registry.
        answers: Of `audit verify` and `audit deployed`, at the end.
        stopped: Why it did not come to its end, and what to do.
    """

    id: str
    subjects: list[dict[str, Any]]
    by: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    schema: str = SCHEMA

    def did(self, step: str, *told: str) -> None:
        """Note that a step is done; one that is done again keeps its time."""
        self.done.setdefault(step, {"at": moment(datetime.now(UTC)), "told": list(told)})

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.id}.json"

    @property
    def page_path(self) -> Path:
        """Where it is for people."""
        return self.path.with_suffix(".html")

    def write(self) -> None:
        """Write both files."""
        with atomic_write(self.page_path) as new:
            new.write_text(html_report.html(asdict(self)), encoding="utf-8", newline="\n")
        write_json(self.path, asdict(self))


def of(subjects: list[dict[str, Any]]) -> OptOutReport:
    """Return the report of these subjects' withdrawal, begun before, or a new one."""
    for path in sorted(FOLDER.glob("*.json")):
        told = read_json(path)
        if told["schema"] == SCHEMA and _who(told["subjects"]) == _who(subjects):
            return OptOutReport(**told)
    return OptOutReport(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", subjects)


def _who(subjects: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(one["subject"], one["ended_at"]) for one in subjects}
