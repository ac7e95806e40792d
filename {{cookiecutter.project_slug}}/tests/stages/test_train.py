"""The stage: what it reads, refuses and reports."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dvclive import Live
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.data import digits, splits
from mlops.records import shards
from mlops.errors import ProjectError
from mlops.files import read_json, sha256
from {{ cookiecutter.package_name }}.model.evaluation import evaluate
from {{ cookiecutter.package_name }}.model.predictor import Predictor
from mlops.config import load_params
from {{ cookiecutter.package_name }}.stages import train as stage

PARAMS: dict[str, Any] = {
    "arch": "small_cnn",
    "weights": None,
    "init_from": None,
    "image_px": 8,
    "epochs": 4,
    "batch_size": 64,
    "max_lr": 0.003,
    "weight_decay": 0.0001,
    "seed": 0,
    "threads": 1,
    "processes": 1,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the default dataset; the working directory."""
    monkeypatch.chdir(tmp_path)
    records = list(digits.records(Path()))
    shards.write(splits.split(records, salt="7", val=0.2, test=0.2), 8, stage.DATASET_DIR)
    return tmp_path


def run(start: Predictor | None = None, **keys: object) -> stage.Dataset:
    params = stage.TrainParams(**{**PARAMS, **keys})
    dataset = stage.read_dataset(stage.DATASET_DIR, 1, params.image_px)
    with Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as live:
        stage.train(params, dataset, start, live)
    return dataset


def change(**keys: object) -> None:
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({"train": {**PARAMS, **keys}}, file)


def test_train_default_recipe_reaches_the_promised_accuracy(project: Path) -> None:
    run(epochs=15)
    assert read_json(Path("reports/metrics.json"))["test_acc"] >= 0.95


def test_train_reports_the_metrics_of_the_saved_weights(project: Path) -> None:
    dataset = run(epochs=2)
    saved = Predictor.load(stage.MODEL_DIR)
    test = evaluate(saved.module, dataset.test, saved.normalise)
    val = evaluate(saved.module, dataset.val, saved.normalise)
    assert read_json(Path("reports/metrics.json")) == {
        "test_acc": round(test.accuracy, 4),
        "val_acc": round(val.accuracy, 4),
        "test_loss": round(test.loss, 4),
    }
    with Path("reports/confusion.csv").open(encoding="utf-8", newline="") as file:
        pairs = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(file))
    assert sum(pairs.values()) == len(dataset.test.labels)
    right = sum(count for (actual, predicted), count in pairs.items() if actual == predicted)
    assert right / len(dataset.test.labels) == test.accuracy


def test_train_saved_model_predicts_the_encoded_images(project: Path) -> None:
    dataset = run(epochs=2)
    saved = Predictor.load(stage.MODEL_DIR)
    images = shards.read(stage.DATASET_DIR / "test")["image"].to_pylist()
    predicted = [dataset.classes.index(str(row["label"])) for row in saved.predict(images)]
    assert predicted == evaluate(saved.module, dataset.test, saved.normalise).predicted.tolist()


def test_train_logs_every_epoch(project: Path) -> None:
    run(epochs=3)
    for name in ("train/loss", "val/loss", "val/acc", "lr"):
        with Path(f"reports/train/plots/metrics/{name}.tsv").open(encoding="utf-8", newline="") as file:
            assert [row["step"] for row in csv.DictReader(file, delimiter="\t")] == ["0", "1", "2"], name


def test_train_twice_gives_the_same_bytes(project: Path) -> None:
    digests = []
    for _ in range(2):
        run(epochs=1)
        digests.append({file.name: sha256(file) for file in stage.MODEL_DIR.iterdir()})
    assert digests[0] == digests[1]


def test_train_from_a_model_goes_on_from_its_weights(project: Path) -> None:
    run()
    start = Predictor.load(stage.MODEL_DIR)
    before = read_json(Path("reports/metrics.json"))["val_acc"]
    run(start, epochs=1, max_lr=1e-6, init_from="models:/digits/1")
    assert read_json(Path("reports/metrics.json"))["val_acc"] == pytest.approx(before, abs=0.02)
    assert Predictor.load(stage.MODEL_DIR).card == start.card


def test_train_from_a_model_of_another_network_is_refused(project: Path) -> None:
    run(epochs=1)
    with pytest.raises(ProjectError, match=r"models:/digits/1 has the arch small_cnn[\s\S]*train.init_from"):
        run(Predictor.load(stage.MODEL_DIR), arch="mobilenet_v3_small", init_from="models:/digits/1")


def test_train_interrupted_leaves_the_old_model(project: Path) -> None:
    run(epochs=1)
    before = {file: sha256(file) for file in sorted(Path("models").rglob("*")) if file.is_file()}

    class Interrupted(Live):  # type: ignore[misc]  # DVCLive has no types
        def next_step(self) -> None:
            raise KeyboardInterrupt

    params = stage.TrainParams(**{**PARAMS, "seed": 1})
    live = Interrupted("reports/train", save_dvc_exp=False, dvcyaml=None, report=None)
    with pytest.raises(KeyboardInterrupt):
        stage.train(params, stage.read_dataset(stage.DATASET_DIR, 1, 8), None, live)
    assert {file: sha256(file) for file in sorted(Path("models").rglob("*")) if file.is_file()} == before


def test_read_dataset_label_that_train_never_saw_is_named(project: Path) -> None:
    records = list(digits.records(Path()))
    parts = splits.split(records, salt="7", val=0.2, test=0.2)
    parts["train"] = [record for record in parts["train"] if record.label not in "37"]
    shards.write(parts, 1, stage.DATASET_DIR)
    with pytest.raises(ProjectError, match=r"val has labels that the training split lacks: '3', '7'[\s\S]*split.salt"):
        stage.read_dataset(stage.DATASET_DIR, 1, 8)


def test_read_dataset_with_one_label_is_refused(project: Path) -> None:
    records = [record for record in digits.records(Path()) if record.label == "3"]
    shards.write(splits.split(records, salt="7", val=0.2, test=0.2), 1, stage.DATASET_DIR)
    with pytest.raises(ProjectError, match="one label, '3'"):
        stage.read_dataset(stage.DATASET_DIR, 1, 8)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weights": "imagenet"}, "train.weights .*no pretrained weights"),
        ({"init_from": "models:/digits@champion"}, "train.init_from .*models:/<name>/<version number>"),
        ({"init_from": "models:/digits/latest"}, "train.init_from .*models:/<name>/<version number>"),
        (
            {"arch": "mobilenet_v3_small", "weights": "imagenet", "init_from": "models:/digits/1"},
            "train.init_from .*starts from one place",
        ),
        ({"arch": "resnet"}, "train.arch .*'small_cnn' or 'mobilenet_v3_small'"),
        ({"image_px": 4}, "train.image_px is 4: .*8"),
        ({"max_lr": float("nan")}, "train.max_lr is nan"),
        ({"max_lr": 0}, "train.max_lr is 0: .*greater than 0"),
        ({"batch_size": 1}, "train.batch_size is 1: .*2"),
        ({"processes": 0}, "train.processes is 0: .*1"),
        ({"processes": 3, "batch_size": 5}, "train.processes is 3: train.batch_size is shared .* for 2 at most"),
    ],
    ids=str,
)
def test_params_out_of_range_name_key_and_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change(**keys)
    with pytest.raises(ProjectError, match=message):
        load_params("train", stage.TrainParams)
