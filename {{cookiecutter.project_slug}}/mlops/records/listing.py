"""A team's own files as records: from a list, `records.csv` or `records.parquet`, or sorted into folders."""

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ProjectError
from ..pipeline import require_dep
from .csv_reader import read_csv, read_header
from .ids import difference, normalize_id
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
    lists = [folder / name for name in LISTS if os.path.lexists(folder / name)]
    if len(lists) > 1:
        raise ProjectError(f"{folder.as_posix()} holds both {' and '.join(LISTS)}", "remove one of them")
    if lists:
        return _listed(lists[0])
    if not folder.is_dir():
        problem = f"{folder.as_posix()} is {'a file, not a folder' if folder.exists() else 'not there'}"
        raise ProjectError(problem, FILES_FIX)
    return _sorted_into_folders(folder, levels)


def read_file(folder: Path, path: str) -> bytes:
    """Read a file whole.

    Args:
        folder: The folder that it lies in.
        path: Relative to `folder`, which it must not leave, not even through a symbolic link.

    Raises:
        ProjectError: The path is empty, absolute or leads out; or the file isn't there or can't be read.
    """
    file, where = folder / path, folder.as_posix()
    try:
        if not path or not Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder)):
            fix = f"write the path of a file below {where}, as seen from there"
            raise ProjectError(f"path {path!r} is not a file inside {where}", fix)
        if not (target := file.resolve()).is_relative_to(folder.resolve()):
            fix = f"put the file itself there; if DVC made the link: dvc unprotect {where}"
            raise ProjectError(f"{path!r} is a link to {target.as_posix()}, outside of {where}", fix)
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe would not end
            raise ValueError("it is a folder, a pipe or a device, not a file")
        return file.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a loop of links, a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        fix = f"restore the file, or take its row out of the list in {where}"
        if isinstance(error, PermissionError):
            fix = f"let yourself read it: chmod u+r {file.as_posix()}"
        elif isinstance(error, FileNotFoundError) and (other := _spelling(folder, path)):
            fix = f"write {other!r} (it has {difference(other, path)})"
        raise ProjectError(f"{path!r} can't be read: {reason}", fix) from error


def _spelling(folder: Path, path: str) -> str:
    """Return a file's path where it differs from this one in case, separators or Unicode form only; else ""."""
    file = folder
    for part in path.replace("\\", "/").split("/"):
        if not (name := _names_in(file.absolute()).get(normalize_id(part).casefold())):
            return ""
        file /= name
    return file.relative_to(folder).as_posix()


@lru_cache(maxsize=256)
def _names_in(folder: Path) -> dict[str, str]:
    return {normalize_id(name).casefold(): name for name in os.listdir(folder)} if folder.is_dir() else {}


def _listed(path: Path) -> Iterator[Record]:
    rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
    count = 0
    for count, (origin, row) in enumerate(rows, 1):  # noqa: B007
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
    files = sum(len(names) for _, _, names in _walk(path.parent)) - 1  # the list is no record
    if files > count:
        print(f"{path.as_posix()} has {count} rows, and {files} files lie below its folder: the others are not used")


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    missing = ProjectError(f"{path.as_posix()} is not there", FILES_FIX)
    columns = _used(path, read_header(path, missing))
    for line, cells in read_csv(path, columns, missing):
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
        fix = "write it anew, as the to_parquet of pandas does, or save the list as records.csv in its place"
        raise ProjectError(f"{name} is damaged or no Parquet file", fix) from error
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
    if unused := [name for name in names if name and name not in columns]:
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


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as `os.walk` does, in order, past what is hidden or no record."""

    def fail(error: OSError) -> None:
        fix = f"let yourself read it: chmod u+rx {error.filename}"
        raise ProjectError(f"{error.filename} can't be read: {error.strerror}", fix) from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield parent, folders, sorted(name for name in files if not name.startswith(".") and name not in NO_RECORDS)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order; hidden ones are none."""
    count = 0
    for parent, folders, files in _walk(folder):
        if linked := [name for name in folders if Path(parent, name).is_symlink()]:
            problem = f"{Path(parent, linked[0]).as_posix()} is a link to a folder, whose files DVC would not keep"
            raise ProjectError(problem, "put the files themselves there")
        count += len(files)
        yield from (Path(parent, name) for name in files)
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
    if path.stem.lower() == "records":
        return ProjectError(problem, f"if it lists the records, save it as {folder.as_posix()}/records.csv, in UTF-8")
    fix = f"put it into folders that are named by its {levels.replace('/', ' and ')}; if it is no record, elsewhere"
    return ProjectError(problem, fix)
