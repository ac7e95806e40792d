"""The dataset on disk: `data/dataset/<split>/shard-NNN.parquet`, images encoded in it, the same bytes every time.

Few files, so few requests to a remote; and a subject is in one shard, so taking a subject out changes one file.
pandas, DuckDB, Athena and Hugging Face `datasets` read them as they are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from ..errors import ProjectError
from ..files import atomic_write, write_json
from .consent import NOT_REQUIRED, Consented
from .source import Record, refuse

SCHEMA = pa.schema(
    # large_binary: a split in memory may hold more than 2 GB of images.
    [("record_id", pa.string()), ("subject_id", pa.string()), ("label", pa.string()), ("image", pa.large_binary())]
)
IDS = ["record_id", "subject_id", "label"]
SPLITS = ("train", "val", "test")
BATCH = 1024
"""Rows of a row group: as many images are in memory at once."""


def write_dataset(parts: Mapping[str, Sequence[Record]], shards: int, allowed: Consented) -> None:
    """Write `data/dataset`, whole or not at all, and `reports/prepare.json`.

    Args:
        parts: Records by split: train, val and test.
        shards: Files of a split, at most. The number changes where records are stored, not what is learned.
        allowed: What `with_consent` returned: the report has its digest, and how many records it left out.

    Raises:
        ProjectError: Contents can't be read. All are tried, so that all can be named.
    """
    write(parts, shards, Path("data", "dataset"))
    shown = allowed.sha256 if allowed.sha256 == NOT_REQUIRED else allowed.sha256[:7]
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the list.
    report = {"excluded": allowed.excluded, "consent": shown, "consent_sha256": [allowed.sha256]}
    write_json(Path("reports", "prepare.json"), report)


def write(parts: Mapping[str, Sequence[Record]], shards: int, path: Path) -> None:
    """Write the dataset, whole or not at all.

    Args:
        parts: Records by split.
        shards: Files of a split, at most. The number changes where records are stored, not what is learned.
        path: The dataset's directory, which is replaced.

    Raises:
        ProjectError: Images can't be read. All are tried, so that all can be told.
    """
    problems: list[ProjectError] = []
    total = sum(map(len, parts.values()))
    with atomic_write(path) as new, tqdm(total=total, desc="Writing shards", unit=" images", delay=2) as progress:
        for split, records in parts.items():
            (new / split).mkdir(parents=True)
            placed = sorted((shard_of(record.subject_id, shards), record.record_id, record) for record in records)
            for shard, rows in groupby(placed, key=lambda place: place[0]):
                _write_shard(new / split / f"shard-{shard:03}.parquet", [row[2] for row in rows], problems, progress)
        refuse([error.problem for error in problems], problems[0].fix if problems else "")


def shard_of(subject_id: str, shards: int) -> int:
    """Return the number of a subject's shard, from 0."""
    return int.from_bytes(hashlib.sha256(subject_id.encode()).digest()[:8], "big") % shards


def read(split_dir: Path) -> pa.Table:
    """Read one split into memory.

    Returns:
        A row per record, sorted by `record_id` whatever the number of shards; `image` holds encoded image files.

    Raises:
        ProjectError: The split isn't there, or a shard is damaged.
    """
    return pa.concat_tables(read_shard(file) for file in shard_files(split_dir)).sort_by("record_id")


def shard_files(split_dir: Path) -> list[Path]:
    """List the shards of a split, in order.

    Raises:
        ProjectError: There are none.
    """
    files = sorted(split_dir.glob("shard-*.parquet"))
    if not files:
        raise ProjectError(f"{split_dir.as_posix()} holds no shards", "make the dataset: dvc repro prepare")
    return files


def read_shard(file: Path, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
    """Read one shard.

    Args:
        file: The shard.
        columns: Read these columns; by default all.
        where: Read the records for which it is true; by default all.

    Raises:
        ProjectError: The file is damaged.
    """
    try:
        return pq.read_table(file, columns=columns, filters=where, partitioning=None)
    except pa.ArrowInvalid as error:
        raise ProjectError(
            f"{file.as_posix()} is damaged: {error}", "make the dataset again: dvc repro --force prepare"
        ) from error


def _write_shard(file: Path, records: Sequence[Record], problems: list[ProjectError], progress: Any) -> None:
    # Images are compressed already, and have no order worth keeping statistics of.
    options = {"compression": dict.fromkeys(IDS, "zstd") | {"image": "none"}, "use_dictionary": IDS[1:]}
    with pq.ParquetWriter(file, SCHEMA, write_statistics=IDS, **options) as writer:
        for start in range(0, len(records), BATCH):
            rows, batch = [], records[start : start + BATCH]
            for record in batch:
                try:
                    rows.append((record.record_id, record.subject_id, record.label, record.read()))
                except ProjectError as error:
                    problems.append(error)
            progress.update(len(batch))
            if not problems:
                writer.write_table(pa.table(list(zip(*rows, strict=True)), schema=SCHEMA))
