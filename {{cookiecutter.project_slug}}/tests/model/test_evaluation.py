"""The metrics by which models are compared, and what is taken for what."""

from pathlib import Path

from PIL import Image

from {{ cookiecutter.package_name }}.model.evaluation import confusion_figure, per_class, scores

CLASSES = ("cat", "dog, small", "é")
ACTUAL, PREDICTED = ["cat", "cat", "dog, small", "dog, small"], ["cat", "dog, small", "dog, small", "dog, small"]


def test_scores_of_the_right_labels_are_higher() -> None:
    right, wrong = scores(ACTUAL, ACTUAL), scores(ACTUAL, PREDICTED)
    assert right["acc"] == 1
    assert wrong["acc"] == 0.75
    assert all(wrong[name] < right[name] for name in right), "more is better"


def test_per_class_without_records_of_a_label_leaves_its_figures_empty() -> None:
    assert [tuple(row.values()) for row in per_class(ACTUAL, PREDICTED, CLASSES)] == [
        ("cat", "1.0000", "0.5000", "0.6667", "2"),
        ("dog, small", "0.6667", "1.0000", "0.8000", "2"),
        ("é", "", "", "", "0"),
    ]


def test_confusion_figure_of_many_labels_fits_a_page(tmp_path: Path) -> None:
    classes = [f"label {number}" for number in range(100)]
    confusion_figure(classes, classes, classes).savefig(tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").width <= 1000
