"""The data manifest: a row per record of the dataset, to be asked later whose records a model has seen.

It lists records without their images, so it stays small: it goes along with every training run.
"""

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..files import replacing
from .shards import IDS, read_shard, shard_files
from .splits import SPLITS

COLUMNS = ["subject_id", "record_id", "path", "split", "label"]
ROW_GROUP = 16_384


def build(dataset: Path) -> pa.Table:
    """List the records of a dataset.

    Returns:
        The columns `COLUMNS`, all text, sorted by `subject_id`, then `record_id`. `path` is the record's shard,
        relative to the dataset.
    """
    tables = []
    for split in SPLITS:
        for file in shard_files(dataset / split):
            ids = read_shard(file, IDS)
            path = pa.repeat(pa.scalar(file.relative_to(dataset).as_posix()), len(ids))
            tables.append(ids.append_column("path", path).append_column("split", pa.repeat(pa.scalar(split), len(ids))))
    table = pa.concat_tables(tables).select(COLUMNS)
    return table.sort_by([("subject_id", "ascending"), ("record_id", "ascending")])


def write(table: pa.Table, path: Path) -> None:
    """Write a manifest as Parquet, in which a subject is found without reading all of it."""
    subjects = max(1, min(ROW_GROUP, pc.count_distinct(table["subject_id"]).as_py()))
    options: dict[str, Any] = {"bloom_filter_options": {"subject_id": {"ndv": subjects, "fpp": 0.01}}}
    with replacing(path) as new:
        pq.write_table(table, new, row_group_size=ROW_GROUP, compression="zstd", **options)


def digest(table: pa.Table) -> str:
    """Return the SHA-256 of a manifest's rows as CSV, in hexadecimal.

    Unlike the digest of the Parquet file, it depends on nothing but the rows: UTF-8, a header, rows in the manifest's
    order, lines that end in a line feed, quotes only where a cell needs them.
    """
    sha = hashlib.sha256((",".join(COLUMNS) + "\n").encode())
    for batch in table.to_batches(max_chunksize=ROW_GROUP):
        text = io.StringIO(newline="")
        cells = (column.to_pylist() for column in batch.columns)
        csv.writer(text, lineterminator="\n").writerows(zip(*cells, strict=True))
        sha.update(text.getvalue().encode())
    return sha.hexdigest()


def counts(table: pa.Table) -> list[dict[str, Any]]:
    """Count the records of each split and label.

    Returns:
        `{"split", "label", "records"}` for every pair, also where there are none; in order of split, then label.
    """
    rows = table.group_by(["split", "label"]).aggregate([([], "count_all")]).to_pylist()
    found = {(row["split"], row["label"]): row["count_all"] for row in rows}
    labels = sorted({label for _, label in found})
    pairs = ((split, label) for split in SPLITS for label in labels)
    return [{"split": split, "label": label, "records": found.get((split, label), 0)} for split, label in pairs]
