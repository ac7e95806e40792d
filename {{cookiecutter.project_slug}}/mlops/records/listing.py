"""A team's own files as records: from a list, `records.csv` or `records.parquet`, or sorted into folders."""

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ProjectError
from ..pipeline import require_dep
from .csv_reader import open_file, read_csv
from .ids import normalize_id
from .source import Record

LISTS = ("records.csv", "records.parquet")
REQUIRED, OPTIONAL = ("label", "path"), ("record_id", "subject_id", "delivery", "split")
LEVELS = ("label", "subject", "delivery", "split")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How splits are called elsewhere, and here."""
NO_RECORDS = {"Thumbs.db", "desktop.ini"}  # what Windows leaves in folders; names that begin with a dot are none either
FILES_FIX = "put the files there: a folder for each label, or a list, records.csv, that names them"


def list_files(folder: Path, levels: str) -> Iterator[Record]:
    """Yield a record for each row of the list in `folder`; if there is none, for each file below it.

    A list has the columns `label` and `path` (relative to `folder`), and may have `record_id` (else the path is it),
    `subject_id` (else the record is its own subject), `delivery` and `split`. Other columns are ignored, and printed.

    Args:
        folder: `dvc.yaml` must name it as a dep of the stage.
        levels: What the folders of a file without a list say of it, from the top: some of label, subject, delivery and
            split, such as `split/label`. With `delivery?` as the first, some files have that folder, and others have
            none. The path of a file is its `record_id`.

    Raises:
        ProjectError: There are no files, two lists, or a malformed one, or a file lies at another level.
    """
    require_dep(folder.as_posix())
    lists = [folder / name for name in LISTS if (folder / name).exists()]
    if len(lists) > 1:
        raise ProjectError(f"{folder.as_posix()} holds both {' and '.join(LISTS)}", "remove one of them")
    if lists:
        return _listed(lists[0])
    if not folder.is_dir():
        raise ProjectError(f"{folder.as_posix()} is not there", FILES_FIX)
    return _sorted_into_folders(folder, levels)


def read_file(folder: Path, path: str) -> bytes:
    """Read a file whole.

    Args:
        folder: The folder that it lies in.
        path: Relative to `folder`, which it must not leave, not even through a symbolic link.

    Raises:
        ProjectError: The path is empty, absolute or leads out; or the file isn't there or can't be read.
    """
    try:
        if not path or Path(path).is_absolute() or not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ProjectError(
                f"path {path!r} is not a file inside {folder.as_posix()}",
                f"put it below {folder.as_posix()}; if DVC linked it there: dvc unprotect {folder.as_posix()}",
            )
        if not stat.S_ISREG((folder / path).stat().st_mode):  # reading a pipe would not end
            raise ValueError("it is a folder, a pipe or a device, not a file")
        return (folder / path).read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a loop of links, a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        fix = f"restore the files, or take them out of the list in {folder.as_posix()}"
        raise ProjectError(f"{path!r} can't be read: {reason}", fix) from error


def _listed(path: Path) -> Iterator[Record]:
    rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
    for origin, row in rows:
        record_id = row.get("record_id", row["path"])
        split = row.get("split", "")
        yield Record(
            record_id=record_id,
            subject_id=row.get("subject_id", record_id),
            label=row["label"],
            content=row["path"],
            origin=origin,
            delivery=row.get("delivery", ""),
            split=SPLIT_NAMES.get(split.lower(), split),
        )


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    missing = ProjectError(f"{path.as_posix()} is not there", FILES_FIX)
    with open_file(path, missing) as file:
        first = next((line for line in file if line.strip(b"\r\n\t ,;")), b"").decode("utf-8-sig", "replace")
    names = [name.strip().lower() for name in next(csv.reader([first]), [])]
    columns = _used(path, names)
    for line, cells in read_csv(path, columns):
        yield f"{path.as_posix()} line {line}", dict(zip(columns, cells, strict=True))


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    name, number = path.as_posix(), 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # else it is read whole
            columns = list(_used(path, file.schema_arrow.names))
            if lacking := [column for column in REQUIRED if column not in file.schema_arrow.names]:
                raise ProjectError(f"{name} has no column {' and '.join(lacking)}", "add it")
            for column in columns:
                _check_type(name, file.schema_arrow.field(column))
            for batch in file.iter_batches(1 << 14, columns=columns):
                cells = [batch[column].cast(pa.string()).fill_null("").to_pylist() for column in columns]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield f"{name} row {number}", dict(zip(columns, row, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise ProjectError(f"{name} can't be read as Parquet: {error}", "write it again") from error
    if not number:
        raise ProjectError(f"{name} holds no rows", f"add rows with the columns {', '.join(columns)}")


def _check_type(name: str, field: pa.Field) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        problem = f"{name}: the column {field.name} holds {field.type}, and ids and labels are texts or whole numbers"
        raise ProjectError(problem, "convert it to texts where the file is written")


def _used(path: Path, names: list[str]) -> tuple[str, ...]:
    """Return the columns that are read; print those that are not, and what follows from a missing subject."""
    columns = (*REQUIRED, *(name for name in OPTIONAL if name in names))
    notes = [] if "subject_id" in names else ["no subject_id, so each record is a subject of its own"]
    if unused := [name for name in names if name not in columns]:
        notes.append(f"not used: {', '.join(unused)}")
    if notes:
        print(f"{path.as_posix()}: {'; '.join(notes)}")
    return columns


def _sorted_into_folders(folder: Path, levels: str) -> Iterator[Record]:
    has_optional = levels.startswith("delivery?/")
    every = levels.replace("?", "", has_optional).split("/")
    if "label" not in every or len(set(every)) < len(every) or not set(every) <= set(LEVELS):
        problem = f"params.yaml:data.folders is {levels!r}"
        raise ProjectError(problem, f"name the levels of folders, from the top, of {', '.join(LEVELS)}: split/label")
    for file in _files(folder):
        path = file.relative_to(folder)
        names = every[1:] if has_optional and len(path.parts) == len(every) else every
        if len(path.parts) != len(names) + 1:
            raise _other_level(folder, path, levels)
        record_id = normalize_id(path.as_posix())
        values = dict(zip(names, map(normalize_id, path.parts), strict=False))
        split = values.get("split", "")
        yield Record(
            record_id=record_id,
            subject_id=values.get("subject", record_id),
            label=values["label"],
            content=path.as_posix(),
            origin=file.as_posix(),
            delivery=values.get("delivery", ""),
            split=SPLIT_NAMES.get(split.lower(), split),
        )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order; hidden ones are none."""

    def fail(error: OSError) -> None:
        raise ProjectError(f"{error.filename} can't be read: {error.strerror}", "let it be read") from error

    count = 0
    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if linked := [name for name in folders if Path(parent, name).is_symlink()]:
            problem = f"{Path(parent, linked[0]).as_posix()} is a link to a folder, whose files DVC would not keep"
            raise ProjectError(problem, "put the files themselves there")
        for name in sorted(files):
            if not name.startswith(".") and name not in NO_RECORDS:
                count += 1
                yield Path(parent, name)
    if not count:
        raise ProjectError(f"{folder.as_posix()} holds no files", FILES_FIX)


def _other_level(folder: Path, path: Path, levels: str) -> ProjectError:
    depth = len(path.parts) - 1
    problem = f"{(folder / path).as_posix()} lies {depth} folders deep, and params.yaml:data.folders is {levels!r}"
    top = {name.name.lower() for name in folder.iterdir() if name.is_dir() and not name.name.startswith(".")}
    if depth == 2 and top <= SPLIT_NAMES.keys():
        return ProjectError(problem, "params.yaml:data.folders: split/label")
    if depth >= 2:
        fix = (
            f"name each level, of {', '.join(LEVELS)}, in params.yaml:data.folders, such as label/subject; or, if new "
        )
        fix += "files came in a folder of their own, delivery?/label"
        return ProjectError(problem, fix)
    return ProjectError(problem, f"put it into folders that are named by its {levels.replace('/', ' and ')}")
