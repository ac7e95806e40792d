"""Which versions are refused: for a loss that is shown, or that adds up; and what is recorded of it.

The versions have a dataset and a commit; what they predict is written here.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.registry import aliases, comparison
from mlops.registry.aliases import REFUSAL, alias_changes
from mlops.registry.evaluation import IncomparableError, Predictions
from mlops.registry.promotion import promote, rollback

from .conftest import MODEL, Git
from .test_comparison import committed_version, project  # noqa: F401 (a fixture)

RECORDS = 200  # of as many subjects, in the test set

Wrong = dict[int, Iterable[int]]
Register = Callable[..., None]


@pytest.fixture
def register(
    project: Path,  # noqa: F811
    client: MlflowClient,
    git: Git,
    monkeypatch: pytest.MonkeyPatch,
) -> Register:
    """Register versions after those of `client`, which are taken away: each number with the records it is wrong on."""

    def register(wrong: Wrong, subjects: int = RECORDS, scores: bool = True, limits: str = "") -> None:
        Path("params.yaml").write_text(f"train: {{}}\n{limits}", encoding="utf-8")
        names = {part: [f"{part}-{number:03}" for number in range(subjects)] for part in ("train", "val", "test")}
        made = committed_version(1, git, names, [])
        client.delete_registered_model(MODEL)
        client.create_registered_model(MODEL)
        for number in wrong:
            version = client.create_model_version(MODEL, "file:///nowhere", tags=made.tags)
            assert int(version.version) == number

        def predict(version: Any, test_sets: dict[int, Any], known: object) -> list[Predictions]:
            return [_predictions(table, wrong[int(version.version)], scores) for table in test_sets.values()]

        monkeypatch.setattr(comparison, "_predict", predict)
        promote("1")

    return register


def _predictions(records: Any, wrong: Iterable[int], scores: bool) -> Predictions:
    """Return a model of two labels that is wrong about some records, and sure by 0.9."""
    right = ~np.isin(np.arange(len(records)), list(wrong))
    ids, subjects = (records[name].to_pylist() for name in ("record_id", "subject_id"))
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]) if scores else np.eye(2)[1 - right]
    return Predictions(ids, subjects, ("7", "9"), np.zeros(len(records), np.int64), probabilities, scores)


def champion() -> int | None:
    return aliases.read().aliases.get("champion")


def last() -> dict[str, Any]:
    """Return the figures of the last change."""
    return alias_changes()[-1].metrics


def test_version_that_is_as_good_passes(register: Register) -> None:
    register({1: range(8), 2: range(8), 3: range(2, 9)})
    promote("2")
    (result,) = last()["test_sets"]
    assert [result[name] for name in ("records", "subjects", "value", "low", "high", "error")] == [200, 200, 0, 0, 0, 0]
    assert (last()["by"], last()["champion"], last()["margin"], last()["strict"]) == ("test_acc", 1, 0.02, False)
    assert last()["best"] == 2
    promote("3")
    assert (champion(), last()["best"]) == (3, 3), "it is better by one record"


def test_loss_that_is_shown_is_refused_and_recorded(
    register: Register, client: MlflowClient, git: Git, caplog: pytest.LogCaptureFixture
) -> None:
    register({1: (), 2: range(6)}, limits="promote: {margin: 0.5}\n")
    caplog.set_level("INFO")
    with pytest.raises(
        ProjectError,
        match="version 2 is refused: it is worse than the champion, version 1, on the test set of version 2: the "
        r"interval of its gain ends at -0.00\d\d\nFix: promote a better one; or .* promote 2 --anyway --why '…'$",
    ):
        promote("2", why="more forms")
    assert "by test_acc: 0.9700 against 1.0000, gain -0.0300 (95 % interval -0.0" in caplog.text
    assert "the refusal is recorded: python -m mlops registry log" in caplog.text
    assert "200 records of 200 subjects (left out: 0 that one of them has trained on, 0 without" in caplog.text
    assert (champion(), len(alias_changes())) == (1, 1)
    (refusal,) = alias_changes(kinds=(REFUSAL,))
    assert (refusal.who, refusal.why, refusal.before, refusal.version) == (
        "Test <test@example.org>",
        "more forms",
        1,
        2,
    )
    assert refusal.metrics["objections"][0].startswith("it is worse than the champion")
    assert (refusal.metrics["run"], refusal.metrics["test_sets"][0]["candidate"]) == ({"size": 1}, 0.97)
    assert json.loads(json.dumps(refusal.metrics, allow_nan=False)) == refusal.metrics
    assert refusal.tag in client.get_model_version(MODEL, "2").tags
    promote("2", why="the first knows who withdrew", anyway=True)
    assert (champion(), last()["best"], len(last()["objections"])) == (2, 2, 1)


def test_small_losses_pass_until_they_add_up_to_more_than_the_margin(
    register: Register, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    register({1: (), 2: range(2), 3: range(4), 4: range(6), 5: range(8), 6: range(10), 7: range(3)})
    caplog.set_level("INFO")
    promote("2")
    assert "of the time, one of 0.0" in caplog.text
    promote("3")
    assert (champion(), last()["best"]) == (3, 1), "0.02 is not above the margin"
    assert [each["against"] for each in last()["test_sets"]] == [2, 1]
    error = "it has lost 0.0300 against the best champion so far, version 1, on .*: more than promote.margin"
    with pytest.raises(ProjectError, match=error):
        promote("4")
    promote("4", why="it is small", anyway=True)
    promote("5")
    promote("6")
    assert last()["best"] == 4, "a loss that somebody answers for is where the count begins anew"
    rollback()
    rollback()
    assert champion() == 4
    rollback()
    with pytest.raises(ProjectError, match="best champion so far, version 1"):
        promote("4")
    promote("7")
    assert last()["best"] == 1, "what was taken back is no champion"
    client.delete_model_version(MODEL, "1")
    with pytest.raises(IncomparableError, match="version 1 is not in MLflow any more\nFix: .*; or .* promote 3 --any"):
        promote("3")


def test_metrics_have_each_their_best(register: Register) -> None:
    register({1: range(2), 2: range(3), 3: range(1)})
    promote("2", by="test_loss")
    assert last()["best"] == 1
    (result,) = last()["test_sets"]
    assert result["candidate"] > result["champion"] and result["value"] < 0, "a lower loss is better"
    promote("3")
    assert [each["against"] for each in last()["test_sets"]] == [2], "by accuracy, none was compared before"


def test_strict_asks_to_show_that_the_loss_is_below_the_margin(register: Register) -> None:
    register({1: range(4), 2: range(2, 6), 3: range(4)}, limits="promote: {margin: 0.02, strict: true}\n")
    error = (
        r"promote.strict: no loss above promote.margin \(0.02\) is ruled out against the champion, version 1, on the "
        r"test set of version 2; of a version as good as it, about \d\d\d records would do so 4 times in 5\n"
    )
    with pytest.raises(ProjectError, match=error):
        promote("2")
    promote("3")
    assert champion() == 3, "the two say the same"


def test_few_subjects_are_said_and_only_the_margin_counts(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    register({1: (), 2: range(2), 3: range(3)}, subjects=5, limits="promote: {margin: 0.5}\n")
    caplog.set_level("INFO")
    promote("2")
    assert "gain -0.4000 (no interval)" in caplog.text
    assert "5 subject(s) are too few to tell a loss from chance: only promote.margin counts; if their" in caplog.text
    with pytest.raises(ProjectError, match="it has lost 0.6000 against the best champion so far"):
        promote("3")


def test_challenger_is_compared_and_not_refused(register: Register) -> None:
    register({1: (), 2: range(50)})
    promote("2", "challenger")
    assert (champion(), last()["test_sets"][0]["value"], "best" in last()) == (1, -0.25, False)


def test_models_without_scores_are_compared_by_their_labels_alone(register: Register) -> None:
    register({1: range(2), 2: range(1)}, scores=False)
    with pytest.raises(
        IncomparableError,
        match="without scores, and .*loss needs the probability .*\nFix: --by test_acc; or .* --anyway",
    ):
        promote("2", by="test_loss")
    promote("2", by="test_macro_f1")
    assert champion() == 2


def test_metric_that_says_nothing_of_these_labels_is_refused(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register({1: (), 2: ()})
    with pytest.raises(IncomparableError, match="top5_acc says nothing of 2 labels\nFix: --by test_acc; or"):
        promote("2", by="test_top5_acc")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("promote: {margin: -1}\n", "params.yaml:promote.margin is -1.*\nFix: change params.yaml:promote.margin"),
        ("promote: {margn: 1}\n", r"unknown key: promote.margn \(did you mean 'margin'\?\)"),
    ],
)
def test_limits_that_are_none_are_named(register: Register, limits: str, message: str) -> None:
    register({1: (), 2: ()}, limits=limits)
    with pytest.raises(ProjectError, match=message):
        promote("2")
