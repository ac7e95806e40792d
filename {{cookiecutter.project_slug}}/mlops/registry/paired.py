"""Is a model worse than another one? The interval of their difference on the same records, and what it can't see.

The interval is a bootstrap that draws subjects, each with all its records: records of one subject are alike, so that a
hundred of them tell less than those of a hundred subjects.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

from ..contract import Metric
from .evaluation import Predictions

DRAWS = 2_000
FEWEST = 6  # subjects: that five of five have a loss is chance 1 time in 32, which is more than 2.5 %
NORMAL = NormalDist()
REACH = NORMAL.inv_cdf(0.975)  # standard errors from the middle of a 95 % interval to its ends
POWER = NORMAL.inv_cdf(0.8)  # further ones, for what is true to show 4 times in 5


@dataclass(frozen=True)
class Difference:
    """By how much a model is better than another one (below 0: worse) on the same records, in the metric's unit."""

    value: float
    low: float | None  # ends of the 95 % interval; None with fewer subjects than `FEWEST`
    high: float | None
    error: float  # standard error; with so few subjects, that of independent records: it is larger
    records: int
    subjects: int

    def refused_from(self, margin: float) -> float:
        """Return the loss from which on a model is refused: the interval is below 0, or the loss above the margin."""
        return margin if self.low is None or self.high is None else min((self.high - self.low) / 2, margin)

    def pass_rate(self, loss: float, margin: float) -> float | None:
        """Return how often a model with a true loss is not refused, 0 to 1; None where the two say the same.

        The loss that is measured is taken as normally distributed.
        """
        return 1 - NORMAL.cdf((loss - self.refused_from(margin)) / self.error) if self.error else None

    def needed_records(self, margin: float) -> int | None:
        """Return how many records show 4 times in 5 that an equally good model hasn't lost `margin`.

        They are of more subjects, with as many records each as here. None with few subjects, or without a margin.
        """
        if self.low is None or not self.error or not margin:
            return None
        return ceil(self.records * ((REACH + POWER) * self.error / margin) ** 2)


def difference(metric: Metric, candidate: Predictions, champion: Predictions) -> Difference:
    """Compare what two models say of the same records, in the same order; the same input gives the same result.

    The fewer subjects the two differ on, the wider is the interval, by Student's t.
    """
    sign = 1 if metric.higher_is_better else -1
    subject = np.unique(candidate.subject_ids, return_inverse=True)[1]  # (N,) positions
    subjects, records = int(subject.max()) + 1, len(subject)
    if subjects < FEWEST:
        subject = np.arange(records)
    values = [_of_each_record(metric, predictions) for predictions in (candidate, champion)]

    def drawn(times: np.ndarray) -> float:
        """Return the difference on records that are drawn so many times."""
        rows = np.repeat(np.arange(records), times)
        of = [metric.function(each.actual[rows], each.probabilities[rows]) for each in (candidate, champion)]
        return float(sign * (of[0] - of[1]))

    value = drawn(np.ones(records, np.int64))
    if values[0] is None or values[1] is None:
        differing = len(np.unique(subject[_differ(metric, candidate, champion)]))
        draws = _bootstrap(lambda times: drawn(times[subject]), int(subject.max()) + 1)
    else:
        sums, sizes = np.bincount(subject, sign * (values[0] - values[1])), np.bincount(subject)
        differing = int(np.count_nonzero(sums))
        draws = _bootstrap(lambda times: float(times @ sums / (times @ sizes)), len(sums))
    if subjects < FEWEST:
        return Difference(value, None, None, float(draws.std()), records, subjects)
    wider = _students_t(differing)
    low, high = (value + wider * (np.quantile(draws, share) - value) for share in (0.025, 0.975))
    if differing < FEWEST:
        high = max(high, 0.0)
    return Difference(value, float(low), float(high), float(draws.std()), records, subjects)


def _of_each_record(metric: Metric, predictions: Predictions) -> np.ndarray | None:
    """Return the metric of each record, (N,), if it is their mean for any records; else, as for F1, None."""
    actual, probabilities = predictions.actual, predictions.probabilities
    singly = [slice(number, number + 1) for number in range(len(actual))]
    try:
        values = np.array([metric.function(actual[record], probabilities[record]) for record in singly])
    except ValueError:  # it is not defined for a single record
        return None
    random = np.random.default_rng(0)
    for _ in range(8):  # of equally frequent labels, a mean over labels would be one over all records
        part = random.random(len(actual)) < 0.5
        if part.any() and not np.isclose(metric.function(actual[part], probabilities[part]), values[part].mean()):
            return None
    return values


def _differ(metric: Metric, candidate: Predictions, champion: Predictions) -> np.ndarray:
    """Return for each record, (N,), whether two models say different things of it, as far as a metric sees it."""
    if not metric.needs_probabilities:
        labels = [np.array(each.classes)[each.probabilities.argmax(1)] for each in (candidate, champion)]
        return np.asarray(labels[0] != labels[1])
    if candidate.classes != champion.classes:
        return np.ones(len(candidate.actual), bool)
    return np.asarray((candidate.probabilities != champion.probabilities).any(1))


def _bootstrap(statistic: Callable[[np.ndarray], float], subjects: int) -> np.ndarray:
    """Return a statistic, (DRAWS,), of how many times each subject is drawn, (subjects,) whole numbers."""
    random = np.random.default_rng(0)
    draws = (random.integers(subjects, size=subjects) for _ in range(DRAWS))
    return np.array([statistic(np.bincount(draw, minlength=subjects)) for draw in draws])


def _students_t(subjects: int) -> float:
    """Return by how much a bootstrap of so many subjects is too narrow."""
    from scipy.special import stdtrit

    subjects = max(subjects, 2)
    return sqrt(subjects / (subjects - 1)) * float(stdtrit(subjects - 1, 0.975)) / REACH
