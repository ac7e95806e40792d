"""What a model says of new contents: predict them in batches, and write a table."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..contract import interface, load_model
from ..errors import ProjectError
from ..files import atomic_write
from ..output import table
from .versions import load_version

BATCH = 64  # contents in memory at once
ROWS = 16_384  # predictions that are written at once

Row = dict[str, Any]
Predict = Callable[[Sequence[bytes]], list[Row]]


def predict_files(model: str, files: Iterable[Path]) -> Iterator[Row]:
    """Predict the contents of files, as `interface.predict` does, and yield a row for each, in order.

    A row has the `file`, in a Parquet file the `record_id` (without such a column: the number of the row, from 0), and
    the prediction. A damaged content stops nothing: in place of the prediction, its row has an `error`.

    A registered version predicts by the code that it was registered with, whatever has changed in the package since.

    Args:
        model: A directory that `train` wrote, or `models:/<name>/<number>`.
        files: Each is a content, or a Parquet file with contents in the column `image`.

    Raises:
        ProjectError: The model is damaged, MLflow has no such version, or a file can't be read.
    """
    predict = open_model(model)
    contents = (content for file in files for content in _read(file))
    while batch := list(islice(contents, BATCH)):
        predictions = _predict(predict, [content for _, content in batch])
        yield from ({**name, **prediction} for (name, _), prediction in zip(batch, predictions, strict=True))


def _read(path: Path) -> Iterator[tuple[Row, bytes]]:
    """Yield the contents of a file, each after its name."""
    try:
        if path.suffix.lower() != ".parquet":
            yield {"file": path.as_posix()}, path.read_bytes()
            return
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)  # pages as they are needed, not the whole file
        types = dict(zip(file.schema_arrow.names, map(str, file.schema_arrow.types), strict=True))
        if types.get("image") not in ("binary", "large_binary"):
            raise ValueError("it has no column `image` of bytes")
        batches = file.iter_batches(BATCH, columns=["image", *({"record_id"} & types.keys())])
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield {"file": path.as_posix(), "record_id": str(row.get("record_id", number))}, row["image"] or b""
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = getattr(error, "strerror", "") or error
        raise ProjectError(f"{path} can't be read: {reason}", "restore it, or name other files") from error


def open_model(model: str) -> Predict:
    """Load a model, of a directory or a registered version as in `predict_files`, as a function of contents."""
    if not model.startswith("models:"):
        return partial(interface().predict, load_model(Path(model)))
    return open_registered(model, load_version(model).model_dir.parents[1])


def open_registered(uri: str, path: Path) -> Predict:
    """Load a version whose files are at a path; raise ProjectError if its own code does not run here."""
    import mlflow

    try:
        return open_pyfunc(mlflow.pyfunc.load_model(str(path)))
    except Exception as error:  # it raises what it likes
        packages = " ".join((path / "requirements.txt").read_text(encoding="utf-8").split())
        fix = f"install what it was registered with: python -m pip install {packages}"
        raise ProjectError(f"{uri} can't be loaded: {error}", fix) from error


def open_pyfunc(version: Any) -> Predict:
    """Return a model that MLflow has loaded as a function of contents."""
    import pandas

    def predict(contents: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = version.predict(pandas.DataFrame({"image": contents})).to_dict("records")
        return rows

    return predict


def _predict(predict: Predict, contents: Sequence[bytes]) -> list[Row]:
    try:
        return predict(contents)
    except ValueError as error:  # some are damaged: halves are tried, down to these
        if len(contents) == 1:
            return [{"error": str(error.__cause__ or error)}]
        middle = len(contents) // 2
        return _predict(predict, contents[:middle]) + _predict(predict, contents[middle:])


def write_predictions(
    rows: Iterable[Row], columns: Mapping[str, pa.DataType], output: Path | None, allow_damaged: bool = False
) -> None:
    """Write predictions to a file, or as a table to the terminal. Damaged contents are an error, but only at the end.

    Args:
        rows: Those of `predict_files`.
        columns: Those of a prediction, with their types. A file has them between `file`, `record_id` and `error`; those
            of several values are in Parquet files only.
        output: A CSV or Parquet file, which is replaced when all rows are known; None for the terminal.
        allow_damaged: Damaged contents are no error.

    Raises:
        ProjectError: Contents are damaged, or the file's suffix is another.
    """
    schema = pa.schema({"file": pa.string(), "record_id": pa.string(), **columns, "error": pa.string()})
    if output is None or output.suffix != ".parquet":
        schema = pa.schema([field for field in schema if not pa.types.is_nested(field.type)])
    remaining = iter(tqdm(rows, unit=" predictions", delay=2, disable=output is None))
    total, damaged = 0, list[Row]()
    with _open(output, schema) if output else nullcontext(partial(_print, schema.names)) as write:
        while batch := list(islice(remaining, ROWS)):
            write(batch)
            total += len(batch)
            damaged += [row for row in batch if "error" in row]
    if damaged and not allow_damaged:
        name = " ".join((damaged[0]["file"], damaged[0].get("record_id", ""))).rstrip()
        problem = f"{len(damaged)} of {total} can't be predicted; the first, {name}, {damaged[0]['error']}"
        raise ProjectError(problem, "restore or remove them, or accept rows with an error: --allow-damaged")


def _print(names: Iterable[str], rows: Sequence[Row]) -> None:
    """Print a table without the columns that no row has."""
    columns = [name for name in names if any(name in row for row in rows)]
    cells = ([row.get(name, "") for name in columns] for row in rows)
    click.echo(
        table([[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells], columns)
    )


@contextmanager
def _open(path: Path, schema: pa.Schema) -> Iterator[Callable[[list[Row]], None]]:
    """Give a function that writes rows to a file."""
    with atomic_write(path) as new:
        if path.suffix == ".csv":
            with new.open("w", encoding="utf-8", newline="") as text:
                writer = csv.DictWriter(text, schema.names, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                yield writer.writerows
        elif path.suffix == ".parquet":
            with pq.ParquetWriter(new, schema) as parquet:
                yield lambda rows: parquet.write_batch(pa.RecordBatch.from_pylist(rows, schema))
        else:
            raise ProjectError(f"{path} is neither .csv nor .parquet", f"--output {path.with_suffix('.csv')}")
