"""The interval of a difference: right in cases worked out by hand, calibrated in simulations, fast enough."""

import time
from collections.abc import Sequence

import numpy as np
import pytest
from mlops.registry import paired
from mlops.registry.comparison import Comparison
from mlops.registry.evaluation import Predictions
from mlops.registry.paired import DRAWS, FEWEST, Difference, difference
from mlops.registry.promotion import Promote, _objections
from team.model.metrics import METRICS, Metric

ALL = {metric.name: metric for metric in METRICS}
ACCURACY = ALL["acc"]


def predictions(
    actual: np.ndarray, probabilities: np.ndarray, subjects: Sequence[str] | None = None, classes: str = "ab"
) -> Predictions:
    """Return what a model says; without `subjects`, each record is one."""
    ids = [str(number) for number in range(len(actual))]
    return Predictions(ids, list(subjects or ids), tuple(classes), actual, probabilities, True)


def answers(right: np.ndarray, subjects: Sequence[str] | None = None) -> Predictions:
    """Return a model of two labels that is right, or wrong, (N,) bool, about records of the first."""
    return predictions(np.zeros(len(right), np.int64), np.eye(2)[1 - right], subjects)


def pair(records: int, lost: int, won: int) -> tuple[Predictions, Predictions]:
    """Return a candidate and a champion that differ on some records: those that it lost, and that it won."""
    number = np.arange(records)
    champion = ~((lost <= number) & (number < lost + won))
    return answers(number >= lost), answers(champion)


def noisy(random: np.random.Generator, actual: np.ndarray, classes: int) -> Predictions:
    """Return a model that is sure of the right label in most cases."""
    scores = random.normal(size=(len(actual), classes))
    scores[np.arange(len(actual)), actual] += 2
    exponents = np.exp(scores)
    return predictions(actual, exponents / exponents.sum(1, keepdims=True), None, "abcdefghij"[:classes])


@pytest.mark.parametrize(
    ("records", "lost", "won", "worse"),
    [
        (390, 0, 0, False),
        (390, 3, 0, False),
        (390, 5, 0, False),  # a coin does so 1 time in 32
        (390, 6, 0, True),  # 1 in 64
        (390, 7, 4, False),
        (390, 15, 4, True),
        (390, 12, 9, False),
        (10_000, 77, 0, True),
        (10_000, 60, 45, False),
        (10_000, 150, 73, True),
    ],
)
def test_worse_is_shown_where_the_exact_test_of_mcnemar_shows_it(
    records: int, lost: int, won: int, worse: bool
) -> None:
    result = difference(ACCURACY, *pair(records, lost, won))
    assert result.low is not None and result.high is not None
    assert result.value == pytest.approx((won - lost) / records)
    assert (result.high < 0) == worse
    assert result.low <= result.value <= result.high
    assert (result.records, result.subjects) == (records, records)


def test_interval_of_many_records_is_that_of_the_normal_approximation() -> None:
    result = difference(ACCURACY, *pair(10_000, 300, 200))
    error = np.sqrt(0.05 - 0.01**2) / 100
    assert result.error == pytest.approx(error, rel=0.05)
    assert [result.low, result.high] == pytest.approx([-0.01 - 1.96 * error, -0.01 + 1.96 * error], abs=3e-4)


def test_records_of_one_subject_count_as_one_draw() -> None:
    """Where each subject has ten records that are all lost or won together, there are a tenth as many draws."""
    right = np.random.default_rng(1).random((2, 100)) < 0.8
    single = difference(ACCURACY, *map(answers, right))
    subjects = [f"s{number // 10}" for number in range(1000)]
    tenfold = difference(ACCURACY, *(answers(each.repeat(10), subjects) for each in right))
    assert (tenfold.records, tenfold.subjects) == (1000, 100)
    assert (tenfold.value, tenfold.low, tenfold.high) == pytest.approx(
        (single.value, single.low, single.high), abs=0.02
    )
    independent = difference(ACCURACY, *(answers(each.repeat(10)) for each in right))
    assert tenfold.error / independent.error == pytest.approx(10**0.5, rel=0.1)


def test_few_subjects_have_a_wider_interval_and_very_few_have_none() -> None:
    lost = np.tile([False, True, True, True], 100)  # of each four records
    for count in (FEWEST - 1, FEWEST, 400):
        subjects = [f"s{number % count}" for number in range(400)]
        result = difference(ACCURACY, answers(~lost, subjects), answers(np.ones(400, bool), subjects))
        assert (result.subjects, result.low is None, result.high is None) == (count, count < FEWEST, count < FEWEST)
        if count < FEWEST:
            independent = difference(ACCURACY, answers(~lost), answers(np.ones(400, bool)))
            assert result.error == pytest.approx(independent.error, rel=0.02)
            assert result.needed_records(0.02) is None
            assert result.refused_from(0.02) == 0.02, "the margin alone counts"
    factor = paired._students_t(FEWEST)
    assert factor == pytest.approx((6 / 5) ** 0.5 * 2.5706 / 1.9600, abs=1e-4)  # Student's t, 5 degrees of freedom
    assert paired._students_t(100_000) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", list(ALL))
def test_same_predictions_differ_by_nothing_by_each_metric(name: str) -> None:
    random = np.random.default_rng(0)
    model = noisy(random, random.integers(10, size=60), 10)
    result = difference(ALL[name], model, model)
    assert (result.value, result.low, result.high, result.error) == (0, 0, 0, 0)
    assert result.pass_rate(0.01, 0.02) is None and result.needed_records(0.02) is None


@pytest.mark.parametrize("name", list(ALL))
def test_gain_has_the_direction_of_the_metric_and_is_the_same_each_time(name: str) -> None:
    random = np.random.default_rng(0)
    actual = random.integers(10, size=200)
    good, bad = noisy(random, actual, 10), noisy(random, actual, 10)
    bad = predictions(actual, np.roll(bad.probabilities, 1, axis=0) * 0.5 + 0.05, None, "abcdefghij")
    metric = ALL[name]
    figures = [metric.function(actual, each.probabilities) for each in (good, bad)]
    result = difference(metric, good, bad)
    assert result.value == pytest.approx((figures[0] - figures[1]) * (1 if metric.higher_is_better else -1))
    assert (result.value > 0) == (name != "ece" or figures[0] < figures[1])
    assert result == difference(metric, good, bad)
    back = difference(metric, bad, good)
    assert result.low is not None and result.high is not None
    assert [back.value, back.low, back.high] == pytest.approx([-result.value, -result.high, -result.low])


def test_metric_that_is_a_mean_of_records_has_the_interval_of_one_that_is_not_known_to_be() -> None:
    random = np.random.default_rng(3)
    actual = random.integers(3, size=300)
    models = [noisy(random, actual, 3) for _ in range(2)]
    for name in ("acc", "loss"):
        opaque = Metric(name, refuses_one_record(ALL[name]), ALL[name].higher_is_better, ALL[name].needs_probabilities)
        assert paired._of_each_record(ALL[name], models[0]) is not None
        assert paired._of_each_record(opaque, models[0]) is None
        known, unknown = (difference(metric, *models) for metric in (ALL[name], opaque))
        assert vars(known) == pytest.approx(vars(unknown), rel=0.01), "they count the differing differently"


def refuses_one_record(metric: Metric):  # type: ignore[no-untyped-def]
    """Return the function of a metric that is not defined for a single record, as an area under a curve isn't."""

    def function(actual: np.ndarray, probabilities: np.ndarray) -> float:
        if len(actual) == 1:
            raise ValueError("one label only")
        return float(metric.function(actual, probabilities))

    return function


@pytest.mark.parametrize("name", ["balanced_acc", "macro_f1", "ece"])
def test_metric_of_labels_or_bins_is_not_taken_for_a_mean_of_records(name: str) -> None:
    """Also where all labels are equally frequent, so that balanced accuracy is accuracy."""
    model = noisy(np.random.default_rng(0), np.repeat(np.arange(4), 25), 4)
    assert paired._of_each_record(ALL[name], model) is None


def test_models_that_know_other_labels_are_compared_by_what_the_labels_are() -> None:
    first = predictions(np.zeros(20, np.int64), np.tile([0.9, 0.1], (20, 1)), None, "ab")
    second = predictions(np.ones(20, np.int64), np.tile([0.1, 0.9], (20, 1)), None, "ba")
    assert difference(ALL["macro_f1"], first, second).error == 0
    assert difference(ACCURACY, first, second).value == 0


@pytest.mark.parametrize(
    ("error", "loss", "margin", "rate"),
    [(0.00877, 0.01, 0.02, 0.79), (0.00877, 0.02, 0.02, 0.37), (0.05, 0.02, 0.02, 0.5), (0.0001, 0.01, 0.02, 0)],
)
def test_pass_rate_is_that_of_a_simulation(error: float, loss: float, margin: float, rate: float) -> None:
    values = np.random.default_rng(0).normal(-loss, error, 100_000)
    passed = (values + 1.96 * error >= 0) & (values >= -margin)
    assert Difference(0, -1.96 * error, 1.96 * error, error, 390, 390).pass_rate(loss, margin) == pytest.approx(
        passed.mean(), abs=0.005
    )
    assert passed.mean() == pytest.approx(rate, abs=0.01)


def test_needed_records_rule_out_the_margin_4_times_in_5() -> None:
    result = difference(ACCURACY, *pair(390, 6, 6))
    needed = result.needed_records(0.02)
    assert needed is not None
    values = np.random.default_rng(0).normal(0, result.error * (390 / needed) ** 0.5, 100_000)
    lows = values - 1.96 * result.error * (390 / needed) ** 0.5
    assert (lows >= -0.02).mean() == pytest.approx(0.8, abs=0.01)
    assert result.needed_records(0) is None


def test_ten_thousand_records_take_about_a_second() -> None:
    """Of processor time, for 2,000 draws; twice that in a busy machine."""
    random = np.random.default_rng(0)
    actual = random.integers(10, size=10_000)
    models = [noisy(random, actual, 10) for _ in range(2)]
    begin = time.process_time()
    for name in ("acc", "loss"):
        difference(ALL[name], *models)
    assert DRAWS == 2_000
    assert time.process_time() - begin < 4


def objections(result: Difference, against: int = 1) -> list[str]:
    rest = {"test_set_of": 2, "seen": 0, "without_consent": 0, "candidate": 0, "champion": 0}
    comparison = Comparison(**vars(result), against=against, **rest)
    return list(_objections(comparison, 1, Promote(margin=0.02, strict=False)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subjects", "size", "differing", "spread"),
    [(390, 1, 0.03, 0.0), (120, 3, 0.1, 0.05), (8, 50, 0.1, 0.05)],
)
def test_model_that_is_as_good_is_called_worse_in_2_5_percent_of_cases(
    subjects: int, size: int, differing: float, spread: float
) -> None:
    """Whether records are independent, or some subjects suit one of the models better (`spread`)."""
    random, names = np.random.default_rng(1), np.repeat([f"s{n}" for n in range(subjects)], size).tolist()
    times, worse = 400, 0
    for _ in range(times):
        tilt = random.normal(0, spread, (subjects, 1))
        draw = random.random((subjects, size))
        lost, won = draw < differing / 2 + tilt, draw > 1 - differing / 2 + tilt
        result = difference(ACCURACY, answers(~lost.ravel(), names), answers(~won.ravel(), names))
        worse += result.high is not None and result.high < 0
    assert worse / times < 0.025 + 3 * (0.025 * 0.975 / times) ** 0.5


@pytest.mark.slow
def test_chain_of_small_losses_stops_at_the_margin_and_a_worse_one_of_many_records_is_refused() -> None:
    """A loss of 0.6 points passes each time, on 390 records, against the one before; not against the best."""
    random, records = np.random.default_rng(2), 390
    losses = []
    for _ in range(40):
        best = champion = random.random(records) < 0.97
        while True:
            candidate = champion & (random.random(records) > 0.006)
            if objections(difference(ACCURACY, answers(candidate), answers(champion))):
                break
            if objections(difference(ACCURACY, answers(candidate), answers(best)), against=3):
                break
            champion = candidate
        losses.append(best.mean() - champion.mean())
    assert max(losses) <= 0.02 + 1e-9
    assert np.mean(losses) > 0.01, "the chain went on until then"
    refused = 0
    for _ in range(40):
        champion = random.random(10_000) < 0.97
        candidate = np.where(random.random(10_000) < 0.03, random.random(10_000) < 0.6, champion)
        refused += bool(objections(difference(ACCURACY, answers(candidate), answers(champion))))
    assert refused == 40
