"""Loss, accuracy, and what is taken for what."""

from pathlib import Path

import torch

from {{ cookiecutter.package_name }}.model.evaluation import (confusion, confusion_image, write_confusion, write_per_class)

CLASSES = ("cat", "dog, small", "é")
ACTUAL, PREDICTED = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])


def test_confusion_counts_rows_actual_columns_predicted() -> None:
    assert confusion(ACTUAL, PREDICTED, 3).tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]


def test_write_confusion_has_a_row_per_record(tmp_path: Path) -> None:
    write_confusion(tmp_path / "c.csv", ACTUAL[1:3], PREDICTED[1:3], CLASSES)
    assert (tmp_path / "c.csv").read_bytes() == b'actual,predicted\ncat,"dog, small"\n"dog, small","dog, small"\n'


def test_write_per_class_without_records_of_a_label_leaves_its_figures_empty(tmp_path: Path) -> None:
    write_per_class(tmp_path / "p.csv", confusion(ACTUAL, PREDICTED, 3), CLASSES)
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines() == [
        "label,precision,recall,f1,records",
        "cat,1.0000,0.5000,0.6667,2",
        '"dog, small",0.6667,1.0000,0.8000,2',
        "é,,,,0",
    ]


def test_confusion_image_of_many_labels_fits_a_page() -> None:
    classes = tuple(f"label {number}" for number in range(200))
    image = confusion_image(confusion(torch.arange(200), torch.arange(200), 200), classes)
    assert image.width <= 1000
