"""The dataset on disk: `data/dataset/<split>/shard-NNN.parquet`, contents encoded in it, the same bytes every time.

Few files, so few requests to a remote; and a subject is in one shard, so an opt-out changes one file. pandas, DuckDB,
Athena and Hugging Face `datasets` read them as they are.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from ..contract import interface
from ..errors import ProjectError
from ..files import atomic_write, write_json
from .consent import NOT_REQUIRED
from .source import Consented, Record, raise_problems

SCHEMA = pa.schema(
    # large_binary: a split in memory may hold more than 2 GB of images.
    [("record_id", pa.string()), ("subject_id", pa.string()), ("label", pa.string()), ("image", pa.large_binary())]
)
IDS = ["record_id", "subject_id", "label"]
SPLITS = ("train", "val", "test")
BATCH = 1024  # rows of a row group: as many images are in memory at once


def write_dataset(parts: Mapping[str, Sequence[Record]], shards: int, allowed: Consented) -> None:
    """Write `data/dataset`, whole or not at all, and `reports/prepare.json`.

    Args:
        parts: Records by split: train, val and test.
        shards: Files of a split, at most. The number changes where records are stored, not what is learned.
        allowed: What `with_consent` returned: the report has its digest, and how many records it left out.

    Raises:
        ProjectError: Contents can't be read. All are tried, so that all are counted.
    """
    write(parts, shards, Path("data", "dataset"))
    shown = allowed.sha256 if allowed.sha256 == NOT_REQUIRED else allowed.sha256[:7]
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the list.
    report = {"excluded": allowed.excluded, "consent": shown, "consent_sha256": [allowed.sha256]}
    write_json(Path("reports", "prepare.json"), report)


def write(parts: Mapping[str, Sequence[Record]], shards: int, path: Path) -> None:
    """Write the dataset to the directory `path`, which is replaced; see `write_dataset`."""
    problems: list[ProjectError] = []
    total = sum(map(len, parts.values()))
    with atomic_write(path) as new, tqdm(total=total, desc="Writing shards", unit=" images", delay=2) as progress:
        for split, records in parts.items():
            (new / split).mkdir(parents=True)
            by_shard: defaultdict[int, list[Record]] = defaultdict(list)
            for record in sorted(records, key=lambda record: record.record_id):
                digest = hashlib.sha256(record.subject_id.encode()).digest()
                by_shard[int.from_bytes(digest[:8], "big") % shards].append(record)
            for shard, rows in sorted(by_shard.items()):
                _write_shard(new / split / f"shard-{shard:03}.parquet", rows, problems, progress)
        raise_problems([error.problem for error in problems], problems[0].fix if problems else "")


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


def read(split_dir: Path) -> pa.Table:
    """Read one split of the dataset into memory.

    Args:
        split_dir: Such as `data/dataset/train`.

    Returns:
        A row per record, sorted by `record_id` whatever the number of shards; columns `record_id`, `subject_id`,
        `label` (texts) and `image` (the encoded content).

    Raises:
        ProjectError: The split isn't there, or a shard is damaged.
    """
    return pa.concat_tables(read_shard(file) for file in shard_files(split_dir)).sort_by("record_id")


def shard_files(split_dir: Path) -> list[Path]:
    """Return the shards of a split, in order; raise ProjectError when there are none."""
    if not (files := sorted(split_dir.glob("shard-*.parquet"))):
        raise ProjectError(f"{split_dir.as_posix()} holds no shards", "make the dataset: dvc repro prepare")
    return files


def read_shard(file: Path, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
    """Read columns of a shard's records, those for which `where` is true; raise ProjectError if it is damaged."""
    try:
        return pq.read_table(file, columns=columns, filters=where, partitioning=None)
    except pa.ArrowInvalid as error:
        problem = f"{file.as_posix()} is damaged: {error}"
        raise ProjectError(problem, "make the dataset again: dvc repro --force prepare") from error


def export(dataset: Path, folder: Path) -> int:
    """Write the contents' own bytes to `<folder>/<split>/<label>/<record_id>.<ext>`; return how many.

    Raises:
        ProjectError: The folder exists, the dataset doesn't, or it holds an image that this project doesn't open.
    """
    if folder.exists():
        raise ProjectError(f"{folder} exists already", "name a new folder, or remove it")
    if not (splits := sorted(path for path in dataset.glob("*") if path.is_dir())):
        raise ProjectError(f"there is no dataset in {dataset}", "dvc repro prepare, or dvc pull prepare")
    count = 0
    with atomic_write(folder) as new:
        for file in (file for split in splits for file in shard_files(split)):
            for row in read_shard(file).to_pylist():
                try:
                    extension = interface().decode(row["image"])
                except ValueError as error:
                    problem = f"the content of record {row['record_id']!r} {error}"
                    raise ProjectError(problem, "correct the source, then: dvc repro") from error
                # An id may hold what a file name can't, such as a slash.
                label, name = (quote(row[column], safe=" ") for column in ("label", "record_id"))
                target = new / file.parent.name / label / f"{name}.{extension}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(row["image"])
                count += 1
    return count
