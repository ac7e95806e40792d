"""Predictions in a project: by the model of the work tree, by a registered version, as the stage of the docs."""

import csv
import re

import pyarrow.parquet as pq

from ..conftest import BakedProject
from ..projects import edit, executed, lock

VERSION = "models:/digit-classifier/1"


def test_predictions_of_a_model_a_version_and_the_stage_of_the_docs(project: BakedProject) -> None:
    def predict(model: str) -> str:
        words = ("-m", f"{project.package}.predict", model, "data/dataset/test", "--output", "exports/test.csv")
        project.run("python", *words)
        return (project.path / "exports/test.csv").read_text(encoding="utf-8")

    add_stage(project)
    assert executed(project.run("dvc", "repro").stdout) == ["predict"]
    predictions = (project.path / "predictions/incoming.csv").read_text(encoding="utf-8")
    assert predictions.startswith("file,record_id,label,score,error\ndata/incoming/0/form-04-000.png,,0,0.")
    assert len(predictions.splitlines()) == 391 and "md5" in lock(project)["predict"]["outs"][0]
    assert executed(project.run("dvc", "repro").stdout) == []
    in_work_tree = predict("models/model")
    assert predict(VERSION) == in_work_tree
    trained = pq.read_table(project.path / "reports/predictions.parquet").to_pylist()
    scores = {row["record_id"]: max(row["scores"]) for row in trained}
    rows = csv.DictReader(in_work_tree.splitlines())
    assert {row["record_id"]: float(row["score"]) for row in rows} == scores, "the bits are those of the training"
    # The package changes: the version predicts as it did.
    edit(
        project,
        f"{project.package}/model/transforms.py",
        "np.array(image).reshape",
        "(255 - np.array(image)).reshape",
    )
    assert predict("models/model") != in_work_tree
    assert predict(VERSION) == in_work_tree


def add_stage(project: BakedProject) -> None:
    """Do what the docs say, with the test split as new images."""
    page = (project.path / "docs/predictions.md").read_text(encoding="utf-8")
    (stage,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    edit(project, "dvc.yaml", "\nplots:\n", f"\n{stage}\nplots:\n")
    project.run("python", "-m", "mlops", "data", "export", "exports/images")
    (project.path / "exports/images/test").rename(project.path / "data/incoming")
    project.run("dvc", "add", "--quiet", "data/incoming")
    project.run("git", "add", "data", "dvc.yaml")
