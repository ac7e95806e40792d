"""CSV files that people write: every cell is text as it stands; malformed input is refused with its line number."""

import codecs
import csv
import errno
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ProjectError
from ..pipeline import require_dep
from .ids import normalize_id

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MARKERS = ("<<<<<<< ", "||||||| ", ">>>>>>> ")  # of Git, and a line of = alone


class NoRowsError(ProjectError):
    """A CSV file has a header at most."""


def open_file(path: Path, missing: ProjectError) -> BinaryIO:
    """Open a regular file; raise `missing` if it isn't there.

    It is a ProjectError too if the file can't be read, or is a folder, a device, or a pipe, which would block for ever.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file", str(path))
        return path.open("rb")
    except FileNotFoundError as error:
        raise missing from error
    except OSError as error:
        problem, fix = f"{path.as_posix()} can't be read: {error.strerror}", "put a file there in its place"
        if isinstance(error, PermissionError):
            fix = f"let yourself read it: chmod u+r {path.as_posix()}"
        raise ProjectError(problem, fix) from error


def read_csv(path: Path, columns: tuple[str, ...], missing: ProjectError) -> Iterator[tuple[int, list[str]]]:
    """Read a UTF-8 CSV file with a header, lazily. Cells are texts: none becomes a number, a date, or missing.

    Args:
        path: The file. `dvc.yaml` must name its folder as a dep of the stage, as the rows may name files beside it.
        columns: The columns that must exist, in any order; others are ignored.
        missing: The error if the file isn't there.

    Yields:
        The line number, from 1, and the cells of `columns` in that order. Blank lines are left out.

    Raises:
        ProjectError: `dvc.yaml` does not name the folder, the file isn't there, can't be read, isn't UTF-8, has an
            open quote or a conflict marker, lacks a column or has one twice, a line has more or fewer cells than the
            header, or the header is all there is.
    """
    require_dep(path.parent.as_posix())
    with open_file(path, missing) as file:
        yield from rows(file, path.as_posix(), columns)


def read_header(path: Path, missing: ProjectError) -> list[str]:
    """Return the names of a CSV file's columns, in small letters; [] if it is empty. Errors are those of `read_csv`."""
    with open_file(path, missing) as file:
        return next((column_names(cells) for _, _, cells in _split(file, path.as_posix())), [])


def rows(
    file: BinaryIO, name: str, columns: tuple[str, ...], on_error: Callable[[ProjectError], None] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Read an open CSV file, as `read_csv` does; its `name` is for errors.

    With `on_error`, a malformed line is passed to it and left out, instead of raised.
    """
    lines = _split(file, name)
    _, _, first = next(lines, (0, 0, list(columns)))
    header = column_names(first)
    if len(header) == 1 and (separator := re.search("[;\t]", first[0])):
        other = {";": "semicolon", "\t": "tab"}[separator[0]]
        fix = f"in a text editor, put cells that hold a comma in double quotes, then replace each {other} by a comma"
        raise ProjectError(f"{name} has {other}s between its cells, not commas", fix)
    if not set(columns) <= set(header) or len(set(filter(None, header))) != len(list(filter(None, header))):
        fix = f"its first line must name, once each: {','.join(columns)}"
        raise ProjectError(f"{name} has the columns {', '.join(filter(None, header))[:200]}", fix)
    places, count = [header.index(column) for column in columns], 0
    for start, end, cells in lines:
        count += 1
        used = [cells[place] for place in places] if len(cells) == len(header) else []
        if not used:
            nameless = f", {header.count('')} without a name" if "" in header else ""
            problem = f"line {start} has {len(cells)} cells, the header has {len(header)}{nameless}"
            fix = "put commas between its cells, and double quotes around a cell that holds a comma"
        elif any("\n" in cell or "\r" in cell for cell in used):
            problem = f"line {start} has a double quote that is closed in a later line, so all up to line {end} is one"
            fix = "take the double quote out, or close it in its line"
        elif used[0].lower().endswith(columns[0]) and column_names(used) == list(columns):
            problem, fix = f"line {end} is the header once more, as where two files were joined", "take the line out"
        else:
            yield end, used
            continue
        malformed = ProjectError(f"{name} {problem}", fix)
        if not on_error:
            raise malformed
        on_error(malformed)
    if not count:
        raise NoRowsError(f"{name} holds no rows", f"add rows below the header, {','.join(columns)}")


def column_names(header: list[str]) -> list[str]:
    """Return the names in the cells of a header: in small letters, without invisible characters."""
    return [normalize_id(cell).lower() for cell in header]


def _split(file: BinaryIO, name: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the cells of each line that is not blank, with its number, and that of its last line if it has several."""
    start = file.read(4)
    file.seek(0)
    is_zip, first_character = start == b"PK\x03\x04", start[:2]
    if is_zip or first_character in UTF_16 or (b"\0" in first_character and any(first_character)):
        kind = "a workbook, as Excel saves it" if is_zip else "in UTF-16, as Excel's Unicode text is"
        raise ProjectError(f"{name} is {kind}", f"save {name} as CSV in UTF-8, with commas between cells")
    # What is no UTF-8 becomes surrogates, so that its line is known.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader, line = csv.reader(text, strict=True), 1
    try:
        for cells in reader:
            if (whole := "".join(cells)).strip():
                _check_text(whole, cells, f"{name} line {line}", name)
                yield line, reader.line_num, cells
            line = reader.line_num + 1
    except csv.Error as error:
        problem = "has a double quote that is not closed in its line"
        fix = "close it, or take it out"
        if "limit" in str(error):
            problem = f"has a cell of more than {csv.field_size_limit():,} characters"
            fix = "shorten it; if a double quote is opened there, close it or take it out"
        elif reader.line_num == line and "after" in str(error):
            problem = "has text after the double quote that closes a cell"
            fix = "put double quotes around the whole cell, and write each double quote inside of it twice"
        raise ProjectError(f"{name} line {line} {problem}", fix) from error


def _check_text(whole: str, cells: list[str], where: str, name: str) -> None:
    if cells[0].startswith(MARKERS) or cells == ["======="]:
        fix = "keep the lines of both sides that are right (of consents: all), and take out the lines of <, = and >"
        raise ProjectError(f"{where} is a conflict marker of Git: {cells[0][:40]}", fix)
    if "\0" in whole:
        fix = "take them out, in a text editor; if lines are lost, Git or DVC has them: git checkout, dvc checkout"
        raise ProjectError(f"{where} holds NUL characters, as after a power failure", fix)
    if not whole.isascii() and (escaped := re.search("[\udc80-\udcff]", whole)):
        problem = f"{where} is not UTF-8: it holds the byte {ord(escaped[0]) - 0xDC00:#04x}"
        raise ProjectError(problem, f"save {name} as CSV in UTF-8")
