"""Only a model that is good enough is registered; of the manifest, the gate reads splits and labels."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlops import Gate, ProjectError, check_gate, params

PYPROJECT = '[tool.mlops]\npackage = "team"\nnumeric = []\n'
METRICS, MANIFEST = Path("metrics.json"), Path("manifest.parquet")
COUNTS = {"train": {"healthy": 700, "ill": 300}, "val": {"healthy": 20}, "test": {"healthy": 266, "ill": 93}}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with a manifest."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    write(COUNTS)


def write(counts: Mapping[str, Mapping[str, int]]) -> None:
    pairs = [(split, label) for split in counts for label, count in counts[split].items() for _ in range(count)]
    table = pa.table({"split": [split for split, _ in pairs], "label": [label for _, label in pairs]})
    pq.write_table(table, MANIFEST)


def check(metrics: Mapping[str, float], at_least: Mapping[str, object], at_most: Mapping[str, float] = {}) -> None:
    METRICS.write_text(json.dumps(metrics), encoding="utf-8")
    check_gate(Gate.model_validate({"at_least": at_least, "at_most": at_most}), METRICS, MANIFEST)


def test_gate_majority_says_by_how_much_it_is_passed(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"test_acc": 0.93, "val_acc": 0.8, "test_loss": 0.2}
    check(metrics, {"test_acc": "majority", "val_acc": 0.8}, {"test_loss": 0.5})
    assert capsys.readouterr().out.splitlines() == [
        "test_acc 0.9300 is 0.1465 above 0.7835 "
        "(majority: always 'healthy' is right for 74.1 % of 359 records; upper 95 % bound)",
        "val_acc 0.8000 is 0.0000 above 0.8000",
        "test_loss 0.2000 is 0.3000 below 0.5000",
    ]


def test_gate_majority_that_is_missed_has_the_same_figures() -> None:
    with pytest.raises(ProjectError, match=r"test_acc 0.7600 is 0.0235 below 0.7835 \(majority: always 'healthy'"):
        check({"test_acc": 0.76}, {"test_acc": "majority"})


def test_gate_majority_that_is_always_right_is_never_passed() -> None:
    with pytest.raises(ProjectError, match=r"val_acc 1.0000 .* \(majority: always 'healthy' is right for 100.0 %"):
        check({"val_acc": 1.0}, {"val_acc": "majority"})


def test_gate_majority_is_that_of_train_and_the_better_of_two_equals() -> None:
    write({"train": {"a": 6, "b": 4}, "test": {"a": 1, "b": 3}})
    with pytest.raises(ProjectError, match=r"always 'a' is right for 25.0 % of 4 records"):
        check({"test_acc": 0.25}, {"test_acc": "majority"})
    write({"train": {"a": 5, "b": 5}, "test": {"b": 3, "c": 1}})
    with pytest.raises(ProjectError, match=r"always 'b' is right for 75.0 % of 4 records"):
        check({"test_acc": 0.25}, {"test_acc": "majority"})


def test_gate_majority_of_another_metric_is_refused_with_the_way_out() -> None:
    Path("params.yaml").write_text("register: {at_least: {f1: majority}}", encoding="utf-8")
    with pytest.raises(ProjectError, match="majority is for test_acc and val_acc; give f1 a number"):
        params("register", Gate)


def test_gate_without_limits_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    check({"test_acc": 0.0}, {})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("accuracy", "at_least", "at_most", "problem"),
    [
        (
            0.95,
            {"test_acc": 0.96},
            {},
            "test_acc 0.9500 is 0.0100 below 0.9600\nFix: improve it, or change params.yaml:reg",
        ),
        (0.95, {}, {"test_loss": 0.5}, "test_loss 0.7000 is 0.2000 above 0.5000"),
        (0.95, {"f1": 0.5}, {}, "the gate asks for f1; .* has test_acc, test_loss\nFix: correct params.yaml:register"),
        (float("nan"), {"test_acc": 0.0}, {}, "test_acc nan"),
    ],
    ids=["too low", "too high", "unknown", "nan"],
)
def test_gate_missed_limit_is_refused(
    accuracy: float, at_least: dict[str, float], at_most: dict[str, float], problem: str
) -> None:
    with pytest.raises(ProjectError, match=problem):
        check({"test_acc": accuracy, "test_loss": 0.7}, at_least, at_most)


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ("{at_least: {test_loss: 0.5}}", "of test_loss, less is better: it has its limit in register.at_most"),
        ("{at_most: {val_macro_f1: 0.5}}", "of val_macro_f1, more is better: it has its limit in register.at_least"),
    ],
    ids=["at least", "at most"],
)
def test_gate_in_the_wrong_direction_is_refused_before_anything_is_measured(gate: str, problem: str) -> None:
    Path("params.yaml").write_text(f"register: {gate}", encoding="utf-8")
    with pytest.raises(ProjectError, match=problem):
        params("register", Gate)


def test_gate_takes_figures_that_are_no_metrics_either_way() -> None:
    check({"size_mb": 3.0, "speed": 2.0}, {"speed": 1.0}, {"size_mb": 5.0})
