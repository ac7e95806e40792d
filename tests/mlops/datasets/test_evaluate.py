"""A model is measured on what it hasn't seen and what may be used; where nobody can tell, only if that is accepted."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from mlops.cli import main
from mlops.datasets.evaluate import Evaluation, evaluate
from mlops.errors import ProjectError
from mlops.files import read_json, write_json

from ..test_output import document
from .conftest import FIRST, Run, reproduce

INTERFACE = """\
import json

class Accuracy:
    name, higher_is_better, needs_probabilities, labels = "acc", True, False, 2
    function = staticmethod(lambda actual, probabilities: float((probabilities.argmax(1) == actual).mean()))

class Lowest(Accuracy):
    name, needs_probabilities = "lowest", True
    function = staticmethod(lambda actual, probabilities: float(probabilities.min()))

METRICS = (Accuracy, Lowest)

def load(directory):
    return json.loads((directory / "model.json").read_text())

def predict(model, contents):
    return [model.get(content.decode(), model["others"]) for content in contents]
"""
CAT, DOG = (
    {"label": label, "scores": {"cat": score, "dog": 1 - score}} for label, score in (("cat", 0.75), ("dog", 0))
)


@pytest.fixture
def model(project: Path) -> str:
    """What the project trained on the second version: the directory of a model that takes r4 and r6 for dogs."""
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    outs = "    outs: [models/model]\n    metrics: [reports/run.json"
    Path("dvc.yaml").write_text(text.replace("    metrics: [reports/run.json", outs), encoding="utf-8")
    Path("pictures/interface.py").write_text(INTERFACE, encoding="utf-8")
    sys.modules.pop("pictures.interface", None)  # as it was when the dataset was made
    write_json(Path("models/model/model.json"), {"r4": DOG, "r6": DOG, "others": CAT})
    write_json(Path("other/model.json"), {"others": {"label": "cat"}})
    sha256 = read_json(Path("reports/manifest.json"))["sha256"][0]
    write_json(Path("reports/train/lineage.json"), {"manifest_sha256": sha256, "parents": []})
    write_consent("ann", "bob", "dan", "eve", "cem")
    return "models/model"


def write_consent(*subjects: str) -> None:
    lines = "".join(f"{subject},active,\n" for subject in subjects)
    Path("data/consent.csv").write_text(f"subject_id,consent_status,effective_at\n{lines}", encoding="utf-8")


def counts(result: Evaluation) -> tuple[list[str], int | None, int]:
    return result.predictions.record_ids, result.seen, result.without_consent


def test_evaluate_counts_records_that_are_new_to_the_model_and_may_be_used(model: str) -> None:
    result = evaluate(model)
    assert counts(result) == (["r3", "r4", "r6"], 0, 0)
    assert result.metrics == {"acc": pytest.approx(2 / 3), "lowest": 0.0}
    write_consent("dan", "ann")
    assert counts(evaluate(model)) == (["r4"], 0, 2)
    assert counts(evaluate(model, on="HEAD~1", split="train", include_seen=True)) == (["r1", "r2"], 2, 0)
    with pytest.raises(ProjectError, match=r"train of HEAD~1 none is left: 0 have .*, 2 are of[\s\S]*--include-seen"):
        evaluate(model, on="HEAD~1", split="train")


def test_evaluate_on_another_version_leaves_out_what_the_model_has_seen_of_it(model: str) -> None:
    assert counts(evaluate(model, on="HEAD~1")) == (["r4", "r5"], 0, 0), "the first version's test set"
    assert counts(evaluate(model, on="HEAD~1", split="val")) == (["r3"], 0, 0), "bob is in the second's test set"
    assert counts(evaluate(model, on="workspace")) == counts(evaluate(model))


def test_evaluate_a_model_that_saw_nobody_knows_what_needs_include_seen(model: str, run: Run) -> None:
    with pytest.raises(ProjectError, match=r"other is not what the training stage made[\s\S]*--include-seen"):
        evaluate("other")
    result = evaluate("other", include_seen=True)
    assert counts(result) == (["r3", "r4", "r6"], None, 0)
    assert result.metrics == {"acc": pytest.approx(2 / 3)}
    assert not result.predictions.has_scores, "so there are no metrics of probabilities"
    Path("reports/train/lineage.json").rename("lineage.json")
    with pytest.raises(ProjectError, match=r"no run in reports/train\nFix: .*--include-seen"):
        evaluate(model)
    assert counts(evaluate(model, include_seen=True)) == (["r3", "r4", "r6"], None, 0)
    Path("lineage.json").rename("reports/train/lineage.json")
    reproduce(run, FIRST)
    with pytest.raises(ProjectError, match="models/model is not what the training stage made of the dataset"):
        evaluate(model)


def test_evaluate_without_a_report_of_consent_requires_it_and_without_need_does_not(model: str) -> None:
    Path("data/consent.csv").unlink()
    with pytest.raises(ProjectError, match=r"consent.csv"):
        evaluate(model)
    write_json(Path("reports/prepare.json"), {"excluded": 0, "consent_sha256": ["not_required"]})
    assert counts(evaluate(model))[0] == ["r3", "r4", "r6"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere/model",), "no directory nowhere/model, and it names no version\nFix: python -m mlops registry list"),
        (("models/model", "--on", "nothing"), "no label, hash of a dataset, or revision 'nothing'"),
        (("models/model", "--split", "tests"), "it has these splits now: test, train, val"),
        (("models/model", "--output", "p.csv"), "p.csv is not .parquet\nFix: --output p.parquet"),
    ],
    ids=["model", "dataset", "split", "output"],
)
def test_evaluate_of_what_is_not_there_says_what_is(model: str, arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(main, ["evaluate", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Fix: " in done.stderr


def test_evaluate_prints_figures_and_writes_each_prediction(model: str) -> None:
    done = CliRunner().invoke(main, ["evaluate", model, "--output", "out/p.parquet"])
    assert done.stdout.splitlines() == [
        "models/model on data/dataset, test: 3 records of 2 subjects",
        "  that it has trained on: 0 (left out)",
        "  without consent today: 0 (left out)",
        "",
        "acc     0.6667",
        "lowest  0.0000",
    ]
    table = pq.read_table("out/p.parquet")
    assert json.loads(table.schema.metadata[b"classes"]) == ["cat", "dog"]
    assert table.to_pylist()[0] == {
        "record_id": "r3",
        "subject_id": "bob",
        "label": "cat",
        "predicted": "cat",
        "scores": [0.75, 0.25],
    }
    row = document("evaluate", "evaluate", model, "--split", "val", "--include-seen")
    assert (row["records"], row["seen"], row["metrics"]["acc"]) == (2, 2, 1.0)
