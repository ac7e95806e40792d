"""The data manifest: every record once, with a digest of the rows and of nothing else."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from {{ cookiecutter.package_name }}.data import manifest, shards
from {{ cookiecutter.package_name }}.data.sources import Record


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    def record(name: str, subject: str, label: str) -> Record:
        return Record(name, subject, label, lambda: b"image", "")

    parts = {
        "train": [record("00123", "NA", 'say "hi", twice'), record("7", "B", "cat"), record("é", "b", "cat")],
        "val": [record("=cmd()", "C", "cat")],
        "test": [record("10", "B\u00e9", "dog")],
    }
    shards.write(parts, 1, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_build_lists_every_record_sorted_and_unchanged(dataset: Path) -> None:
    rows = [tuple(row.values()) for row in manifest.build(dataset).to_pylist()]
    assert rows == [
        ("B", "7", "train/shard-000.parquet", "train", "cat"),
        ("Bé", "10", "test/shard-000.parquet", "test", "dog"),
        ("C", "=cmd()", "val/shard-000.parquet", "val", "cat"),
        ("NA", "00123", "train/shard-000.parquet", "train", 'say "hi", twice'),
        ("b", "é", "train/shard-000.parquet", "train", "cat"),
    ]


def test_digest_is_that_of_the_canonical_csv(dataset: Path) -> None:
    text = (
        "subject_id,record_id,path,split,label\n"
        "B,7,train/shard-000.parquet,train,cat\n"
        "Bé,10,test/shard-000.parquet,test,dog\n"
        "C,=cmd(),val/shard-000.parquet,val,cat\n"
        'NA,00123,train/shard-000.parquet,train,"say ""hi"", twice"\n'
        "b,é,train/shard-000.parquet,train,cat\n"
    )
    assert manifest.digest(manifest.build(dataset)) == hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_read_back_manifest_is_the_same(dataset: Path, tmp_path: Path) -> None:
    table = manifest.build(dataset)
    manifest.write(table, tmp_path / "manifest.parquet")
    assert manifest.digest(pq.read_table(tmp_path / "manifest.parquet")) == manifest.digest(table)


def test_counts_has_every_pair_also_the_empty_ones(dataset: Path) -> None:
    counts = manifest.counts(manifest.build(dataset))
    assert len(counts) == 9
    assert {"split": "val", "label": "dog", "records": 0} in counts
    assert sum(row["records"] for row in counts) == 5


def test_write_large_manifest_is_searchable_by_subject(tmp_path: Path) -> None:
    rows = manifest.ROW_GROUP + 5
    names = pa.array([f"s{n:06}" for n in range(rows)])
    manifest.write(pa.table(dict.fromkeys(manifest.COLUMNS, names)), tmp_path / "m.parquet")
    metadata = pq.read_metadata(tmp_path / "m.parquet")
    assert metadata.num_row_groups == 2
    subject = metadata.row_group(0).column(0)
    assert subject.path_in_schema == "subject_id" and subject.bloom_filter_length > 0
    assert (subject.statistics.min, subject.statistics.max) == ("s000000", f"s{manifest.ROW_GROUP - 1:06}")
