"""The pipeline's work as one plain script with MLflow's own calls, to compare with: see `pipeline.py`.

    python plain_script.py <package>

Runs in the root of a generated project after its `setup`. Only what computes is the project's (the team's package, and
the formats of `mlops.records`), so that both compute the same.
"""

import csv
import hashlib
import json
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pyarrow.parquet as pq
from mlflow.data.pandas_dataset import from_pandas
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from ruamel.yaml import YAML

PACKAGE = sys.argv[1]
mlops = import_module("mlops")
manifest, shards, source, splits = (
    import_module(f"mlops.records.{name}") for name in ("manifest", "shards", "source", "splits")
)
digits, evaluation, datasets, networks, predictor, training, transforms, contact_sheets, reports, interface = (
    import_module(f"{PACKAGE}.{name}")
    for name in (
        *("data.digits", "model.evaluation", "model.dataset", "model.networks", "model.predictor"),
        *("model.training", "model.transforms", "stages.manifest", "model.reports", "interface"),
    )
)
DATASET, REPORTS, MODEL, MANIFEST = (
    Path(name) for name in ("data/dataset", "reports", "models/model", "data/manifest.parquet")
)


@dataclass(frozen=True)
class TestSet:
    """Its records."""

    record_ids: list[str]
    subject_ids: list[str]
    images: list[bytes]

    def __getitem__(self, index: int) -> bytes:
        """Return an image."""
        return self.images[index]


class EpochLog:
    """What the training loop asks of a run: here, a call of MLflow's for each epoch, and no checkpoints."""

    group = mlops.TrainingRun().group
    checkpoint = None
    epochs = 0

    def log(self, metrics: dict[str, float]) -> None:
        """Log what one pass over the training images gave."""
        mlflow.log_metrics(metrics, step=self.epochs)
        self.epochs += 1

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Save nothing."""


def main() -> None:
    """Do it all."""
    params = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').resolve().as_posix()}")
    mlflow.set_experiment("plain")
    prepare(params["data"], params["split"])
    manifest_sha256, dataset_md5 = describe(), digest()
    with mlflow.start_run():
        for section in ("data", "split", "train"):
            mlflow.log_params({f"{section}.{key}": value for key, value in params[section].items()})
        mlflow.log_params({"manifest_sha256": manifest_sha256, "dataset_md5": dataset_md5})
        listed = from_pandas(pq.read_table(MANIFEST).to_pandas(), str(MANIFEST), name="manifest")
        mlflow.log_input(listed, context="training")
        metrics = train(training.TrainParams(**params["train"]))
        for file in (MANIFEST, REPORTS / "manifest.json", REPORTS / "confusion.csv", REPORTS / "per_class.csv"):
            mlflow.log_artifact(str(file), file.parent.as_posix())
        mlflow.log_artifacts(str(REPORTS / "samples"), "samples")
        if metrics["test_acc"] < params["register"]["at_least"]["test_acc"]:
            sys.exit("not good enough to register")
        register()


def prepare(data: dict[str, Any], split: dict[str, Any]) -> None:
    """Make the dataset."""
    with source.read_records(digits, data["fraction"]) as records:
        source.require_consent(records, data["consent"])
        splits.split_by_subject(records, splits.SplitParams(**split))
        shards.write(records, data["shards"], DATASET)


def describe() -> str:
    """Write manifest, counts and contact sheets; return the manifest's digest."""
    summary = manifest.write_manifest(DATASET, MANIFEST)
    counts = summary.counts
    (REPORTS / "samples").mkdir(parents=True, exist_ok=True)
    for split in splits.SPLITS:
        labels = [row["label"] for row in counts if row["split"] == split]
        rows = [(label, summary.first_records(split, label)) for label in labels]
        contact_sheets.contact_sheet(rows, len(labels)).save(REPORTS / "samples" / f"{split}.png")
    write_csv(REPORTS / "labels.csv", counts)
    content = {"records": summary.records, "counts": counts}
    (REPORTS / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    return str(summary.sha256)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def digest() -> str:
    """Name the dataset by its bytes."""
    md5 = hashlib.md5(usedforsecurity=False)
    for file in sorted(DATASET.rglob("*.parquet")):
        md5.update(file.read_bytes())
    return md5.hexdigest()


def train(params: Any) -> dict[str, float]:
    """Train, save the best epoch's weights, measure and draw them; return the metrics."""
    training.make_deterministic(params.seed, params.threads)
    dataset = datasets.read_dataset(DATASET, None, params.image_px)
    module = networks.build(params.arch, len(dataset.classes), dataset.channels, None)
    normalise = transforms.Normalise.of(dataset.train.pixels)
    training.fit(module, dataset.train, dataset.val, normalise, params, EpochLog())
    config = predictor.ModelConfig(
        arch=params.arch,
        classes=dataset.classes,
        image_px=params.image_px,
        channels=dataset.channels,
        mean=normalise.mean,
        std=normalise.std,
    )
    predictor.save(MODEL, module, config)
    module = predictor.Predictor.load(MODEL).module
    val, test = (
        evaluation.evaluate(module, part.pixels, part.labels, normalise) for part in (dataset.val, dataset.test)
    )
    table = shards.read(DATASET / "test")
    records = TestSet(*(table[name].to_pylist() for name in ("record_id", "subject_id", "image")))
    metrics: dict[str, float] = reports.write_reports(dataset.classes, val, test, records)
    mlflow.log_figure(reports.confusion_figure(dataset.classes, *test), "plots/confusion.png")
    mlflow.log_metrics(metrics)
    return metrics


def register() -> None:
    """Log the model, code and weights without pickle, and register it."""
    outputs = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    example = interface.example(interface.load(MODEL))
    mlflow.pyfunc.log_model(
        name="model",
        loader_module=f"{PACKAGE}.interface",
        data_path=str(MODEL),
        code_paths=[PACKAGE],
        input_example=pandas.DataFrame({"image": [example]}),
        signature=ModelSignature(Schema([ColSpec("binary", "image")]), outputs),
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in interface.REQUIREMENTS],
        registered_model_name="plain",
    )


main()
