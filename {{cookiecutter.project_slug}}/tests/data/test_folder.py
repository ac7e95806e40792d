"""Your own images: what is kept byte for byte, and what is refused."""

from pathlib import Path

import pytest
from mlops import ProjectError, Record, read_records, with_consent, write_dataset

from {{ cookiecutter.package_name }}.data import folder

from ..conftest import png


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one image; the working directory is above it."""
    monkeypatch.chdir(tmp_path)
    Path("raw/images").mkdir(parents=True)
    Path("raw/images/a.png").write_bytes(png())
    return Path("raw")


def load(raw: Path, *lines: str) -> list[Record]:
    text = "\n".join(("record_id,subject_id,label,path", *lines))
    (raw / "records.csv").write_text(text, encoding="utf-8")
    return read_records(folder.records(raw), "folder")


@pytest.mark.parametrize("name", ["00123", "NA", "=cmd()", "ünï-日本"])
def test_records_have_their_ids_as_written_and_the_files_own_bytes(raw: Path, name: str) -> None:
    (record,) = load(raw, f"{name},{name},NA,images/a.png")
    assert (record.record_id, record.subject_id, record.label) == (name, name, "NA")
    assert record.read() == png()


def test_write_bad_images_are_all_named_and_nothing_is_written(raw: Path) -> None:
    (raw / "x.png").write_bytes(b"not an image")
    Path("secret.png").write_bytes(png())
    paths = ("images/a.png", "x.png", "gone.png", "images", "../secret.png")
    records = load(raw, *(f"r{number},s,cat,{path}" for number, path in enumerate(paths)))
    with pytest.raises(ProjectError) as error:
        write_dataset({"train": records}, 1, with_consent(records, "not_required"))
    for text in (
        "bad records: 4",
        "line 3: 'x.png' is damaged or not an image",
        "line 4: 'gone.png' can't be read",
        "line 5: 'images' can't be read",
        "line 6: path '../secret.png' is not a file inside raw",
    ):
        assert text in error.value.problem
    assert list(Path("data").iterdir()) == []
