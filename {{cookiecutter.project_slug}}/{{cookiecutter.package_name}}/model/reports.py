"""What `train` reports: figures of val and test; of the test set what is taken for what, and the worst mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from mlops import write_report, write_scores
from PIL import Image, ImageDraw, ImageFont

from ..pictures import shorten, thumbnail
from .metrics import label_counts, losses, measure

REPORTS_DIR = Path("reports")
MISTAKES = 40  # that are shown
ACROSS, CELL, GAP, LINE = 8, 112, 12, 15
"""Of the page of mistakes: images beside each other; pixels of an image's side, between images, of a line of text."""


Result = tuple[np.ndarray, np.ndarray]
"""Of a split: the labels, (N,) int64, positions in the classes; the probabilities, (N, classes) float32."""


class Records(Protocol):
    """The records of a split, in order, as `mlops.open_split` gives them."""

    record_ids: Sequence[str]
    subject_ids: Sequence[str]

    def __getitem__(self, index: int) -> bytes:
        """Return an encoded image."""


def write_reports(classes: Sequence[str], val: Result, test: Result, records: Records) -> dict[str, float]:
    """Write the reports of a trained model, and return what `reports/metrics.json` holds: every metric of both splits.

    Args:
        classes: The labels that positions stand for.
        val: What the model says of the validation set.
        test: What it says of the test set, in the order of `records`.
        records: The test set.
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
    write_report(REPORTS_DIR / "mistakes.png", mistakes(classes, *test, records))
    file = REPORTS_DIR / "predictions.parquet"
    write_scores(file, records.record_ids, records.subject_ids, actual, classes, probabilities)
    return figures


def per_class(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, str]]:
    """Return precision, recall, F1 and number of records of each label; a figure that isn't defined is empty."""
    rows = []
    for label, hits, records, predictions in zip(classes, *label_counts(labels, probabilities), strict=True):
        shares = {"precision": (hits, predictions), "recall": (hits, records), "f1": (2 * hits, records + predictions)}
        figures = {name: f"{part / whole:.4f}" if whole else "" for name, (part, whole) in shares.items()}
        rows.append({"label": label, **figures, "records": str(records)})
    return rows


def confusion_figure(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Draw a confusion matrix, 800 pixels wide: shares of the records of each actual label."""
    from sklearn.metrics import ConfusionMatrixDisplay

    count = len(classes)
    pairs = np.bincount(labels * count + probabilities.argmax(1), minlength=count**2).reshape(count, count)
    figure = Figure(figsize=(8, 8), dpi=100, layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(pairs / np.maximum(pairs.sum(1, keepdims=True), 1), display_labels=classes).plot(
        include_values=count <= 25,
        xticks_rotation="vertical",
        values_format=".2f",
        cmap="Blues",
        ax=axes,
        colorbar=False,
    )
    if count > 100:  # names that nobody could read
        axes.set(xticks=[], yticks=[])
    return figure


def mistakes(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, records: Records) -> Image.Image:
    """Draw the records that are predicted wrong, the highest loss first, with label, prediction and id of each."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-losses(labels, probabilities)[wrong], kind="stable")][:MISTAKES].tolist()
    step, font = CELL + 3 * LINE + GAP, ImageFont.load_default(12)
    page = Image.new("RGB", (ACROSS * (CELL + GAP), 2 * LINE + -(-len(worst) // ACROSS) * step), "white")
    pen = ImageDraw.Draw(page)
    head = f"{len(wrong)} of {len(labels)} records are predicted wrong; first those whose label is the least likely"
    pen.text((GAP // 2, 4), head, "black", font)
    for number, index in enumerate(worst):
        left, top = GAP // 2 + number % ACROSS * (CELL + GAP), 2 * LINE + number // ACROSS * step
        page.paste(thumbnail(records[index], CELL), (left, top))
        guess, actual = predicted[index], labels[index]
        lines = (
            f"{probabilities[index, guess]:.2f}  predicted {classes[guess]}",
            f"{probabilities[index, actual]:.2f}  actual {classes[actual]}",
            records.record_ids[index],
        )
        for down, text in enumerate(lines):
            pen.text((left, top + CELL + down * LINE), shorten(text, font, CELL), "black", font)
    return page
