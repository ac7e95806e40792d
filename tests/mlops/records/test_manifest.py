"""The data manifest: every record once, with a digest of the rows and of nothing else."""

import csv
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.records import manifest
from mlops.records.source import Record

from .. import small_datasets
from ..small_datasets import record


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    records = [
        *(record("00123", "NA", 'say "hi", twice'), record("7", "B"), record("é", "b")),
        *(record("=cmd()", "C", split="val"), record("10", "B\u00e9", "dog", split="test")),
    ]
    small_datasets.write(records, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_build_lists_every_record_sorted_and_unchanged(dataset: Path) -> None:
    rows = [tuple(row.values()) for table in manifest.build(dataset) for row in table.to_pylist()]
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
    summary = manifest.write(manifest.build(dataset), tmp_path / "manifest.parquet")
    assert (
        manifest.digest_of(tmp_path / "manifest.parquet") == summary.sha256 == manifest.digest(manifest.build(dataset))
    )


def test_write_counts_every_pair_also_the_empty_ones(dataset: Path, tmp_path: Path) -> None:
    summary = manifest.write(manifest.build(dataset), tmp_path / "manifest.parquet")
    assert (summary.records, summary.subjects) == (5, 5)
    counts = summary.counts
    assert len(counts) == 9
    assert {"split": "val", "label": "dog", "records": 0} in counts
    assert sum(row["records"] for row in counts) == 5


def test_write_large_manifest_is_searchable_by_subject(tmp_path: Path) -> None:
    rows = manifest.ROW_GROUP + 5
    names = pa.array([f"s{n:06}" for n in range(rows)])
    table = pa.table(dict.fromkeys(manifest.COLUMNS, names))
    manifest.write([table.slice(0, 7), table.slice(7)], tmp_path / "m.parquet")
    metadata = pq.read_metadata(tmp_path / "m.parquet")
    assert metadata.num_row_groups == 2
    subject = metadata.row_group(0).column(0)
    assert subject.path_in_schema == "subject_id" and subject.bloom_filter_length > 0
    assert (subject.statistics.min, subject.statistics.max) == ("s000000", f"s{manifest.ROW_GROUP - 1:06}")


@pytest.mark.parametrize("at_once", [1, 70, 700])
def test_build_in_parts_gives_the_same_file(tmp_path: Path, at_once: int) -> None:
    def numbered(number: int, split: str) -> Record:
        return record(f"r{number:05}", f"s{number * 7919 % 97} of {split}", str(number % 3), split=split)

    train, test = [numbered(n, "train") for n in range(600)], [numbered(n, "test") for n in range(600, 1000)]
    small_datasets.write([*train, *test, numbered(5000, "val")], tmp_path / "dataset", 4)
    whole = manifest.write(manifest.build(tmp_path / "dataset"), tmp_path / "whole.parquet")
    cut = [*manifest.build(tmp_path / "dataset", at_once)]
    assert len(cut) > 1
    pieces = manifest.write(cut, tmp_path / "cut.parquet")
    assert pieces == whole
    assert pq.read_table(tmp_path / "cut.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
    subjects = [set(part["subject_id"].to_pylist()) for part in cut]
    assert sum(map(len, subjects)) == len(set().union(*subjects)), "a subject is in one part"


def test_verify_manifest_or_report_of_other_records_is_refused(dataset: Path, tmp_path: Path) -> None:
    path, report = tmp_path / "manifest.parquet", tmp_path / "manifest.json"
    whole = manifest.write_manifest(dataset, path)
    write_json(report, {"sha256": [whole.sha256]})
    manifest.verify(path, dataset, report)
    shorter = manifest.write([pq.read_table(path).slice(1)], path)
    for digest in (whole.sha256, shorter.sha256):
        write_json(report, {"sha256": [digest]})
        with pytest.raises(ProjectError, match=r"is not the list of the records in[\s\S]*dvc repro --force manifest"):
            manifest.verify(path, dataset, report)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.tuples(*[CELLS] * 5), max_size=5))
def test_digest_is_what_the_csv_module_writes(rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([manifest.COLUMNS, *rows])
    columns = zip(*rows, strict=True) if rows else [()] * 5
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=manifest.SCHEMA)
    assert manifest.digest([table]) == hashlib.sha256(text.getvalue().encode()).hexdigest()


def test_digest_of_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"no")
    with pytest.raises(ProjectError, match="m.parquet is not there, damaged or no manifest\nFix: dvc repro --force"):
        manifest.digest_of(tmp_path / "m.parquet")


def test_first_of_each_is_exact_for_any_number_of_groups() -> None:
    """Groups of pyarrow's `group_by` come in no order that can be relied on."""
    pairs = [(f"{split}{label}", f"{number:03}") for split in "abc" for label in range(60) for number in range(40)]
    table = pa.table({"label": [label for label, _ in pairs], "record_id": [name for _, name in pairs]})
    first = manifest.first_of_each(table.take(list(range(len(pairs)))[::-1]), ["label"], 13)
    expected = sorted((label, name) for label, name in pairs if name < "013")
    assert list(zip(first["label"].to_pylist(), first["record_id"].to_pylist(), strict=True)) == expected
    assert len(manifest.first_of_each(table.slice(0, 0), ["label"], 13)) == 0
