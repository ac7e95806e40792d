"""Your own images: what is kept byte for byte, and what is refused."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlops import ProjectError, SplitParams, read_records, split_by_subject, write_dataset

from {{ cookiecutter.package_name }}.data import folder

from ..conftest import png

PARAMS = "data: {source: folder, fraction: 1.0, shards: 1, consent: not_required}\n"
HALVES = SplitParams(salt="1", val=0.3, test=0.3)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of images with one more image above it; the working directory is the project."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    for number in range(12):
        path = folder.RAW / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour=number))
    Path("secret.png").write_bytes(png())


def write() -> None:
    with read_records(folder) as records:
        split_by_subject(records, HALVES)
        write_dataset(records, 1)


def test_folders_are_labels_and_files_keep_their_bytes() -> None:
    write()
    rows = pq.read_table("data/dataset").to_pylist()
    assert {row["record_id"]: row["label"] for row in rows} == {
        f"{label}/{number}.png": label for number in range(12) for label in [("cat", "dog")[number % 2]]
    }
    assert {row["image"] for row in rows} == {png(colour=number) for number in range(12)}


def test_list_with_ids_is_taken_as_it_is_written() -> None:
    lines = [f"0{number},patient-{number},NA,cat/{number}.png" for number in range(0, 12, 2)]
    text = "\n".join(("record_id,subject_id,label,path", *lines))
    (folder.RAW / "records.csv").write_text(text, encoding="utf-8")
    write()
    rows = pq.read_table("data/dataset").to_pylist()
    assert sorted((row["record_id"], row["subject_id"]) for row in rows)[0] == ("00", "patient-0")


def test_bad_images_are_all_named_and_nothing_is_written() -> None:
    (folder.RAW / "cat/x.png").write_bytes(b"not an image")
    (folder.RAW / "records.csv").write_text(
        "label,path\ncat,cat/x.png\ncat,gone.png\ncat,../../secret.png\n"
        + "".join(f"cat,cat/{n}.png\n" for n in range(0, 12, 2)),
        encoding="utf-8",
    )
    with pytest.raises(ProjectError) as error:
        write()
    for text in (
        "bad records: 3",
        "records.csv line 2: 'cat/x.png' is damaged or not an image",
        "line 3: 'gone.png' can't be read",
        "line 4: path '../../secret.png' is not a file inside data/raw",
    ):
        assert text in error.value.problem
    assert not Path("data/dataset").exists()
