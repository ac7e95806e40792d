"""Stage `train`: the mean of some columns for each label."""

import json
from operator import eq
from pathlib import Path
from statistics import fmean

from lightning_fabric import Fabric
from mlops import StrictModel, params, read_split, run_processes, training_run, write_report

from ..interface import Model, predict


class TrainParams(StrictModel):
    """`params.yaml:train`: the measurements that the model looks at."""

    columns: list[str]


def main() -> None:
    """Make `models/model` and `reports/metrics.json`."""
    run_processes(train, processes=1, threads=1)


def train(fabric: Fabric) -> None:
    """Do the work of the stage in one process."""
    settings = params("train", TrainParams)
    rows = {split: read_split(Path("data/dataset", split)).to_pylist() for split in ("train", "val", "test")}
    with training_run(fabric) as run:
        model: Model = {}
        for label in sorted({row["label"] for row in rows["train"]}):
            flowers = [json.loads(row["image"]) for row in rows["train"] if row["label"] == label]
            model[label] = {name: fmean(flower[name] for flower in flowers) for name in settings.columns}
        write_report(Path("models/model/means.json"), model)
        scores = {}
        for split in ("val", "test"):
            predicted = [row["label"] for row in predict(model, [row["image"] for row in rows[split]])]
            scores[f"{split}_acc"] = fmean(map(eq, predicted, (row["label"] for row in rows[split])))
        run.log({"val/acc": scores["val_acc"]})
        run.summary.update(scores)
        write_report(Path("reports/metrics.json"), scores)
