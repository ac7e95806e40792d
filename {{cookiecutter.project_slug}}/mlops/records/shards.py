"""The dataset on disk: `data/dataset/<split>/delivery=<name>/shard-NNN.parquet`, the same bytes every time.

Contents are encoded in it. The records of a delivery have files of their own, so new data are new files; and all
records that a subject has in a delivery are in one file, so an opt-out changes one file for each delivery. Records
without a delivery lie in `<split>` itself. pandas, DuckDB, Athena and Hugging Face `datasets` read them as they are.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice
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
from .hashing import whole_hash
from .source import SPLITS as SPLITS
from .source import Problems, Records, Source, folder_name

SCHEMA = pa.schema(
    # large_binary: a split in memory may hold more than 2 GB of images.
    [("record_id", pa.string()), ("subject_id", pa.string()), ("label", pa.string()), ("image", pa.large_binary())]
)
IDS = ["record_id", "subject_id", "label"]
BATCH = 1024  # rows of a row group, at most
BATCH_BYTES = 1 << 26  # of their contents, about: as much is in memory at once
PER_SHARD = 64  # records of a file, about
READERS = 8  # threads that read contents and check them, at most
READ_AHEAD = 64  # contents that are read at once

Row = tuple[str, str, str, str, str]  # record_id, subject_id, label, content, origin


def write_dataset(records: Records, shards: int, compact_until: str = "") -> None:
    """Write `data/dataset`, whole or not at all, and `reports/prepare.json`.

    Args:
        records: Those that may be used, with a split each; the report has the digest of the registry that decided, and
            how many records it left out.
        shards: Files of a split and delivery, at most. A smaller delivery has fewer. The number changes where records
            are stored, not what is learned.
        compact_until: A delivery: it and those whose names sort before it are stored as one.

    Raises:
        ProjectError: Contents can't be read. All are tried, so that all are counted.
    """
    write(records, shards, Path("data", "dataset"), compact_until)
    digest = records.consent_sha256
    shown = digest if digest == NOT_REQUIRED else digest[:7]
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the list.
    report = {"excluded": records.excluded(), "consent": shown, "consent_sha256": [digest]}
    write_json(Path("reports", "prepare.json"), report)


def write(records: Records, shards: int, path: Path, compact_until: str = "") -> None:
    """Write the dataset to the directory `path`, which is replaced; see `write_dataset`."""
    problems = Problems()
    with (
        atomic_write(path) as new,
        ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool,
        tqdm(total=records.count(), desc="Writing shards", unit=" records", delay=2) as progress,
    ):
        new.mkdir()
        for file, rows in _plan(records, shards, compact_until):
            (new / file).parent.mkdir(parents=True, exist_ok=True)
            _write_shard(new / file, _with_contents(rows, records.source, pool, progress), problems)
        problems.check()


def _plan(records: Records, shards: int, compact_until: str) -> Iterator[tuple[Path, Iterator[Row]]]:
    """Yield each file of the dataset with its rows, sorted by `record_id`.

    How many files a delivery has depends on its records in the source, whether they may be used or not: so a withdrawal
    moves nobody else to another file. It is a power of two, so it seldom changes when a source itself changes.
    """

    def stored_in(delivery: str) -> str:
        return f"until-{compact_until}" if delivery and delivery <= compact_until else delivery

    def shard_of(split: str, delivery: str, subject_id: str) -> int:
        return whole_hash(subject_id) % counts[split, delivery]

    records.table.create_function("stored_in", 1, stored_in, deterministic=True)
    records.table.create_function("shard_of", 3, shard_of, deterministic=True)
    listed = "SELECT split, stored_in(delivery) AS folder, COUNT(*) FROM records GROUP BY split, folder"
    counts: dict[tuple[str, str], int] = {
        (split, delivery): min(shards, 1 << (-(-count // PER_SHARD) - 1).bit_length())
        for split, delivery, count in records.table.execute(listed)
    }
    rows = records.table.execute(
        "SELECT split, stored_in(delivery) AS folder, shard_of(split, stored_in(delivery), subject_id) AS shard,"
        " record_id, subject_id, label, content, origin FROM records WHERE allowed"
        " ORDER BY split, folder, shard, record_id"
    )
    for (split, delivery, shard), group in groupby(rows, lambda row: row[:3]):
        folder = f"delivery={folder_name(delivery)}" if delivery else ""
        yield Path(split, folder, f"shard-{shard:03}.parquet"), (row[3:] for row in group)


def _with_contents(
    rows: Iterator[Row], source: Source, pool: Executor, progress: Any
) -> Iterator[tuple[Row, bytes | ProjectError]]:
    """Read the contents of rows, several at a time, in their order; an error takes the place of a content."""

    def read_one(row: Row) -> bytes | ProjectError:
        try:
            return source.read(row[3])
        except ProjectError as error:
            return ProjectError(f"{row[4]}: {error.problem}", error.fix)

    while some := list(islice(rows, READ_AHEAD)):
        yield from zip(some, pool.map(read_one, some), strict=True)
        progress.update(len(some))


def _write_shard(file: Path, rows: Iterable[tuple[Row, bytes | ProjectError]], problems: Problems) -> None:
    # Images are compressed already, and have no order worth keeping statistics of.
    options = {"compression": dict.fromkeys(IDS, "zstd") | {"image": "none"}, "use_dictionary": IDS[1:]}
    with pq.ParquetWriter(file, SCHEMA, write_statistics=IDS, **options) as writer:
        group: list[tuple[str, str, str, bytes]] = []
        size = 0
        for (record_id, subject_id, label, _, _), content in rows:
            if isinstance(content, ProjectError):
                problems.add(content.problem, content.fix)
            elif not problems.count:  # else nothing of it is kept
                group.append((record_id, subject_id, label, content))
                size += len(content)
                if len(group) == BATCH or size >= BATCH_BYTES:
                    writer.write_table(_table(group))
                    group, size = [], 0
        if group:
            writer.write_table(_table(group))


def _table(rows: Sequence[tuple[str, str, str, bytes]]) -> pa.Table:
    return pa.table(list(zip(*rows, strict=True)), schema=SCHEMA)


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
    if not (files := sorted(split_dir.rglob("shard-*.parquet"))):
        splits = ", ".join(sorted(path.parent.name for path in split_dir.parent.glob("*/*"))) or "none"
        fix = f"make the dataset: dvc repro prepare; it has these splits now: {splits}"
        raise ProjectError(f"{split_dir.as_posix()} holds no shards", fix)
    return files


def read_shard(file: Path, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
    """Read columns of a shard's records, those for which `where` is true; raise ProjectError if it is damaged."""
    with damage_named(file):
        return pq.read_table(file, columns=columns, filters=where, partitioning=None)


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Raise ProjectError where Arrow finds a shard damaged."""
    try:
        yield
    except (pa.ArrowException, ValueError, LookupError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, such as "no permission"
            raise
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
                target = new / file.relative_to(dataset).parts[0] / label / f"{name}.{extension}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(row["image"])
                count += 1
    return count
