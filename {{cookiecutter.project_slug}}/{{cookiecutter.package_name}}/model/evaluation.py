"""How good a network is: loss, the metrics by which models are compared, and which labels it takes for which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn import metrics
from torch import Tensor, nn
from torch.nn import functional

from .networks import logits

BATCH = 256  # images at once; fixed, since another size gives other last bits


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
    """Measure `module` on images, (N, channels, px, px) uint8, with (N,) int64 labels. Leaves it in evaluation mode."""
    module.eval()
    with torch.inference_mode():
        starts = range(0, len(pixels), BATCH)
        outputs = torch.cat([logits(module(normalise(pixels[start : start + BATCH]))) for start in starts])
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


def confusion_figure(actual: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix, 800 pixels wide: shares of the records of each actual label."""
    figure = Figure(figsize=(8, 8), dpi=100, layout="constrained")
    metrics.ConfusionMatrixDisplay.from_predictions(
        actual,
        predicted,
        labels=classes,
        normalize="true",
        include_values=len(classes) <= 25,
        xticks_rotation="vertical",
        values_format=".2f",
        cmap="Blues",
        ax=figure.subplots(),
        colorbar=False,
    )
    return figure
