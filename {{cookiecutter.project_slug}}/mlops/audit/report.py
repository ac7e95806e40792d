"""An answer, and its forms: a table for people, JSON for programs, CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..output import shorten, table
from .policy import Verdict

SCHEMA = Path(__file__).with_name("report.schema.json")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet may take for a formula
HEADERS = {
    **{"timing": "trained", "served_by": "served by", "started_at": "started, UTC", "ended_at": "ended, UTC"},
    "path": "how",
}
NOTHING = {  # what is said where there is nothing to list
    "list": "It knows no subject.",
    "diff": "No difference: both know the same subjects.",
    "deployed": "What is served knows no subject without consent.",
}
SHOWN = (  # the columns of a table of rows
    *("subject", "change", "verdict", "exposure", "timing", "served_by"),
    *("run", "started_at", "versions", "path"),
)

Row = dict[str, Any]
"""A row of an answer: `report.schema.json` describes its keys."""


@dataclass(frozen=True)
class Rows:
    """Rows that are computed whenever they are iterated: 100,000 subjects have millions."""

    compute: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:
        return self.compute()


@dataclass(frozen=True)
class AuditReport:
    """An answer; `report.schema.json` describes its parts."""

    verb: str  # the question
    verdict: Verdict | None = None  # None where nothing is judged and everything could be read
    subjects: list[Row] = field(default_factory=list)  # one for each subject in the question
    rows: Iterable[Row] = ()  # what was found
    unknown: list[Row] = field(default_factory=list)  # runs, versions and aliases that can't be determined, and why
    notes: list[str] = field(default_factory=list)  # what a reader should know besides
    source: Row = field(default_factory=dict)  # what was read
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command."""
        return self.verdict.exit_code if self.verdict else 0

    def json(self) -> Iterator[str]:
        """Give the answer as one JSON document, piece by piece."""
        head = {
            "schema": "records-audit/1",
            "verb": self.verb,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "asked_at": format_time(self.asked_at),
            "source": self.source,
            "notes": self.notes,
        }
        yield json.dumps(head, indent=2).removesuffix("\n}")
        for name, rows in (("subjects", self.subjects), ("unknown", self.unknown), ("rows", self.rows)):
            yield f',\n  "{name}": ['
            for number, row in enumerate(rows):
                yield f"{',' if number else ''}\n    {json.dumps(row)}"
            yield "\n  ]"
        yield "\n}\n"

    def csv(self) -> Iterator[str]:
        """Give a line per row, one per subject without a row, and one per unknown run; cells are safe to open."""
        columns = dict.fromkeys(key for rows in (self.subjects, self.rows, self.unknown) for row in rows for key in row)
        yield _csv_line(columns)
        with_rows = set()
        for row in self.rows:
            with_rows.add(row["subject"])
            yield _csv_line(row.get(column) for column in columns)
        for row in (*(row for row in self.subjects if row["subject"] not in with_rows), *self.unknown):
            yield _csv_line(row.get(column) for column in columns)

    def text(self) -> Iterator[str]:
        """Give lines for people."""
        named, empty = tuple(self.subjects[0]) if self.subjects else (), True
        for rows, columns in ((self.subjects, named), (self.rows, SHOWN), (self.unknown, SHOWN)):
            listed = list(rows)
            shown = [column for column in columns if any(row.get(column) not in (None, "", []) for row in listed)]
            if "served_by" in shown:  # it names the version; and when the run began, against consent, is in `timing`
                shown = [column for column in shown if column not in ("versions", "started_at")]
            texts = [[_cell(row, key) for key in shown] for row in listed]
            # An id may hold what would move a terminal's cursor.
            cells = [[text if text.isprintable() else repr(text)[1:-1] for text in line] for line in texts]
            headers = [HEADERS.get(column, column) for column in shown]
            if listed:
                empty = False
                yield from (*table(cells, headers).split("\n"), "")
        if empty and not self.notes and self.verb in NOTHING:
            yield NOTHING[self.verb]
        yield from self.notes
        if self.verdict:
            yield str(self.verdict)


def format_time(time: datetime | None) -> str | None:
    """Return a time as reports have it: UTC, ISO 8601, milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def _text(value: Any) -> str:
    return " < ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _cell(row: Row, column: str) -> str:
    """Return a cell of a table: to the minute, ids cut, and what another column says left out."""
    value = row.get(column)
    if column == "path" and value and value[0] == f"run {row.get('run')}":
        value = value[1:]
    if column in ("started_at", "ended_at") and value:
        return str(value)[:16].replace("T", " ")
    text = _text(value)
    if column == "run" and text and row.get("title", text) != text:
        text = f"{row['title']} ({text})"
    return (text if column == "subject" else shorten(text)) or "-"  # the id of a subject may look like a digest


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO(newline="")
    cells = map(_text, values)
    csv.writer(line).writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return line.getvalue()
