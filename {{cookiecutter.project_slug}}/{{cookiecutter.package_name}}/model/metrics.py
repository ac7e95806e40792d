"""How good predictions are, in figures: to add one, write its function and name it in `METRICS`.

The same definition serves `reports/metrics.json`, the curves of a training, MLflow, the gate of `register` and
`registry promote --by`. This module travels with a registered model, and needs numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST = 2.0**-23  # a probability below it, such as 0, counts as this one: its log loss is 15.9 nats, and not infinite
BINS = 15  # of the calibration error. Source: Guo et al., On Calibration of Modern Neural Networks, 2017


@dataclass(frozen=True)
class Metric:
    """A figure of N records, from their labels, (N,) positions, and the probability of each of K labels, (N, K)."""

    name: str
    function: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool = True
    needs_probabilities: bool = False  # False: which label is the likeliest is enough
    labels: int = 2  # K at least; with fewer labels, it says nothing


def measure(actual: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return every metric that is defined for so many labels, by name.

    Args:
        actual: (N,) whole numbers, positions of the labels.
        probabilities: (N, K), which add up to 1 in each row.
    """
    classes = probabilities.shape[1]
    return {metric.name: metric.function(actual, probabilities) for metric in METRICS if classes >= metric.labels}


def accuracy(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of records whose likeliest label is right; of equally likely ones, the first counts."""
    return float((probabilities.argmax(1) == actual).mean())


def balanced_accuracy(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of the labels' recalls, so that each counts as much; labels without records don't count."""
    hits, records, _ = label_counts(actual, probabilities)
    return float((hits[records > 0] / records[records > 0]).mean())


def macro_f1(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of the labels' F1; those that no record has, and that are never predicted, don't count."""
    hits, records, predictions = label_counts(actual, probabilities)
    both = records + predictions
    return float((2 * hits[both > 0] / both[both > 0]).mean())


def label_counts(actual: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each label, (K,), how many records have it and are predicted so, have it, are predicted so."""
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    hits = actual[predicted == actual]
    return tuple(np.bincount(labels, minlength=classes) for labels in (hits, actual, predicted))  # type: ignore[return-value]


def log_loss(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean cross-entropy, nats; see `LEAST`."""
    return float(losses(actual, probabilities).mean())


def losses(actual: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each record, (N,) float64, nats; see `LEAST`."""
    lost: np.ndarray = -np.log(np.maximum(_own(actual, probabilities), LEAST))
    return lost


def calibration_error(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error: how far the highest probability is from the share of right answers.

    The mean over records of the distance in their bin; of a few hundred records, chance alone gives some hundredths.
    """
    confidence = probabilities.max(1).astype(np.float64)
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)  # the lower edge isn't part of a bin, the upper is
    distance = confidence - (probabilities.argmax(1) == actual)
    return float(np.abs(np.bincount(bins, distance, BINS)).sum() / len(actual))


def top5_accuracy(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of records whose label is among the five likeliest; of equally likely ones, the first count."""
    own = _own(actual, probabilities)[:, None]
    before = np.arange(probabilities.shape[1]) < actual[:, None]
    rank = (probabilities > own).sum(1) + ((probabilities == own) & before).sum(1)
    return float((rank < 5).mean())


def _own(actual: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of each record's own label, (N,) float64."""
    own: np.ndarray = probabilities[np.arange(len(actual)), actual].astype(np.float64)
    return own


METRICS = (
    Metric("acc", accuracy),
    Metric("balanced_acc", balanced_accuracy),
    Metric("macro_f1", macro_f1),
    Metric("loss", log_loss, higher_is_better=False, needs_probabilities=True),
    Metric("ece", calibration_error, higher_is_better=False, needs_probabilities=True),
    Metric("top5_acc", top5_accuracy, needs_probabilities=True, labels=6),
)
