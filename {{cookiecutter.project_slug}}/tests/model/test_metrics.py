"""The metrics of `METRICS`, yours too."""

import numpy as np

from {{ cookiecutter.package_name }}.model.metrics import METRICS, measure


def test_metrics_of_right_answers_are_better_than_of_wrong_ones() -> None:
    actual, right = np.arange(8), np.eye(8)
    better, worse = measure(actual, right), measure(actual, right[::-1])
    assert all((better[each.name] > worse[each.name]) == each.higher_is_better for each in METRICS)
