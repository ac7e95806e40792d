"""The stage `manifest`: what it leaves behind, the same bytes each time, and its contact sheets."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlops import ProjectError, Record, read_records, write_dataset
from PIL import Image

from {{ cookiecutter.package_name }}.images import encode_png
from {{ cookiecutter.package_name }}.stages import manifest

LABELS = {"a": "train", "b": "val", "c": "test"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


def write(parts: dict[str, tuple[str, np.ndarray, int]]) -> None:
    """Write a dataset: for each split, its labels, which are made long, an image, and how many of it a label has."""
    listed = [
        Record(f"{split}-{label}-{n:03}", f"{split}-{label}-{n}", label * 60, content=split, origin="", split=split)
        for split, (labels, _, each) in parts.items()
        for label in labels
        for n in range(each)
    ]
    images = {split: encode_png(pixels) for split, (_, pixels, _) in parts.items()}
    source = SimpleNamespace(__name__="test", records=lambda: listed, read=images.__getitem__)
    with read_records(source) as records:
        write_dataset(records, 2)


def sheet(name: str) -> np.ndarray:
    """Return the grey of each pixel of a contact sheet, without its labels."""
    return np.asarray(Image.open(f"reports/samples/{name}.png").convert("L"))[:, manifest.TEXT :]


def test_main_writes_table_counts_and_pictures_the_same_each_time() -> None:
    write({name: (label, np.zeros((8, 8), "uint8"), 1) for label, name in LABELS.items()})
    written = []
    for _ in range(2):
        manifest.main()
        written.append({path: path.read_bytes() for path in Path().rglob("*") if path.is_file()})
    assert written[0] == written[1]
    report = json.loads(Path("reports/manifest.json").read_text())
    assert (report["records"], report["subjects"]) == (3, 3)
    # DVC makes a column of every number and text: there must be no others.
    assert {key for key, value in report.items() if not isinstance(value, list)} == {"records", "subjects"}
    with Path("reports/labels.csv").open(encoding="utf-8") as file:
        assert next(csv.DictReader(file)) == {"split": "train", "label": "a" * 60, "records": "1"}
    assert sorted(path.name for path in Path("reports/samples").iterdir()) == ["test.png", "train.png", "val.png"]


def test_main_without_dataset_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        manifest.main()
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet_has_a_row_per_label_and_pixels_that_are_scaled_not_clipped() -> None:
    small, tall, deep = ((8, 8), 90, "uint8"), ((300, 150, 3), 90, "uint8"), ((8, 8), 0x5A00, "uint16")
    parts = {"train": ("ab", small, 20), "val": ("a", tall, 20), "test": ("b", deep, 1)}
    write({name: (labels, np.full(*image), each) for name, (labels, image, each) in parts.items()})
    manifest.main()
    size = manifest.CELL**2
    assert Image.open("reports/samples/train.png").size == (994, manifest.GAP + 2 * (manifest.CELL + manifest.GAP))
    assert (sheet("train") == 90).sum() == 2 * manifest.ACROSS * size
    assert (sheet("val") == 90).sum() == manifest.ACROSS * size // 2, "a tall photograph is fitted"
    assert (sheet("test") == 0x5A).sum() == size, "of 16 bits"
