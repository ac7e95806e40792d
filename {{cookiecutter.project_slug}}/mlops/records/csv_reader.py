"""CSV files that people write: every cell is text as it stands, and what is malformed is refused with its line."""

import csv
import errno
import io
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ProjectError


def open_file(path: Path) -> BinaryIO:
    """Open a file that people put there; a pipe, which would be waited for without end, is refused.

    Raises:
        OSError: It isn't there, can't be read, or is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file", str(path))
    return path.open("rb")


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file that people put there, lazily; see `rows` for what it yields and refuses.

    Raises:
        ProjectError: It isn't there, can't be read or is malformed.
    """
    name = path.as_posix()
    try:
        file = open_file(path)
    except FileNotFoundError as error:
        raise ProjectError(f"{name} is not there", f"write it, with the columns {','.join(columns)}") from error
    except OSError as error:
        raise ProjectError(f"{name} can't be read: {error.strerror}", "put a file there that you may read") from error
    with file:
        yield from rows(file, name, columns)


def rows(
    file: BinaryIO, name: str, columns: tuple[str, ...], tell: Callable[[ProjectError], None] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Read a UTF-8 CSV file with a header, lazily. No cell is ever guessed to be a number, a date, or missing.

    Args:
        file: The file, open for reading bytes.
        name: Its name, for errors.
        columns: The columns that must be there, in any order; others are left alone.
        tell: Takes what is wrong with a line, which is then left out, instead of raising it.

    Yields:
        The line number, from 1, and the cells of `columns` in that order. Blank lines are left out.

    Raises:
        ProjectError: The text isn't UTF-8, a quote is open, a column is missing or there twice, a line has more or
            fewer cells than the header, or there is no line but the header.
    """
    lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    places: list[int] = []
    width = count = 0
    try:
        for cells in lines:
            if not "".join(cells).strip():
                continue
            fault = _fault(cells, width, f"{name} line {lines.line_num}")
            if fault and not (tell and width):
                raise fault
            if not width:
                width, places = len(cells), _places(cells, name, columns)
                continue
            count += 1
            if fault and tell:
                tell(fault)
                continue
            yield lines.line_num, [cells[place] for place in places]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ProjectError(f"{name} line {lines.line_num}: {error}", f"save {name} as CSV in UTF-8") from error
    if not count:
        raise ProjectError(f"{name} holds no rows", f"add rows below the header: {','.join(columns)}")


def _fault(cells: list[str], width: int, where: str) -> ProjectError | None:
    if width and len(cells) != width:
        return ProjectError(
            f"{where} has {len(cells)} cells, the header has {width}",
            "correct the line; put a cell that holds a comma in double quotes",
        )
    if any("\0" in cell for cell in cells):
        return ProjectError(f"{where} holds a NUL character", "remove it")
    return None


def _places(header: list[str], name: str, columns: tuple[str, ...]) -> list[int]:
    names = [cell.strip().lower() for cell in header]
    if len(set(names)) != len(names) or not set(columns) <= set(names):
        raise ProjectError(
            f"{name} has the columns {', '.join(names)}", f"its first line must name, once each: {','.join(columns)}"
        )
    return [names.index(column) for column in columns]
