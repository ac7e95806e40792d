"""What a training reports of its test set."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlops.training.reports import confusion_figure, per_class, write_reports
from PIL import Image
from team.model.metrics import measure

CLASSES = ("cat", "dog, small", "é")
LABELS, PROBABILITIES = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0, 1, 0]])


RECORDS: Any = SimpleNamespace(record_ids=("r1", "r2", "r3", "r4"), subject_ids=("s1", "s2", "s2", "s1"))


def test_reports_are_the_same_bytes_each_time_and_have_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = []
    for _ in range(2):
        figures = write_reports(CLASSES, (LABELS, PROBABILITIES), (LABELS, PROBABILITIES), RECORDS, measure)
        written.append({path.name: path.read_bytes() for path in Path("reports").iterdir()})
    assert written[0] == written[1]
    assert figures == json.loads(written[0]["metrics.json"])
    assert (figures["test_acc"], figures["val_macro_f1"]) == (0.75, 0.7333)
    table = pq.read_table("reports/predictions.parquet")
    assert json.loads(table.schema.metadata[b"classes"]) == list(CLASSES)
    assert table["record_id"].to_pylist() == list(RECORDS.record_ids)
    assert table["predicted"].to_pylist() == ["cat", "dog, small", "dog, small", "dog, small"]
    assert table["scores"].to_pylist()[1] == pytest.approx([0.2, 0.8, 0.0])


def test_per_class_without_records_of_a_label_leaves_its_figures_empty() -> None:
    assert [tuple(row.values()) for row in per_class(CLASSES, LABELS, PROBABILITIES)] == [
        ("cat", "1.0000", "0.5000", "0.6667", "2"),
        ("dog, small", "0.6667", "1.0000", "0.8000", "2"),
        ("é", "", "", "", "0"),
    ]


@pytest.mark.parametrize("count", [25, 101])
def test_confusion_figure_of_many_labels_fits_a_page(tmp_path: Path, count: int) -> None:
    classes = [f"label {number}" for number in range(count)]
    confusion_figure(classes, np.arange(count), np.eye(count)).savefig(tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").width <= 1000
