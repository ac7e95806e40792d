"""What is in a version of the dataset, and what changed from one to another, by their manifests.

A manifest has no contents: that an image was replaced under its record's id is not seen here.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..records import shards
from ..records.manifest import count_labels, digest, first_of_each
from ..tracking import dvc_remote
from ..tracking.run_context import DATASET
from .versions import Version, known

FIRST = 5  # records of a label that are named
COLUMNS = ("subject_id", "split", "label")  # of a record, which another version may have otherwise
CHANGES = {"moved": "split", "relabelled": "label", "reassigned": "subject_id"}  # each with the column that differs
ROWS = 16_384  # that are Python's objects at once


@dataclass(frozen=True)
class Comparison:
    """What changed from an old version to a new one."""

    records: dict[str, pa.Table]  # by kind of change: `record_id`, then `old_` and `new_` of each of `COLUMNS`
    subjects: dict[str, pa.Array]  # ids of those that were added, and of those that left
    counts: list[dict[str, Any]]  # `{"split", "label", "old", "new"}` for each pair that has records

    @property
    def columns(self) -> list[str]:
        """Return the keys of `rows`."""
        return ["change", *self.records["added"].column_names]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give every change of a record, then every subject that was added or left, with the same keys."""
        for change, records in self.records.items():
            for batch in records.to_batches(ROWS):
                yield from ({"change": change, **row} for row in batch.to_pylist())
        nothing = dict.fromkeys(self.columns)
        for change, side in (("added", "new"), ("left", "old")):
            for subject in self.subjects[change].to_pylist():
                yield {**nothing, "change": f"subject {change}", f"{side}_subject_id": subject}


def compare(old: pa.Table, new: pa.Table) -> Comparison:
    """Compare two manifests, record by record."""
    position = pc.index_in(new["record_id"], value_set=old["record_id"])  # in the old one; null for an added record
    remains = np.zeros(len(old), bool)
    remains[position.drop_null().to_numpy()] = True
    left = old.filter(pa.array(~remains))
    pairs = _pairs(new["record_id"], old.take(position), new)
    records = {
        "added": pairs.filter(pc.is_null(position)),
        "left": _pairs(left["record_id"], left, left.take(pa.nulls(len(left), pa.int32()))),
    }
    for change, column in CHANGES.items():  # what is compared with null, for an added record, is filtered out
        records[change] = pairs.filter(pc.not_equal(pairs[f"old_{column}"], pairs[f"new_{column}"]))
    before, after = old["subject_id"].unique(), new["subject_id"].unique()
    added = after.filter(pc.invert(pc.is_in(after, before)))
    departed = before.filter(pc.invert(pc.is_in(before, after)))
    old_counts, new_counts = count_labels(old), count_labels(new)
    return Comparison(
        {change: table.sort_by("record_id") for change, table in records.items()},
        {"added": added, "left": departed},
        [
            {"split": split, "label": label, "old": old_counts[split, label], "new": new_counts[split, label]}
            for split, label in sorted({*old_counts, *new_counts}, key=_order)
        ],
    )


def _pairs(record_ids: pa.ChunkedArray, old: pa.Table, new: pa.Table) -> pa.Table:
    sides = (("old", old), ("new", new))
    columns = {f"{side}_{column}": table[column] for column in COLUMNS for side, table in sides}
    return pa.table({"record_id": record_ids, **columns})


def _order(split_and_label: tuple[str, str]) -> tuple[int, str]:
    return shards.SPLITS.index(split_and_label[0]), split_and_label[1]


def describe(version: Version, manifest: pa.Table) -> dict[str, Any]:
    """Return what `data show` says of a version with this manifest."""
    counts, splits = count_labels(manifest), Counter[str]()
    ordered = sorted(counts, key=_order)
    for split, label in ordered:
        splits[split] += counts[split, label]
    same = next((other for other in known() if other.md5 == version.md5), version)
    first = first_of_each(manifest, ["label"], FIRST).select(["label", "record_id", "split", "path"])
    return {
        **replace(version, labels=same.labels, models=same.models).row(),
        "manifest_sha256": digest([manifest]),
        "records": len(manifest),
        "subjects": len(manifest["subject_id"].unique()),
        "splits": splits,
        "excluded": version.report("prepare").get("excluded"),
        "counts": [{"split": split, "label": label, "records": counts[split, label]} for split, label in ordered],
        "first_records": first.to_pylist(),
    }


def write_samples(version: Version, manifest: pa.Table, folder: Path) -> int:
    """Write the first records of each label as files below a new folder, as `data export` does; return how many.

    Of the dataset, only the shards that hold them are fetched.
    """
    records = first_of_each(manifest, ["label"], FIRST)
    paths, wanted = records["path"].unique().to_pylist(), pc.field("record_id").isin(records["record_id"])
    with tempfile.TemporaryDirectory() as temporary:
        root, samples = Path(), Path(temporary, "samples")
        if version.commit:
            root = Path(temporary)
            dvc_remote.restore(version.commit, tuple(f"{DATASET}/{path}" for path in paths), root)
        for path in paths:
            (samples / path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(shards.read_shard(root / DATASET / path, None, wanted), samples / path)
        return shards.export(samples, folder)
