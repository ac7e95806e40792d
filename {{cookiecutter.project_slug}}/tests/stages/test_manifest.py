"""The stage `manifest`: what it leaves behind, the same bytes each time."""

import csv
import json
from pathlib import Path

import pytest

from mlops.records import shards
from mlops.records.source import Record, png
from mlops.errors import ProjectError
from mlops.files import sha256
from {{ cookiecutter.package_name }}.stages import manifest


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three splits of one record each; the working directory."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    image = png(np.zeros((8, 8), dtype="uint8"))
    parts = {name: [Record(name, f"of {name}", "cat", lambda: image, "")] for name in ("train", "val", "test")}
    shards.write(parts, 1, Path("data/dataset"))


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
        written.append({path: sha256(path) for path in Path().rglob("*") if path.is_file()})
    assert written[0] == written[1]
    assert len(written[0]) == 9


def test_main_without_dataset_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        manifest.main()
    assert list(tmp_path.iterdir()) == []
