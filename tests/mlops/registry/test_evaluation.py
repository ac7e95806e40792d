"""What a model says of records is measured by the team's metrics, whatever its rows have."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mlops.contract import known_metrics
from mlops.errors import ProjectError
from mlops.records import consent, shards
from mlops.registry import evaluation
from mlops.registry.evaluation import IncomparableError, fair_part, find_metric, measure, predict

PYPROJECT = '[tool.mlops]\npackage = "team"\nnumeric = []\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the template's package; batches are of two records."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    monkeypatch.setattr(evaluation, "BATCH", 2)


def records(*labels: str) -> pa.Table:
    """Return records whose content is what a model is to say, here their own label."""
    rows = [(str(number), f"s{number}", label, label.encode()) for number, label in enumerate(labels)]
    return pa.table(list(zip(*rows, strict=True)), schema=shards.SCHEMA)


def always_seven(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Predict a 7, as versions of before there were scores."""
    return [{"label": "7", "score": 0.5} for _ in contents]


def unsure(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Predict what stands in the content, with the score 0.6; of what it does not know, a 1."""
    return [
        {"label": right, "scores": {"7": 0.6 if right == "7" else 0.4, "1": 0.6 if right == "1" else 0.4}}
        for right in ("7" if content == b"7" else "1" for content in contents)
    ]


def test_predict_goes_over_all_batches_and_knows_labels_that_the_model_lacks() -> None:
    predictions = predict(unsure, records("7", "1", "x", "7", "1"))
    assert (predictions.classes, predictions.labels) == (("7", "1", "x"), ["7", "1", "x", "7", "1"])
    assert predictions.probabilities.tolist()[2] == pytest.approx([0.4, 0.6, 0])
    assert measure(predictions, [find_metric("test_acc", "test_")]) == {"acc": 0.8}
    assert measure(predictions, known_metrics().values())["loss"] == pytest.approx(
        (4 * -np.log(0.6) + 15.942) / 5, abs=1e-3
    )


def test_measure_of_labels_alone_takes_metrics_that_need_no_more() -> None:
    predictions = predict(always_seven, records("7", "1", "7", "7"))
    assert (predictions.classes, predictions.has_scores) == (("1", "7"), False)
    assert measure(predictions, [find_metric("acc"), find_metric("balanced_acc")]) == {"acc": 0.75, "balanced_acc": 0.5}
    with pytest.raises(IncomparableError, match=r"loss needs the probability[\s\S]*acc, balanced_acc, macro_f1"):
        measure(predictions, [find_metric("loss")])


@pytest.mark.parametrize("name", ["test_f2", "acc", "val_acc"])
def test_find_metric_that_is_not_known_lists_those_that_are(name: str) -> None:
    known = re.escape("(known: test_acc, test_balanced_acc, test_macro_f1, test_loss, test_ece, test_top5_acc)")
    with pytest.raises(ProjectError, match=rf"no metric '{name}' {known}[\s\S]*team/interface.py:METRICS"):
        find_metric(name, "test_")


def test_package_without_metrics_is_refused_with_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("team.interface.METRICS")
    with pytest.raises(ProjectError, match=r"team/interface.py has no METRICS[\s\S]*mlops/contract.py:Metric"):
        known_metrics()


def test_fair_part_counts_who_is_seen_and_withdrew_once() -> None:
    Path("consent.csv").write_text("subject_id,consent_status,effective_at\ns0,active,\ns2,active,\n", encoding="utf-8")
    table, today = records("7", "7", "7", "7"), consent.read(Path("consent.csv"))
    fair, seen, without_consent = fair_part(table, {"s2", "s3"}, today)
    assert (fair["subject_id"].to_pylist(), seen, without_consent) == (["s0"], 2, 1)
    assert fair_part(table, (), None)[0].equals(table)
    assert len(fair_part(table, {"s0", "s1", "s2", "s3"}, None)[0]) == 0
