"""The data manifest: a row per record of the dataset, to be asked later whose records a model has seen.

It lists records without their images, so it stays small: it goes along with every training run.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import ProjectError
from ..files import atomic_write, read_json
from .shards import IDS, SPLITS, read_shard, shard_files

COLUMNS = ["subject_id", "record_id", "path", "split", "label"]
SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
ROW_GROUP = 16_384
PART = 1 << 20
"""Records that are sorted at once: more do not need more memory, but another look at all shards."""
QUOTED = '[",\r\n]'
"""Cells with one of these are quoted in CSV."""
FIRST = 13
"""Records of each label in a split that are kept to be shown."""


@dataclass(frozen=True)
class Summary:
    """What a manifest holds.

    Args:
        records: How many.
        subjects: How many.
        counts: `{"split", "label", "records"}` for every pair, also where there are none, in order.
        first: The `FIRST` records, by id, of each pair, in that order.
        sha256: SHA-256 of the rows, in hexadecimal: see `Digest`.
    """

    records: int
    subjects: int
    counts: list[dict[str, Any]]
    first: pa.Table
    sha256: str


def build(dataset: Path, at_once: int = PART) -> Iterator[pa.Table]:
    """List the records of a dataset, part by part.

    Args:
        dataset: Its directory.
        at_once: Records of a part, about; all of a subject are in one.

    Returns:
        The columns `COLUMNS`, all text, sorted by `subject_id`, then `record_id`; so are the parts. `path` is the
        record's shard, relative to the dataset.

    Raises:
        ProjectError: The dataset isn't there.
    """
    return _parts(dataset, [(split, file) for split in SPLITS for file in shard_files(dataset / split)], at_once)


def _parts(dataset: Path, files: list[tuple[str, Path]], at_once: int) -> Iterator[pa.Table]:
    for where in _ranges([file for _, file in files], at_once):
        tables = []
        for split, file in files:
            ids = read_shard(file, IDS, where)
            path = pa.repeat(pa.scalar(file.relative_to(dataset).as_posix()), len(ids))
            tables.append(ids.append_column("path", path).append_column("split", pa.repeat(pa.scalar(split), len(ids))))
        table = pa.concat_tables(tables).select(COLUMNS)
        yield table.sort_by([("subject_id", "ascending"), ("record_id", "ascending")])


def _ranges(files: list[Path], at_once: int) -> Iterator[pc.Expression | None]:
    """Cut the subjects into ranges of about equally many records."""
    if sum(read_shard(file, []).num_rows for file in files) <= at_once:
        yield None
        return
    sample: list[str] = []
    step = max(1, at_once // 1000)
    for file in files:  # in order of record_id, so every so many is as good as any
        sample += read_shard(file, ["subject_id"])["subject_id"][::step].to_pylist()
    bounds = [None, *sorted(set(sorted(sample)[at_once // step :: at_once // step])), None]
    for low, high in pairwise(bounds):
        above = pc.field("subject_id") >= (low or "")
        yield above if high is None else above & (pc.field("subject_id") < high)


def write_manifest(dataset: Path, path: Path) -> Summary:
    """List the records of a dataset directory in a Parquet file, and count them.

    Args:
        dataset: The dataset's directory.
        path: The manifest, which is replaced.

    Raises:
        ProjectError: The dataset isn't there or is damaged.
    """
    return write(build(dataset), path)


def first_records(dataset: Path, manifest: Summary, split: str, label: str) -> list[tuple[str, bytes]]:
    """Return id and content of the first records, by id, of a label in a split: `FIRST` at most.

    Args:
        dataset: The dataset's directory.
        manifest: What `write_manifest` returned for it.
        split: Such as train.
        label: Such as "7".
    """
    rows = manifest.first.filter((pc.field("split") == split) & (pc.field("label") == label))
    ids: list[str] = rows["record_id"].to_pylist()
    contents: dict[str, bytes] = {}
    for path in rows["path"].unique().to_pylist():
        table = read_shard(dataset / path, ["record_id", "image"], pc.field("record_id").isin(ids))
        contents |= dict(zip(table["record_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return [(record_id, contents[record_id]) for record_id in ids]


def check_dataset(dataset: Path, path: Path, report: Path) -> None:
    """See that the manifest lists what is in the dataset: audits will believe it.

    Raises:
        ProjectError: It does not, or its report is another one's.
    """
    listed, reported = digest_of(path), read_json(report)["sha256"]
    if [listed] != reported or listed != digest(build(dataset)):
        raise ProjectError(
            f"{path.as_posix()} is not the list of the records in {dataset.as_posix()}",
            "dvc repro --force manifest, then: dvc repro",
        )


def write(parts: Iterable[pa.Table], path: Path) -> Summary:
    """Write a manifest as Parquet, in which a subject is found without reading all of it."""
    records = subjects = 0
    sha, found, first = Digest(), [], SCHEMA.empty_table()
    with atomic_write(path) as new, _Writer(new) as writer:
        for part in parts:
            writer.write(part)
            sha.update(part)
            records += len(part)
            subjects += pc.count_distinct(part["subject_id"]).as_py()
            found.append(part.group_by(["split", "label"]).aggregate([([], "count_all")]))
            first = _first(pa.concat_tables([first, part]))
    return Summary(records, subjects, _counts(found), first, sha.hexdigest())


class _Writer:
    """Writes row groups of `ROW_GROUP` rows, whatever the parts come in."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, SCHEMA.empty_table()
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> "_Writer":
        return self

    def write(self, part: pa.Table) -> None:
        if self._file is None:
            subjects = max(1, min(ROW_GROUP, pc.count_distinct(part["subject_id"]).as_py()))
            options: dict[str, Any] = {"bloom_filter_options": {"subject_id": {"ndv": subjects, "fpp": 0.01}}}
            self._file = pq.ParquetWriter(self._path, SCHEMA, compression="zstd", **options)
        table = pa.concat_tables([self._rest, part.cast(SCHEMA)])
        whole = len(table) - len(table) % ROW_GROUP
        if whole:
            self._file.write_table(table.slice(0, whole), ROW_GROUP)
        self._rest = table.slice(whole)

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._file is None:
            return
        if kind is None and len(self._rest):
            self._file.write_table(self._rest, ROW_GROUP)
        self._file.close()


class Digest:
    """The SHA-256 of a manifest's rows as CSV, fed piece by piece.

    Unlike the digest of the Parquet file, it depends on nothing but the rows: UTF-8, a header, rows in the manifest's
    order, lines that end in a line feed, quotes only where a cell needs them.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256((",".join(COLUMNS) + "\n").encode())

    def update(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Take in the next rows, with the columns `COLUMNS`."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        for batch in table.to_batches(max_chunksize=ROW_GROUP):
            self._sha.update(_lines(batch))

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return self._sha.hexdigest()


def _lines(batch: pa.RecordBatch) -> bytes:
    if not any(pc.any(pc.match_substring_regex(column, QUOTED)).as_py() for column in batch.columns):
        lines = pc.binary_join_element_wise(*batch.columns, ",")  # what the csv module makes of such cells, only faster
        text: bytes = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0].as_buffer().to_pybytes()
        return text + b"\n" if text else b""
    written = io.StringIO(newline="")
    cells = (column.to_pylist() for column in batch.columns)
    csv.writer(written, lineterminator="\n").writerows(zip(*cells, strict=True))
    return written.getvalue().encode()


def digest(parts: Iterable[pa.Table | pa.RecordBatch]) -> str:
    """Return the digest of a manifest that comes in parts."""
    sha = Digest()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of the rows of a manifest file, read piece by piece.

    Raises:
        ProjectError: It can't be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            return digest(file.iter_batches(ROW_GROUP, columns=COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise ProjectError(f"{path.as_posix()} can't be read: {error}", "dvc repro --force manifest") from error


def _counts(found: list[pa.Table]) -> list[dict[str, Any]]:
    total: dict[tuple[str, str], int] = {}
    for row in (row for table in found for row in table.to_pylist()):
        pair = (row["split"], row["label"])
        total[pair] = total.get(pair, 0) + row["count_all"]
    labels = sorted({label for _, label in total})
    pairs = ((split, label) for split in SPLITS for label in labels)
    return [{"split": split, "label": label, "records": total.get((split, label), 0)} for split, label in pairs]


def _first(table: pa.Table) -> pa.Table:
    """Return the `FIRST` rows, by record, of each split and label."""
    ordered = table.sort_by([("split", "ascending"), ("label", "ascending"), ("record_id", "ascending")])
    pairs = pc.binary_join_element_wise(ordered["split"], ordered["label"], "/").combine_chunks().dictionary_encode()
    sizes = np.bincount(pairs.indices.to_numpy())  # in order, since they are numbered as they come
    place = np.arange(len(ordered)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ordered.filter(pa.array(place < FIRST)).combine_chunks()
