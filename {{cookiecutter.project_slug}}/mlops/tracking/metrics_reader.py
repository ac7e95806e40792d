"""Read the curves of a run from DVCLive's files, each row once, also while they grow."""

import csv
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

CURVES = Path("plots/metrics")  # below the run's folder


@dataclass(frozen=True)
class Row:
    """One row of a curve.

    Args:
        name: Of the curve, with slashes: `train/loss`.
        timestamp: Milliseconds since 1970 UTC.
        step: Counted from 0.
        value: A number, or the text that was logged instead of one.
        end: Where the row ends in its file, in bytes.
    """

    name: str
    timestamp: int
    step: int
    value: float | str
    end: int


class Curves:
    """The rows below one folder that have not been sent yet."""

    def __init__(self, run_dir: Path, started_ms: int) -> None:
        self._folder = run_dir / CURVES
        self._started_ms = started_ms
        self._sent: dict[str, int] = {}

    def new_rows(self) -> Iterator[Row]:
        """Give the rows after the last one told to `done`, curve by curve."""
        for path in sorted(self._folder.rglob("*.tsv")):
            name = path.relative_to(self._folder).with_suffix("").as_posix()
            if path.stat().st_size > self._sent.get(name, 0):
                yield from self._rows(path, name)

    def done(self, row: Row) -> None:
        """Never give this row, nor one before it in its curve, again."""
        self._sent[row.name] = row.end

    def names(self) -> set[str]:
        """Return the names of the curves that have rows."""
        return set(self._sent)

    def _rows(self, path: Path, name: str) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)  # a text metric may be a page
        with path.open("rb") as file:
            columns = file.readline()
            fields = next(csv.reader([columns.decode()], delimiter="\t"), [])
            end = file.seek(max(self._sent.get(name, 0), len(columns)))
            for line in file:
                if not line.endswith(b"\n"):
                    return  # half a row: the rest is not written yet
                end += len(line)
                row = self._parse(line.decode(errors="replace"), fields, name, end)
                if row:
                    yield row

    def _parse(self, line: str, fields: list[str], name: str, end: int) -> Row | None:
        values = next(csv.reader([line], delimiter="\t"), [])
        told = dict(zip(fields[:-1], values, strict=False))
        try:
            step = int(float(told["step"])) if len(values) == len(fields) else None
        except ValueError:
            step = None
        if step is None:  # cut off by a full disk, or the later lines of a text of several
            log.warning("not understood in %s: %r", name, line[:80])
            return None
        # Without a time of its own (stock DVCLive), always the same one: rows are told apart by it.
        return Row(name, int(told.get("timestamp", self._started_ms + step)), step, _number(values[-1]), end)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
