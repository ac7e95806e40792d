"""What a training of a classifier reports: figures of val and test; of the test set, what is taken for what."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import write_report
from ..records.contents import Contents
from ..records.scores import write_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORTS_DIR = Path("reports")
Result = tuple[np.ndarray, np.ndarray]
"""Of a split: the labels, (N,) int64, positions in the classes; the probabilities, (N, classes) float32."""


def write_reports(
    classes: Sequence[str],
    val: Result,
    test: Result,
    records: Contents,
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> dict[str, float]:
    """Write `metrics.json`, `confusion.csv`, `per_class.csv` and `predictions.parquet` in `reports/`.

    Args:
        classes: The labels that positions stand for.
        val: What the model says of the validation set.
        test: What it says of the test set, in the order of `records`.
        records: The test set.
        measure: Returns metrics of a result, by name.

    Returns:
        What `metrics.json` holds: every metric of both splits, such as `test_acc`, with four decimals.
    """
    splits = {"test": measure(*test), "val": measure(*val)}
    figures = {f"{split}_{name}": round(each, 4) for split, values in splits.items() for name, each in values.items()}
    write_report(REPORTS_DIR / "metrics.json", figures)
    labels, probabilities = test
    actual, predicted = ([classes[position] for position in each] for each in (labels, probabilities.argmax(1)))
    # DVC's confusion template counts the pairs itself.
    pairs = [{"actual": a, "predicted": p} for a, p in zip(actual, predicted, strict=True)]
    write_report(REPORTS_DIR / "confusion.csv", pairs)
    write_report(REPORTS_DIR / "per_class.csv", per_class(classes, *test))
    file = REPORTS_DIR / "predictions.parquet"
    write_scores(file, records.record_ids, records.subject_ids, actual, classes, probabilities)
    return figures


def count_pairs(classes: int, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how many records of each label, (K,), are predicted as each label: (K, K)."""
    pairs = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2)
    return pairs.reshape(classes, classes)


def per_class(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, str]]:
    """Return precision, recall, F1 and number of records of each label; a figure that isn't defined is empty."""
    pairs, rows = count_pairs(len(classes), labels, probabilities), []
    for label, hits, records, predictions in zip(classes, pairs.diagonal(), pairs.sum(1), pairs.sum(0), strict=True):
        shares = {"precision": (hits, predictions), "recall": (hits, records), "f1": (2 * hits, records + predictions)}
        figures = {name: f"{part / whole:.4f}" if whole else "" for name, (part, whole) in shares.items()}
        rows.append({"label": label, **figures, "records": str(records)})
    return rows


def confusion_figure(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> "Figure":
    """Draw a confusion matrix, 800 pixels wide: shares of the records of each actual label.

    Args:
        classes: The labels that positions stand for.
        labels: Actual ones, (N,) int64.
        probabilities: (N, classes).
    """
    from matplotlib.figure import Figure  # slow to import

    pairs = count_pairs(len(classes), labels, probabilities)
    shares = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(8, 8), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual", xticks=[], yticks=[])
    if len(classes) <= 100:  # else nobody could read names
        positions = range(len(classes))
        axes.set_xticks(positions, classes, rotation="vertical")
        axes.set_yticks(positions, classes)
    if len(classes) <= 25:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour)
    return figure
