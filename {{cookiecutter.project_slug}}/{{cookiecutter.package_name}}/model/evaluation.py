"""How good a network is: loss and accuracy, and which labels it takes for which."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from ..files import replacing
from .networks import logits
from .transforms import Images, Normalise


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, share of right answers (0 to 1), and each record's predicted class, (N,) int64."""

    loss: float
    accuracy: float
    predicted: Tensor


def evaluate(module: nn.Module, images: Images, normalise: Normalise) -> Evaluation:
    """Measure `module` on labelled images. Leaves it in evaluation mode."""
    found = logits(module, images.pixels, normalise)
    predicted = found.argmax(1)
    right = (predicted == images.labels).sum().item()
    return Evaluation(functional.cross_entropy(found, images.labels).item(), right / len(predicted), predicted)


def confusion(actual: Tensor, predicted: Tensor, classes: int) -> np.ndarray:
    """Count pairs of labels: (classes, classes) int64, a row for each actual label and a column for each predicted."""
    return torch.bincount(actual * classes + predicted, minlength=classes**2).view(classes, classes).numpy()


def write_confusion(path: Path, actual: Tensor, predicted: Tensor, classes: tuple[str, ...]) -> None:
    """Write one row per record, as DVC's confusion template counts them itself."""
    rows = [(classes[a], classes[p]) for a, p in zip(actual.tolist(), predicted.tolist(), strict=True)]
    _write_csv(path, ("actual", "predicted"), rows)


def write_per_class(path: Path, counts: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write precision, recall, F1 and number of records per label; a figure that isn't defined is left empty.

    Args:
        path: The CSV file.
        counts: Of `confusion`.
        classes: The labels, in the order of `counts`.
    """
    rows = []
    for index, label in enumerate(classes):
        right, actual, predicted = counts[index, index], counts[index].sum(), counts[:, index].sum()
        f1 = _ratio(2 * right, actual + predicted)
        rows.append((label, _ratio(right, predicted), _ratio(right, actual), f1, actual))
    _write_csv(path, ("label", "precision", "recall", "f1", "records"), rows)


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def confusion_image(counts: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """Draw `confusion`: rows actual, columns predicted, darker for a larger share of the row; at most 1000 px wide."""
    margin, cell = 90, max(4, min(48, 900 // len(classes)))
    image = Image.new("L", (margin + cell * len(classes),) * 2, 255)
    draw = ImageDraw.Draw(image)
    draw.text((4, 4), "rows: actual\ncolumns: predicted", 0)
    for row, label in enumerate(classes):
        start, middle = margin + row * cell, margin + row * cell + cell // 2
        if cell >= 10:  # below, a label would be taller than its cell
            draw.text((margin - 6, middle), label[:12], 0, anchor="rm")
            draw.text((middle, margin - 6), label[: cell // 7], 0, anchor="mb")
        for column, count in enumerate(counts[row]):
            shade = round(255 * (1 - count / max(1, counts[row].sum())))
            left = margin + column * cell
            draw.rectangle((left, start, left + cell - 2, start + cell - 2), shade)
            if count and cell >= 7 * len(str(count)):
                draw.text((left + cell // 2, middle), str(count), 255 if shade < 128 else 0, anchor="mm")
    return image
