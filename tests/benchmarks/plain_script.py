"""The pipeline's work as one plain script with MLflow's own calls, to compare with: see `pipeline.py`.

    python plain_script.py <package>

Runs in the root of a generated project after its `setup`. Only what computes is the project's (`data/` and `model/`),
so that both compute the same.
"""

import csv
import hashlib
import json
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas
import pyarrow.parquet as pq
import torch
from mlflow.data.pandas_dataset import from_pandas
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from ruamel.yaml import YAML

PACKAGE = sys.argv[1]
consent, digits, manifest, sheets, shards, sources, splits = (
    import_module(f"{PACKAGE}.data.{name}")
    for name in ("consent", "digits", "manifest", "sheets", "shards", "sources", "splits")
)
evaluation, networks, predictor, pyfunc, training, transforms = (
    import_module(f"{PACKAGE}.model.{name}")
    for name in ("evaluation", "networks", "predictor", "pyfunc", "training", "transforms")
)
DATASET, REPORTS, MODEL, MANIFEST = (
    Path(name) for name in ("data/dataset", "reports", "models/model", "data/manifest.parquet")
)


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
        metrics = train(params["train"])
        for file in (MANIFEST, REPORTS / "manifest.json", REPORTS / "confusion.csv", REPORTS / "per_class.csv"):
            mlflow.log_artifact(str(file), file.parent.as_posix())
        mlflow.log_artifacts(str(REPORTS / "samples"), "samples")
        if metrics["test_acc"] < params["register"]["at_least"]["test_acc"]:
            sys.exit("not good enough to register")
        register()


def prepare(data: dict[str, Any], split: dict[str, Any]) -> None:
    """Make the dataset."""
    records = splits.thin(sources.load(digits.records(Path()), "digits"), data["fraction"])
    registry = consent.read(Path("data/consent.csv"))
    allowed = [record for record in records if registry.allows(record.subject_id)]
    shards.write(splits.split(allowed, split["salt"], split["val"], split["test"]), data["shards"], DATASET)


def describe() -> str:
    """Write manifest, counts and contact sheets; return the manifest's digest."""
    found = manifest.write(manifest.build(DATASET), MANIFEST)
    counts = found.counts
    for split in splits.SPLITS:
        sheets.draw(DATASET, found, split, REPORTS / "samples" / f"{split}.png")
    with (REPORTS / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(counts[0]))
        writer.writeheader()
        writer.writerows(counts)
    (REPORTS / "manifest.json").write_text(json.dumps({"records": found.records, "counts": counts}), encoding="utf-8")
    return str(found.sha256)


def digest() -> str:
    """Name the dataset by its bytes."""
    md5 = hashlib.md5(usedforsecurity=False)
    for file in sorted(DATASET.rglob("*.parquet")):
        md5.update(file.read_bytes())
    return md5.hexdigest()


def train(params: dict[str, Any]) -> dict[str, float]:
    """Train, save the best epoch's weights, measure and draw them; return the metrics."""
    training.make_deterministic(params["seed"], params["threads"])
    tables = [shards.read(DATASET / split) for split in splits.SPLITS]
    classes = tuple(sorted(set(tables[0]["label"].to_pylist())))
    train, val, test = (images(table, classes, params["image_px"]) for table in tables)
    module = networks.build(params["arch"], len(classes), None)
    normalise = transforms.Normalise.of(train.pixels)
    recipe = training.Recipe(params["epochs"], params["batch_size"], params["max_lr"], params["weight_decay"])
    training.fit(module, train, val, normalise, recipe, log_epoch)
    card = predictor.Card(
        arch=params["arch"],
        classes=classes,
        image_px=params["image_px"],
        channels=1,
        mean=normalise.mean,
        std=normalise.std,
    )
    predictor.save(MODEL, module, card)
    module = predictor.Predictor.load(MODEL).module
    found = {name: evaluation.evaluate(module, part, normalise) for name, part in (("val", val), ("test", test))}
    counts = evaluation.confusion(test.labels, found["test"].predicted, len(classes))
    evaluation.write_confusion(REPORTS / "confusion.csv", test.labels, found["test"].predicted, classes)
    evaluation.write_per_class(REPORTS / "per_class.csv", counts, classes)
    mlflow.log_image(evaluation.confusion_image(counts, classes), "plots/confusion.png")
    metrics = {"test_acc": found["test"].accuracy, "val_acc": found["val"].accuracy, "test_loss": found["test"].loss}
    mlflow.log_metrics(metrics)
    return metrics


def images(table: Any, classes: tuple[str, ...], image_px: int) -> Any:
    """Decode a split."""
    labels = torch.from_numpy(np.array([classes.index(label) for label in table["label"].to_pylist()]))
    return transforms.Images(transforms.decode(table["image"].to_pylist(), 1, image_px), labels)


def log_epoch(epoch: Any) -> None:
    """Log what one pass over the training images gave."""
    figures = {"train/loss": epoch.train_loss, "val/loss": epoch.val_loss, "val/acc": epoch.val_acc, "lr": epoch.lr}
    mlflow.log_metrics(figures, step=epoch.number)


def register() -> None:
    """Log the model, code and weights without pickle, and register it."""
    outputs = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    mlflow.pyfunc.log_model(
        name="model",
        loader_module=f"{PACKAGE}.model.pyfunc",
        data_path=str(MODEL),
        code_paths=[PACKAGE],
        input_example=pandas.DataFrame({"image": [pyfunc._black(8)]}),
        signature=ModelSignature(Schema([ColSpec("binary", "image")]), outputs),
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in pyfunc.REQUIREMENTS],
        registered_model_name="plain",
    )


main()
