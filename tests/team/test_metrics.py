"""Figures of predictions, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference
from team.model.metrics import LEAST, measure, top5_accuracy


def predictions(records: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and probabilities that are right more often than not; the last label has no records."""
    random = np.random.default_rng(records)
    actual = random.integers(0, max(1, classes - 1), records)
    logits = random.normal(size=(records, classes)) + 1.5 * np.eye(classes)[actual]
    return actual, (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 2), (9, 2), (40, 3), (500, 7)], ids=str)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")
def test_metrics_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    actual, probabilities = predictions(*shape)
    predicted, labels = probabilities.argmax(1), range(shape[1])
    expected = {
        "acc": reference.accuracy_score(actual, predicted),
        "balanced_acc": reference.balanced_accuracy_score(actual, predicted),
        "macro_f1": reference.f1_score(actual, predicted, average="macro"),
        "loss": reference.log_loss(actual, probabilities, labels=labels),
    }
    if shape[1] > 5:
        expected["top5_acc"] = reference.top_k_accuracy_score(actual, probabilities, k=5, labels=labels)
    measured = measure(actual, probabilities)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert measured.keys() - expected.keys() == {"ece"}


def test_loss_of_a_label_without_any_probability_is_finite() -> None:
    loss = measure(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]], np.float32))["loss"]
    assert loss == -math.log(LEAST) / 2 == pytest.approx(7.97, abs=0.01)


def test_ece_is_the_distance_of_confidence_and_accuracy_in_bins() -> None:
    # Three records in the bin up to 0.8, one of them at its edge, two of them right; one that is sure, and right.
    sure = np.array([0.74, 0.76, 12 / 15, 1.0])
    measured = measure(np.array([0, 1, 0, 0]), np.stack([sure, 1 - sure], 1))
    assert measured["ece"] == pytest.approx(abs((0.74 - 1) + (0.76 - 0) + (0.8 - 1)) / 4)


def test_top5_of_equally_likely_labels_counts_the_first() -> None:
    assert top5_accuracy(np.arange(10), np.full((10, 10), 0.1)) == 0.5
