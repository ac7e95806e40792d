"""CSV files that people write: every cell is text as it stands; malformed input is refused with its line number."""

import csv
import errno
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ProjectError
from ..pipeline import require_dep


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
        problem = f"{path.as_posix()} can't be read: {error.strerror}"
        raise ProjectError(problem, "put a file there that you may read") from error


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Read a UTF-8 CSV file with a header, lazily. Cells are texts: none becomes a number, a date, or missing.

    Args:
        path: The file. `dvc.yaml` must name its folder as a dep of the stage, as the rows may name files beside it.
        columns: The columns that must exist, in any order; others are ignored.

    Yields:
        The line number, from 1, and the cells of `columns` in that order. Blank lines are left out.

    Raises:
        ProjectError: `dvc.yaml` does not name the folder, the file isn't there, can't be read, isn't UTF-8, has an
            open quote, lacks a column or has one twice, a line has more or fewer cells than the header, or the header
            is all there is.
    """
    require_dep(path.parent.as_posix())
    name = path.as_posix()
    missing = ProjectError(f"{name} is not there", f"write it, with the columns {','.join(columns)}")
    with open_file(path, missing) as file:
        yield from rows(file, name, columns)


def rows(
    file: BinaryIO, name: str, columns: tuple[str, ...], on_error: Callable[[ProjectError], None] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Read an open CSV file, as `read_csv` does; its `name` is for errors.

    With `on_error`, a malformed line is passed to it and left out, instead of raised.
    """
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    lines = (cells for cells in reader if "".join(cells).strip())
    count = 0
    try:
        header = [cell.strip().lower() for cell in next(lines, columns)]
        if "\0" in "".join(header):
            raise ProjectError(f"{name} line {reader.line_num} holds a NUL character", "remove it")
        if len(set(header)) != len(header) or not set(columns) <= set(header):
            fix = f"its first line must name, once each: {','.join(columns)}"
            raise ProjectError(f"{name} has the columns {', '.join(header)}", fix)
        places = [header.index(column) for column in columns]
        for cells in lines:
            count += 1
            if len(cells) != len(header):
                problem = f"has {len(cells)} cells, the header has {len(header)}"
                fix = "correct the line; put a cell that holds a comma in double quotes"
            elif "\0" in "".join(cells):
                problem, fix = "holds a NUL character", "remove it"
            else:
                yield reader.line_num, [cells[place] for place in places]
                continue
            malformed = ProjectError(f"{name} line {reader.line_num} {problem}", fix)
            if not on_error:
                raise malformed
            on_error(malformed)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ProjectError(f"{name} line {reader.line_num}: {error}", f"save {name} as CSV in UTF-8") from error
    if not count:
        raise NoRowsError(f"{name} holds no rows", f"add rows below the header: {','.join(columns)}")
