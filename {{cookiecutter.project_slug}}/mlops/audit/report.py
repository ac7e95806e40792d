"""An answer, and the forms that it is given in: a table for people, JSON for programs, CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .policy import Verdict

SCHEMA_ID = "records-audit/1"
SCHEMA = Path(__file__).with_name("report.schema.json")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet may take for a formula
SHOWN = {  # a column of the table: its key in the rows
    "subject": "subject",
    "change": "change",
    "verdict": "verdict",
    "exposure": "exposure",
    "trained": "timing",
    "served by": "served_by",
    "run": "run",
    "name": "title",
    "started": "started_at",
    "versions": "versions",
    "how": "path",
}

Row = dict[str, Any]


class Rows:
    """Rows that are made when they are looked at, as often as they are: 100,000 subjects have millions."""

    def __init__(self, make: Callable[[], Iterator[Row]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Row]:
        return self._make()


@dataclass(frozen=True)
class AuditReport:
    """An answer.

    Args:
        verb: The question.
        verdict: What follows; None where nothing is judged and all could be read.
        subjects: A row per subject that was asked for.
        rows: What was found: see `report.schema.json`.
        unknown: Runs and served versions of which nobody can tell whom they know, and why; aliases of which nobody can
            tell what has them.
        notes: What a reader should know besides.
        source: What was read.
        asked_at: UTC.
    """

    verb: str
    verdict: Verdict | None = None
    subjects: list[Row] = field(default_factory=list)
    rows: Iterable[Row] = ()
    unknown: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: Row = field(default_factory=dict)
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def exit_code(self) -> int:
        """Return what the command exits with."""
        return self.verdict.exit_code if self.verdict else 0

    def json(self) -> Iterator[str]:
        """Give the answer as one JSON document, piece by piece; `report.schema.json` describes it."""
        head = {
            "schema": SCHEMA_ID,
            "verb": self.verb,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "asked_at": moment(self.asked_at),
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
        """Give a line per row, for subjects without one a line of their own, and a line per unknown run."""
        columns = list(
            dict.fromkeys(key for rows in (self.subjects, self.rows, self.unknown) for row in rows for key in row)
        )
        yield _line(columns)
        with_rows = set()
        for row in self.rows:
            with_rows.add(row["subject"])
            yield _line(row.get(column) for column in columns)
        rest = (row for row in self.subjects if row["subject"] not in with_rows)
        for row in (*rest, *self.unknown):
            yield _line(row.get(column) for column in columns)

    def text(self) -> Iterator[str]:
        """Give lines for people."""
        yield from _table(self.subjects, list(self.subjects[0]) if self.subjects else [])
        for rows in (self.rows, self.unknown):
            yield from _table(list(rows), list(SHOWN.values()))
        yield from self.notes
        if self.verdict:
            yield str(self.verdict)


def moment(time: datetime | None) -> str | None:
    """Return a time as reports have it."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def _table(rows: list[Row], keys: list[str]) -> Iterator[str]:
    names = {key: column for column, key in SHOWN.items()}
    keys = [key for key in keys if any(row.get(key) not in (None, "", []) for row in rows)]
    cells = [[names.get(key, key) for key in keys], *([_cell(row.get(key)) for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if rows:
        for line in cells:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        yield ""


def _cell(value: Any) -> str:
    text = " < ".join(map(str, value)) if isinstance(value, list) else "-" if value in (None, "") else str(value)
    return text if text.isprintable() else repr(text)[1:-1]  # an id may hold what would move a terminal's cursor


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow([_harmless(value) for value in values])
    return text.getvalue()


def _harmless(value: Any) -> str:
    text = " < ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
