"""The dataset as image files: named by what they are."""

import io
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.records import shards
from PIL import Image

from .. import small_datasets


@pytest.fixture(autouse=True)
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('[tool.mlops]\npackage = "team"\nnumeric = []\n', encoding="utf-8")


def dataset(folder: Path, kind: str) -> Path:
    """A dataset of one image of a format."""
    file = io.BytesIO()
    picture = Image.new("RGB", (8, 8))
    picture.save(file, kind, **({"save_all": True, "append_images": [picture]} if kind == "MPO" else {}))
    small_datasets.write([small_datasets.record("r/1")], folder / "dataset", read=lambda _: file.getvalue())
    return folder / "dataset"


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("MPO", "jpeg"), ("TIFF", "tiff")])
def test_export_extension_is_the_images_format(tmp_path: Path, kind: str, extension: str) -> None:
    assert shards.export(dataset(tmp_path, kind), tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out/train/cat").iterdir()] == [f"r%2F1.{extension}"]


def test_export_into_a_folder_that_exists_or_of_no_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="exists already\nFix: name a new folder, or remove it"):
        shards.export(dataset(tmp_path, "PNG"), tmp_path)
    with pytest.raises(ProjectError, match="there is no dataset in .*\nFix: dvc repro prepare, or dvc pull prepare"):
        shards.export(tmp_path / "nothing", tmp_path / "out")


def test_export_image_in_another_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ProjectError, match="the content of record 'r/1' is damaged or not an image in one of(?s:.*)correct the"
    ):
        shards.export(dataset(tmp_path, "GIF"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
