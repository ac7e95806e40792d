"""The data manifest: one row per record of the dataset, to find later whose records a model has seen.

It lists records without their content, so it stays small: it is stored with every training run.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
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
PART = 1 << 20  # records that are sorted at once: more do not need more memory, but another read of all shards
FIRST = 13  # records of each label in a split that are kept to be shown


@dataclass(frozen=True)
class Summary:
    """What a manifest holds."""

    records: int
    subjects: int
    counts: list[dict[str, Any]]  # `{"split", "label", "records"}` for every pair, also without records, in order
    first: pa.Table  # the `FIRST` records, by id, of each pair, in that order
    sha256: str  # of the rows: see `Digest`
    dataset: Path  # its directory

    def first_records(self, split: str, label: str) -> list[tuple[str, bytes]]:
        """Return id and content of the first records, by id, of a label in a split: `FIRST` at most."""
        rows = self.first.filter((pc.field("split") == split) & (pc.field("label") == label))
        ids: list[str] = rows["record_id"].to_pylist()
        contents: dict[str, bytes] = {}
        for path in rows["path"].unique().to_pylist():
            table = read_shard(self.dataset / path, ["record_id", "image"], pc.field("record_id").isin(ids))
            contents |= dict(zip(table["record_id"].to_pylist(), table["image"].to_pylist(), strict=True))
        return [(record_id, contents[record_id]) for record_id in ids]


def write_manifest(dataset: Path, path: Path) -> Summary:
    """List the records of a dataset in a Parquet file, and count them.

    Args:
        dataset: The dataset's directory.
        path: The manifest, which is replaced.

    Returns:
        The counts (`records`, `subjects`, `counts`), the digest of the rows (`sha256`), and a method
        `first_records(split, label)` for samples.

    Raises:
        ProjectError: The dataset isn't there or is damaged.
    """
    return write(build(dataset), path, dataset)


def count_labels(manifest: pa.Table) -> Counter[tuple[str, str]]:
    """Return how many records of a manifest, or of a part of it, each (split, label) has."""
    groups = manifest.group_by(["split", "label"]).aggregate([([], "count_all")])
    return Counter({(row["split"], row["label"]): row["count_all"] for row in groups.to_pylist()})


def verify(path: Path, dataset: Path, report: Path) -> None:
    """Raise ProjectError unless a manifest, and its report, list what is in the dataset: audits rely on it."""
    digest_in_file, digest_in_report = digest_of(path), read_json(report)["sha256"]
    if [digest_in_file] != digest_in_report or digest_in_file != digest(build(dataset)):
        problem = f"{path.as_posix()} is not the list of the records in {dataset.as_posix()}"
        raise ProjectError(problem, "dvc repro --force manifest, then: dvc repro")


def build(dataset: Path, at_once: int = PART) -> Iterator[pa.Table]:
    """List the records of a dataset, in parts of about `at_once` records; all of a subject are in one part.

    Yields:
        The columns `COLUMNS`, all text, sorted by `subject_id`, then `record_id`, within and across parts. `path` is
        the record's shard, relative to the dataset.
    """
    files = [(split, file) for split in SPLITS for file in shard_files(dataset / split)]
    ranges: list[pc.Expression | None] = [None]  # of subjects, with about equally many records
    if sum(read_shard(file, []).num_rows for _, file in files) > at_once:
        step = max(1, at_once // 1000)
        # The rows are in order of record_id, so a regular sample is as good as a random one.
        columns = (read_shard(file, ["subject_id"])["subject_id"] for _, file in files)
        sample = sorted(chain.from_iterable(column[::step].to_pylist() for column in columns))
        bounds = sorted(set(sample[at_once // step :: at_once // step]))
        subject = pc.field("subject_id")
        between = [(subject >= low) & (subject < high) for low, high in pairwise(["", *bounds])]
        ranges = [*between, subject >= bounds[-1]]
    for where in ranges:
        tables = []
        for split, file in files:
            ids = read_shard(file, IDS, where)
            path = pa.repeat(pa.scalar(file.relative_to(dataset).as_posix()), len(ids))
            tables.append(ids.append_column("path", path).append_column("split", pa.repeat(pa.scalar(split), len(ids))))
        table = pa.concat_tables(tables).select(COLUMNS)
        yield table.sort_by([("subject_id", "ascending"), ("record_id", "ascending")])


def write(parts: Iterable[pa.Table], path: Path, dataset: Path = Path()) -> Summary:
    """Write a manifest as Parquet, in which a subject is found without reading all of it; see `write_manifest`."""
    parts = iter(parts)
    head = next(parts)
    distinct = max(1, min(ROW_GROUP, pc.count_distinct(head["subject_id"]).as_py()))
    options = {"bloom_filter_options": {"subject_id": {"ndv": distinct, "fpp": 0.01}}}
    subjects = 0
    sha, counts, first, rest = Digest(), Counter[tuple[str, str]](), SCHEMA.empty_table(), SCHEMA.empty_table()
    with atomic_write(path) as new, pq.ParquetWriter(new, SCHEMA, compression="zstd", **options) as file:
        for part in chain([head], parts):
            sha.update(part)
            subjects += pc.count_distinct(part["subject_id"]).as_py()
            counts.update(count_labels(part))
            # Those before, and those of this part.
            first = first_of_each(pa.concat_tables([first, part]), ["split", "label"], FIRST)
            rest = pa.concat_tables([rest, part.cast(SCHEMA)])
            if whole := len(rest) - len(rest) % ROW_GROUP:  # row groups are full, however large the parts are
                file.write_table(rest.slice(0, whole), ROW_GROUP)
                rest = rest.slice(whole)
        if len(rest):
            file.write_table(rest, ROW_GROUP)
    pairs = ((split, label) for split in SPLITS for label in sorted({label for _, label in counts}))
    listed = [{"split": split, "label": label, "records": counts[split, label]} for split, label in pairs]
    return Summary(sum(counts.values()), subjects, listed, first, sha.hexdigest(), dataset)


def first_of_each(table: pa.Table, columns: list[str], most: int) -> pa.Table:
    """Return the first rows by `record_id`, at most `most`, of each group of rows that are equal in `columns`.

    They are sorted by `columns`, then by `record_id`.
    """
    ordered = table.sort_by([(column, "ascending") for column in (*columns, "record_id")]).combine_chunks()
    is_start = np.ones(len(ordered), bool)
    differs = (pc.not_equal(ordered[column][1:], ordered[column][:-1]).to_numpy() for column in columns)
    is_start[1:] = np.logical_or.reduce(list(differs))
    place = np.arange(len(ordered)) - np.flatnonzero(is_start)[np.cumsum(is_start) - 1]
    return ordered.filter(pa.array(place < most)).combine_chunks()


class Digest:
    """The SHA-256 of a manifest's rows as CSV, fed piece by piece.

    Unlike the digest of the Parquet file, it depends on the rows alone: UTF-8, a header, rows in the manifest's
    order, lines that end in a line feed, quotes only where a cell needs them.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256((",".join(COLUMNS) + "\n").encode())

    def update(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add the next rows, with the columns `COLUMNS`."""
        for batch in rows.to_batches(max_chunksize=ROW_GROUP) if isinstance(rows, pa.Table) else [rows]:
            if any(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py() for column in batch.columns):
                text = io.StringIO(newline="")
                cells = (column.to_pylist() for column in batch.columns)
                csv.writer(text, lineterminator="\n").writerows(zip(*cells, strict=True))
                self._sha.update(text.getvalue().encode())
            elif len(batch):  # no cell needs quotes: what the csv module makes of such cells, only faster
                lines = pc.binary_join_element_wise(*batch.columns, ",")
                self._sha.update(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0].as_buffer())
                self._sha.update(b"\n")

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return self._sha.hexdigest()


def digest(parts: Iterable[pa.Table | pa.RecordBatch]) -> str:
    """Return the digest of a manifest that comes in parts."""
    sha = Digest()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of the rows of a manifest file, read piece by piece; raise ProjectError if it is unreadable."""
    try:
        with pq.ParquetFile(path) as file:
            return digest(file.iter_batches(ROW_GROUP, columns=COLUMNS))
    except (pa.ArrowException, OSError) as error:
        problem = f"{path.as_posix()} is not there, damaged or no manifest"
        raise ProjectError(problem, "dvc repro --force manifest") from error
