"""How good a network is: loss, the metrics by which models are compared, and which labels it takes for which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from sklearn import metrics
from torch import Tensor, nn
from torch.nn import functional

from .networks import logits


def scores(actual: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return the metrics of predicted labels, more is better; a new one is added here and nowhere else.

    `train` reports each of them as `test_…` and `val_…`, the gate of `register` takes them by these names, and
    `registry promote --by` compares models by them.
    """
    return {"acc": float(metrics.accuracy_score(actual, predicted))}


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, share of right answers (0 to 1), and each record's predicted class, (N,) int64."""

    loss: float
    accuracy: float
    predicted: Tensor


def evaluate(module: nn.Module, pixels: Tensor, labels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Evaluation:
    """Measure `module` on labelled images. Leaves it in evaluation mode.

    Args:
        module: The network.
        pixels: (N, channels, px, px) uint8.
        labels: (N,) int64, positions in the classes.
        normalise: Turns pixels into the network's input.
    """
    outputs = logits(module, pixels, normalise)
    predicted = outputs.argmax(1)
    accuracy = (predicted == labels).sum().item() / len(predicted)
    return Evaluation(functional.cross_entropy(outputs, labels).item(), accuracy, predicted)


def per_class(actual: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> list[dict[str, str]]:
    """Return precision, recall, F1 and number of records of each label; a figure that isn't defined is empty."""
    columns = metrics.precision_recall_fscore_support(actual, predicted, labels=classes, zero_division=np.nan)
    names = ("precision", "recall", "f1")
    return [
        {
            "label": label,
            **{name: "" if np.isnan(value) else f"{value:.4f}" for name, value in zip(names, row, strict=False)},
            "records": str(row[-1]),
        }
        for label, *row in zip(classes, *columns, strict=True)
    ]


def confusion_image(actual: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: rows actual, columns predicted, darker for a larger share of the row; up to 1000 px."""
    counts = metrics.confusion_matrix(actual, predicted, labels=classes)
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
