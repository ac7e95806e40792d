"""The stage `manifest`: what it leaves behind, the same bytes each time, and its contact sheets."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from mlops import ProjectError, Record, with_consent, write_dataset
from PIL import Image

from {{ cookiecutter.package_name }}.images import encode_png
from {{ cookiecutter.package_name }}.stages import manifest


def write(parts: dict[str, list[Record]]) -> None:
    write_dataset(parts, 2, with_consent([], "not_required"))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three splits of one record each; the working directory."""
    monkeypatch.chdir(tmp_path)
    image = encode_png(np.zeros((8, 8), dtype="uint8"))
    write({name: [Record(name, f"of {name}", "cat", lambda: image, "")] for name in ("train", "val", "test")})


def test_main_writes_table_counts_and_pictures(dataset: None) -> None:
    manifest.main()
    report = json.loads(Path("reports/manifest.json").read_text())
    assert (report["records"], report["subjects"]) == (3, 3)
    # DVC makes a column of every number and text: there must be no others.
    assert {key for key, value in report.items() if not isinstance(value, list)} == {"records", "subjects"}
    with Path("reports/labels.csv").open(encoding="utf-8") as file:
        assert next(csv.DictReader(file)) == {"split": "train", "label": "cat", "records": "1"}
    assert sorted(path.name for path in Path("reports/samples").iterdir()) == ["test.png", "train.png", "val.png"]


def test_main_twice_gives_the_same_bytes(dataset: None) -> None:
    written = []
    for _ in range(2):
        manifest.main()
        written.append({path: path.read_bytes() for path in Path().rglob("*") if path.is_file()})
    assert written[0] == written[1]


def test_main_without_dataset_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        manifest.main()
    assert list(tmp_path.iterdir()) == []


def sheet(name: str) -> Image.Image:
    return Image.open(f"reports/samples/{name}.png")


def test_contact_sheet_has_a_row_per_label_and_enlarged_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(labels: str, shape: tuple[int, ...]) -> list[Record]:
        image = encode_png(np.full(shape, 90, dtype="uint8"))
        pairs = ((label, n) for label in labels for n in range(20))
        return [Record(f"{shape}-{label}-{n:03}", "s", label * 60, lambda: image, "") for label, n in pairs]

    monkeypatch.chdir(tmp_path)
    write({"train": part("ab", (8, 8)), "val": part("a", (300, 150, 3)), "test": part("b", (8, 8))})
    manifest.main()
    assert sheet("train").size == (994, manifest.GAP + 2 * (manifest.CELL + manifest.GAP))
    grey = np.asarray(sheet("train").convert("L")) == 90
    assert grey[:, manifest.TEXT :].sum() == 2 * manifest.ACROSS * manifest.CELL**2
    # A tall photograph is fitted, a label that the split lacks has an empty row, long labels are cut.
    grey = np.asarray(sheet("val").convert("L")) == 90
    assert grey[:, manifest.TEXT :].sum() == manifest.ACROSS * manifest.CELL * manifest.CELL // 2


def test_contact_sheet_16_bits_are_scaled_not_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = encode_png(np.full((8, 8), 0x5A00, dtype="uint16"))
    write({split: [Record(split, "s", "a", lambda: image, "")] for split in ("train", "val", "test")})
    manifest.main()
    grey = np.asarray(sheet("train").convert("L")) == 0x5A
    assert grey[:, manifest.TEXT :].sum() == manifest.CELL**2
