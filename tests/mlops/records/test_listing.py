"""A team's own files: lists as CSV and Parquet, folders, and what is refused, by file and row."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlops.errors import ProjectError
from mlops.records.listing import list_files, read_file
from mlops.records.source import Record, read_records

from ..conftest import SKELETON
from ..small_datasets import source

RAW = Path("raw")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder for files, below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    RAW.mkdir()


def files(*paths: str) -> None:
    for path in paths:
        (RAW / path).parent.mkdir(parents=True, exist_ok=True)
        (RAW / path).write_bytes(b"x")


def facts(record: Record) -> tuple[str, ...]:
    return (record.record_id, record.subject_id, record.label, record.content, record.delivery, record.split)


def write_list(kind: str, columns: dict[str, list[str]]) -> None:
    """Write a list in one of its two formats."""
    if kind == "parquet":
        pq.write_table(pa.table(columns), RAW / "records.parquet")
    else:
        lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
        (RAW / "records.csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_list_with_all_columns(kind: str) -> None:
    columns = {"split": ["train", "Validation"], "path": ["a.png", "b.png"], "label": ["NA", "cat"]}
    write_list(kind, {**columns, "record_id": ["007", "x"], "subject_id": ["P1", "P2"], "delivery": ["2026-11", ""]})
    assert [facts(record) for record in list_files(RAW, "label")] == [
        ("007", "P1", "NA", "a.png", "2026-11", "train"),
        ("x", "P2", "cat", "b.png", "", "val"),
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_list_with_label_and_path_only_says_what_follows(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(kind, {"label": ["cat"], "path": ["a.png"], "patient": ["P1"]})
    assert [facts(record) for record in list_files(RAW, "label")] == [("a.png", "a.png", "cat", "a.png", "", "")]
    printed = capsys.readouterr().out
    assert f"raw/records.{kind}: no subject_id, so each record is a subject of its own; not used: patient" in printed


@pytest.mark.parametrize(("kind", "where"), [("csv", "line 3"), ("parquet", "row 2")])
def test_list_names_the_row_of_each_record(kind: str, where: str) -> None:
    write_list(kind, {"label": ["cat", "dog"], "path": ["a.png", "b.png"]})
    assert [record.origin for record in list_files(RAW, "label")][1] == f"raw/records.{kind} {where}"


def test_parquet_list_of_numbers_and_categories_is_text_and_a_missing_cell_is_empty() -> None:
    labels = pa.array(["cat", None]).dictionary_encode()
    pq.write_table(pa.table({"label": labels, "path": ["a", "b"], "subject_id": [7, 8]}), RAW / "records.parquet")
    assert [facts(record)[1:3] for record in list_files(RAW, "label")] == [("7", "cat"), ("8", "")]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"label": ["cat"]}, "raw/records.parquet has no column path\nFix: add it"),
        (
            {"label": [1.5], "path": ["a"]},
            "the column label holds double, (?s:.*)Fix: convert it to texts where the file",
        ),
        ({"label": pa.array([], pa.string()), "path": pa.array([], pa.string())}, "holds no rows\nFix: add rows with"),
    ],
    ids=["column", "type", "empty"],
)
def test_parquet_list_that_is_malformed_is_refused(columns: dict[str, object], problem: str) -> None:
    pq.write_table(pa.table(columns), RAW / "records.parquet")
    with pytest.raises(ProjectError, match=problem):
        list(list_files(RAW, "label"))


def test_parquet_list_that_is_damaged_is_refused() -> None:
    (RAW / "records.parquet").write_bytes(b"PAR1, cut short")
    with pytest.raises(ProjectError, match=r"raw/records.parquet is damaged or no Parquet file\nFix: write it anew"):
        list(list_files(RAW, "label"))


def test_two_lists_are_refused() -> None:
    files("records.csv", "records.parquet")
    with pytest.raises(ProjectError, match=r"raw holds both records.csv and records.parquet\nFix: remove one"):
        list_files(RAW, "label")


@pytest.mark.parametrize(
    ("levels", "path", "expected"),
    [
        ("label", "cat/1.png", ("cat/1.png", "cat", "", "")),
        ("split/label", "valid/cat/1.png", ("valid/cat/1.png", "cat", "", "val")),
        ("label/subject", "cat/P1/1.png", ("P1", "cat", "", "")),
        ("delivery/label", "2026-11/cat/1.png", ("2026-11/cat/1.png", "cat", "2026-11", "")),
        ("delivery?/label", "2026-11/cat/1.png", ("2026-11/cat/1.png", "cat", "2026-11", "")),
        ("delivery?/label/subject", "cat/P1/1.png", ("P1", "cat", "", "")),
    ],
    ids=["label", "split", "subject", "delivery", "with a delivery", "without one"],
)
def test_folders_say_what_their_level_is(levels: str, path: str, expected: tuple[str, ...]) -> None:
    files(path)
    (record,) = list_files(RAW, levels)
    assert (record.record_id, record.content) == (path, path)
    assert (record.subject_id, record.label, record.delivery, record.split) == expected


def test_folders_with_accents_as_macos_writes_them_are_read_and_their_ids_are_in_normal_form() -> None:
    files("e\u0301te\u0301/1.png")
    (record,) = list_files(RAW, "label")
    assert facts(record)[:4] == ("été/1.png", "été/1.png", "été", "e\u0301te\u0301/1.png")
    assert read_file(RAW, record.content) == b"x"


def test_folders_of_a_later_delivery_leave_the_earlier_records_as_they_are() -> None:
    files("cat/1.png", "dog/1.png")
    before = [facts(record) for record in list_files(RAW, "label")]
    files("2026-11/cat/1.png")
    after = [facts(record) for record in list_files(RAW, "delivery?/label")]
    assert set(before) < set(after) and len(after) == 3


def test_folders_are_read_in_order_without_what_systems_leave_there() -> None:
    files("b/2.png", "b/1.png", "a/1.png", "a/.DS_Store", "a/Thumbs.db", ".cache/x/1.png", ".gitignore")
    assert [record.content for record in list_files(RAW, "label")] == ["a/1.png", "b/1.png", "b/2.png"]


@pytest.mark.parametrize(
    ("paths", "levels", "problem", "fix"),
    [
        (["train/cat/1.png", "test/cat/1.png"], "label", "raw/test/cat/1.png lies 2 folders deep", "split/label"),
        (["cat/siamese/1.png"], "label", "lies 2 folders deep, and params.yaml:data.folders is", "name each level"),
        (["1.png"], "label", "raw/1.png lies 0 folders deep", "named by its label; if it is no record, elsewhere"),
        (["Records.xlsx"], "label", "lies 0 folders deep", "save it as raw/records.csv, in UTF-8"),
        (["a/b/cat/1.png"], "delivery?/label", "lies 3 folders deep", "delivery?/label"),
        (["cat/1.png"], "split?/label", "params.yaml:data.folders is 'split?/label'", "name the levels"),
        (["cat/1.png"], "klass", "params.yaml:data.folders is 'klass'", "of label, subject, delivery, split"),
        (["cat/1.png"], "split/delivery", "params.yaml:data.folders is 'split/delivery'", "name the levels"),
        ([], "label", "raw holds no files", "a folder for each label"),
    ],
    ids=["splits", "deeper", "none", "xlsx", "deeper than optional", "another optional", "word", "no label", "empty"],
)  # fmt: skip
def test_folders_of_another_layout_are_refused_with_the_way_out(
    paths: list[str], levels: str, problem: str, fix: str
) -> None:
    files(*paths)
    with pytest.raises(ProjectError) as error:
        list(list_files(RAW, levels))
    assert problem in error.value.problem and fix in error.value.fix


def test_folder_that_is_not_there_says_what_to_put_there() -> None:
    RAW.rmdir()
    with pytest.raises(
        ProjectError, match=r"raw is not there\nFix: put the files there: a folder for each label, or a"
    ):
        list_files(RAW, "label")


def test_file_in_place_of_the_folder_is_refused() -> None:
    RAW.rmdir()
    RAW.write_bytes(b"")
    with pytest.raises(ProjectError, match="raw is a file, not a folder"):
        list_files(RAW, "label")


def test_list_that_does_not_name_all_files_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    files("a.png", "more/b.png", ".hidden", "Thumbs.db")
    write_list("csv", {"label": ["cat"], "path": ["a.png"]})
    assert len(list(list_files(RAW, "label"))) == 1
    printed = capsys.readouterr().out
    assert "raw/records.csv has 1 rows, and 2 files lie below its folder: the others are not used" in printed


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_list_that_is_a_broken_link_is_not_left_out() -> None:
    files("cat/1.png")
    (RAW / "records.csv").symlink_to("/nowhere")
    with pytest.raises(ProjectError, match="raw/records.csv is not there"):
        list(list_files(RAW, "label"))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are the same there")
def test_files_whose_names_look_the_same_are_told_apart() -> None:
    files("cat/\u00e9.png", "cat/e\u0301.png")
    records = source(list(list_files(RAW, "label")))
    with (
        pytest.raises(ProjectError, match=r"was given before, at .* \(it has U\+00E9 LATIN SMALL LETTER E WITH ACUTE"),
        read_records(records),
    ):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_linked_folder_is_refused_and_not_left_out() -> None:
    files("cat/1.png")
    (RAW / "dog").symlink_to("cat")
    with pytest.raises(ProjectError, match="raw/dog is a link to a folder, .*\nFix: put the files themselves there"):
        list(list_files(RAW, "label"))


@pytest.mark.parametrize("path", ["../secret", "images/../../secret", "/etc/passwd", ""])
def test_read_file_path_outside_is_refused(path: str) -> None:
    Path("secret").write_bytes(b"x")
    with pytest.raises(
        ProjectError, match=r"path .* is not a file inside raw\nFix: write the path of a file below raw"
    ):
        read_file(RAW, path)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
@pytest.mark.parametrize("path", ["link", "up/secret", "broken"])
def test_read_file_linked_from_outside_is_refused(path: str) -> None:
    Path("secret").write_bytes(b"x")
    (RAW / "link").symlink_to(Path.cwd() / "secret")
    (RAW / "up").symlink_to(Path.cwd())
    (RAW / "broken").symlink_to("/nowhere")
    with pytest.raises(ProjectError, match=r"is a link to /.*, outside of raw\nFix: put the file itself there"):
        read_file(RAW, path)


@pytest.mark.parametrize(
    "path", ["Cat/\u00e9.PNG", "cat\\e\u0301.png", " cat/e\u0301.png", "cat/\uff45\u0301.png"], ids=ascii
)
def test_read_file_that_is_spelt_in_another_way_says_how(path: str) -> None:
    files("cat/e\u0301.png")
    if (RAW / path).exists():
        pytest.skip("this system takes them for the same name")
    with pytest.raises(ProjectError, match="can't be read") as error:
        read_file(RAW, path)
    assert error.value.fix.startswith("write 'cat/e\u0301.png' (it has ")


def test_read_file_that_is_not_there_is_to_be_restored() -> None:
    files("cat/1.png")
    with pytest.raises(
        ProjectError, match=r"'cat/2.png' can't be read: .*\nFix: restore the file, or take its row out"
    ):
        read_file(RAW, "cat/2.png")


UNREADABLE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mlops.records.listing import list_files, read_file
os.setuid(65534)
for read in (
    lambda: read_file(Path("raw"), "cat/1.png"),
    lambda: list(list_files(Path("raw"), "label")),
    lambda: list(list_files(Path("list"), "label")),
):
    try:
        read()
    except Exception as error:
        print(error)
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become somebody who may read less")
def test_file_and_folder_that_may_not_be_read_say_how_to_allow_it() -> None:
    files("cat/1.png", "dog/1.png")
    (RAW / "cat/1.png").chmod(0)
    (RAW / "dog").chmod(0)
    Path("list").mkdir()
    Path("list/records.csv").touch(0)
    Path.cwd().chmod(0o755)
    done = subprocess.run([sys.executable, "-c", UNREADABLE, str(SKELETON)], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "'cat/1.png' can't be read: Permission denied",
        "Fix: let yourself read it: chmod u+r raw/cat/1.png",
        "raw/dog can't be read: Permission denied",
        "Fix: let yourself read it: chmod u+rx raw/dog",
        "list/records.csv can't be read: Permission denied",
        "Fix: let yourself read it: chmod u+r list/records.csv",
    ], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("path", ["loop", "self/x", "pipe", "cat/1.png/x", "n" * 300, "cat", "cat/", "gone"])
def test_read_file_that_is_none_is_named_and_not_waited_for(path: str) -> None:
    files("cat/1.png")
    (RAW / "loop").symlink_to("loop")
    (RAW / "self").symlink_to("self")
    os.mkfifo(RAW / "pipe")
    with pytest.raises(ProjectError, match=f"'{path}' can't be read: "):
        read_file(RAW, path)
