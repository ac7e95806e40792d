"""What `data show`, `diff` and `list` say is what is in the manifests, and their JSON is as documented."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from mlops.datasets import versions
from mlops.datasets.contents import CHANGES, COLUMNS, compare
from mlops.records.manifest import SCHEMA

from ..test_output import assert_fits, document, invoke
from .conftest import Run, reproduce

Records = dict[str, tuple[str, str, str]]  # subject, split and label by record_id

DATASETS = st.dictionaries(
    st.sampled_from([f"r{number}" for number in range(9)]),
    st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "val", "test"]), st.sampled_from(["cat", "dog"])),
)


def manifest(records: Records) -> pa.Table:
    rows = [
        {"record_id": record_id, "path": "-", **dict(zip(COLUMNS, values, strict=True))}
        for record_id, values in records.items()
    ]
    return pa.Table.from_pylist(rows, SCHEMA).sort_by([("subject_id", "ascending"), ("record_id", "ascending")])


@given(old=DATASETS, new=DATASETS)
def test_compare_finds_every_change_and_no_other(old: Records, new: Records) -> None:
    comparison = compare(manifest(old), manifest(new))
    expected = {"added": sorted(new.keys() - old), "left": sorted(old.keys() - new)}
    for change, column in CHANGES.items():
        place = COLUMNS.index(column)
        expected[change] = sorted(name for name in old.keys() & new if old[name][place] != new[name][place])
    assert {change: table["record_id"].to_pylist() for change, table in comparison.records.items()} == expected
    before, after = ({subject for subject, _, _ in side.values()} for side in (old, new))
    assert set(comparison.subjects["added"].to_pylist()) == after - before
    assert set(comparison.subjects["left"].to_pylist()) == before - after
    nothing = (None, None, None)
    for row in comparison.rows():
        if row["record_id"]:
            assert tuple(row[f"old_{column}"] for column in COLUMNS) == old.get(row["record_id"], nothing)
            assert tuple(row[f"new_{column}"] for column in COLUMNS) == new.get(row["record_id"], nothing)
    for count in comparison.counts:
        pair = (count["split"], count["label"])
        assert count["old"] == sum(values[1:] == pair for values in old.values())
        assert count["new"] == sum(values[1:] == pair for values in new.values())
    assert sum(count["new"] for count in comparison.counts) == len(new)


def test_diff_of_two_versions_as_json_csv_and_for_people(project: Path) -> None:
    versions.tag("v2.0")
    answer = document("data-diff", "data", "diff", "HEAD~1", "v2.0")
    sides = [answer[side] for side in ("old", "new")]
    assert [(side["version"], side["records"], side["subjects"]) for side in sides] == [
        ("HEAD~1", 5, 3),
        ("v2.0", 7, 4),
    ]
    names = ("record_id", "old_subject_id", "new_subject_id")
    assert [(row["change"], next(filter(None, map(row.get, names)))) for row in answer["changes"]] == [
        *(("added", name) for name in ("r6", "r7", "r8")),
        ("left", "r5"),
        ("moved", "r3"),
        ("relabelled", "r2"),
        ("reassigned", "r4"),
        ("subject added", "dan"),
        ("subject added", "eve"),
        ("subject left", "cem"),
    ]
    assert {"split": "train", "label": "dog", "old": 1, "new": 0} in answer["counts"]
    printed = invoke("data", "diff", "HEAD~1", "--csv", "out/changes.csv").stdout
    lines = [line.split() for line in printed.splitlines()]
    assert ["records", "added", "3", "r6,", "r7,", "r8"] in lines
    assert ["subjects", "left", "1", "cem"] in lines
    assert ["all", "2", "2", "(+1)", "3", "(+1)"] in lines
    assert ["dog", "0", "(-1)", "0", "1"] in lines
    assert "Contents are not compared" in printed
    with Path("out/changes.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{k: v or "" for k, v in row.items()} for row in answer["changes"]]
    assert_fits(printed)


def test_diff_without_changes_says_whether_the_bytes_are_the_same(project: Path, run: Run) -> None:
    assert "It is the same dataset, to the byte." in invoke("data", "diff", "HEAD").stdout
    assert document("data-diff", "data", "diff", "HEAD")["changes"] == []
    make = Path("make.py")
    text = make.read_text(encoding="utf-8")
    make.write_text(text.replace('contents = records["record_id"]', 'contents = records["label"]'), encoding="utf-8")
    run("dvc", "repro", "--quiet", "manifest")
    printed = invoke("data", "diff", "HEAD").stdout
    assert "The records are the same; their contents, or how they are stored, are not." in printed


def test_show_counts_names_and_writes_the_first_records(project: Path) -> None:
    answer: dict[str, Any] = document("data-show", "data", "show", "HEAD")
    assert (answer["version"], answer["tags"], answer["models"]) == (answer["dataset_md5"][:8], [], [])
    assert (answer["records"], answer["subjects"], answer["excluded"]) == (7, 4, 2)
    assert answer["splits"] == {"train": 2, "val": 2, "test": 3}
    assert {"split": "val", "label": "cat", "records": 2} in answer["counts"]
    first = [(row["label"], row["record_id"], row["split"]) for row in answer["first_records"]]
    assert first[:2] == [("cat", "r1", "train"), ("cat", "r3", "test")]
    assert [record_id for label, record_id, _ in first if label == "cat"] == ["r1", "r3", "r4", "r7", "r8"]
    done = invoke("data", "show", "HEAD~1", "--samples", "exports/first")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["all", "2", "1", "2"] in lines and ["dog", "1", "0", "1", "r2,", "r5"] in lines
    assert "5 contents are in" in done.stderr
    files = {path.relative_to("exports/first").as_posix(): path for path in Path("exports/first").rglob("*.bin")}
    assert set(files) == {
        "train/cat/r1.bin",
        "train/dog/r2.bin",
        "val/cat/r3.bin",
        "test/cat/r4.bin",
        "test/dog/r5.bin",
    }
    assert files["test/dog/r5.bin"].read_bytes() == b"r5"
    assert_fits(done.stdout)


def test_show_of_the_workspace_has_no_commit(project: Path, run: Run) -> None:
    rows = [f"r{number},s{number},train,label {number}" for number in range(60)]
    reproduce(run, "\n".join(["record_id,subject_id,split,label", *rows, "a,b,val,label 0", "c,d,test,label 0\n"]))
    answer = document("data-show", "data", "show", "workspace")
    assert (answer["commit"], answer["date"], answer["records"]) == (None, None, 62)
    printed = invoke("data", "show", "workspace", "--samples", "exports/now").stdout
    assert "that of the work tree" in printed and printed.endswith("and 20 more labels: --json\n")
    assert len(list(Path("exports/now").rglob("*.bin"))) == 62


def test_list_is_the_newest_first_and_says_what_to_do_first(project: Path, run: Run) -> None:
    assert invoke("data", "list").stdout.endswith("python -m mlops data tag v1.0\n")
    assert document("data-list", "data", "list") == []
    run("git", "tag", "data/v1.0", "HEAD~1")
    assert invoke("data", "tag", "v2.0").stdout.startswith("data/v2.0 is commit ")
    rows = document("data-list", "data", "list")
    assert [(row["version"], row["records"]) for row in rows] == [("v2.0", 7), ("v1.0", 5)]
    printed = invoke("data", "list").stdout
    assert printed.split()[:7] == ["version", "date", "records", "subjects", "train", "val", "test"]
    assert_fits(printed)
