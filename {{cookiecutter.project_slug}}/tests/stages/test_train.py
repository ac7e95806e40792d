"""The stage: what it reads, refuses and reports."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from dvclive import Live
from mlops import ProjectError, Record, TrainingRun, read_split, with_consent, write_dataset
from mlops import params as read_params
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.data import digits, splits
from {{ cookiecutter.package_name }}.model.dataset import Dataset, read_dataset
from {{ cookiecutter.package_name }}.model.evaluation import evaluate
from {{ cookiecutter.package_name }}.model.predictor import Predictor
from {{ cookiecutter.package_name }}.model.training import TrainParams
from {{ cookiecutter.package_name }}.stages import train as stage

from ..settings import SMALL


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the default dataset; the working directory."""
    monkeypatch.chdir(tmp_path)
    write(splits.split(list(digits.records()), salt="7", val=0.2, test=0.2))
    return tmp_path


def write(parts: dict[str, list[Record]]) -> None:
    write_dataset(parts, 8, with_consent([], "not_required"))


def metrics() -> dict[str, float]:
    return dict(json.loads(Path("reports/metrics.json").read_text(encoding="utf-8")))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(start: Predictor | None = None, **keys: object) -> Dataset:
    params = TrainParams(**{**SMALL, **keys})
    dataset = read_dataset(stage.DATASET_DIR, 1, params.image_px)
    with Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as live:
        stage.train(params, dataset, start, TrainingRun(live=live))
    return dataset


def change(**keys: object) -> None:
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({"train": {**SMALL, **keys}}, file)


def test_train_reports_the_metrics_of_the_saved_weights(project: Path) -> None:
    dataset = run(epochs=2)
    saved = Predictor.load(stage.MODEL_DIR)
    test, val = (
        evaluate(saved.module, split.pixels, split.labels, saved.normalise) for split in (dataset.test, dataset.val)
    )
    assert metrics() == stage.metrics(dataset, val, test)
    assert metrics()["test_acc"] == round(test.accuracy, 4)
    with Path("reports/confusion.csv").open(encoding="utf-8", newline="") as file:
        pairs = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(file))
    assert sum(pairs.values()) == len(dataset.test.labels)
    right = sum(count for (actual, predicted), count in pairs.items() if actual == predicted)
    assert right / len(dataset.test.labels) == test.accuracy


def test_train_saved_model_predicts_the_encoded_images(project: Path) -> None:
    dataset = run(epochs=2)
    saved = Predictor.load(stage.MODEL_DIR)
    images = read_split(stage.DATASET_DIR / "test")["image"].to_pylist()
    predicted = [dataset.classes.index(str(row["label"])) for row in saved.predict(images)]
    result = evaluate(saved.module, dataset.test.pixels, dataset.test.labels, saved.normalise)
    assert predicted == result.predicted.tolist()


def test_train_logs_every_epoch(project: Path) -> None:
    run(epochs=3)
    for name in ("train/loss", "val/loss", "val/acc", "lr"):
        with Path(f"reports/train/plots/metrics/{name}.tsv").open(encoding="utf-8", newline="") as file:
            assert [row["step"] for row in csv.DictReader(file, delimiter="\t")] == ["0", "1", "2"], name


def test_train_twice_gives_the_same_bytes(project: Path) -> None:
    written = []
    for _ in range(2):
        shutil.rmtree(stage.MODEL_DIR, ignore_errors=True)  # as DVC does
        run(epochs=1)
        written.append(digests(stage.MODEL_DIR))
    assert written[0] == written[1]


def test_train_from_a_model_goes_on_from_its_weights(project: Path) -> None:
    run()
    start = Predictor.load(stage.MODEL_DIR)
    before = metrics()["val_acc"]
    shutil.rmtree(stage.MODEL_DIR)
    run(start, epochs=1, max_lr=1e-6, init_from="models:/digits/1")
    assert metrics()["val_acc"] == pytest.approx(before, abs=0.02)
    assert Predictor.load(stage.MODEL_DIR).config == start.config


def test_train_from_a_model_of_another_network_is_refused(project: Path) -> None:
    run(epochs=1)
    with pytest.raises(ProjectError, match=r"models:/digits/1 has the arch small_cnn[\s\S]*train.init_from"):
        run(Predictor.load(stage.MODEL_DIR), arch="mobilenet_v3_small", init_from="models:/digits/1")


def test_train_interrupted_leaves_the_old_model(project: Path) -> None:
    run(epochs=1)
    before = digests(Path("models"))

    class Interrupted(Live):  # type: ignore[misc]  # DVCLive has no types
        def next_step(self) -> None:
            raise KeyboardInterrupt

    params = TrainParams(**{**SMALL, "seed": 1})
    live = Interrupted("reports/train", save_dvc_exp=False, dvcyaml=None, report=None)
    with pytest.raises(KeyboardInterrupt):
        stage.train(params, read_dataset(stage.DATASET_DIR, 1, 8), None, TrainingRun(live=live))
    assert digests(Path("models")) == before


def test_read_dataset_label_that_train_never_saw_is_named(project: Path) -> None:
    records = list(digits.records())
    parts = splits.split(records, salt="7", val=0.2, test=0.2)
    parts["train"] = [record for record in parts["train"] if record.label not in "37"]
    write(parts)
    with pytest.raises(ProjectError, match=r"val has labels that the training split lacks: '3', '7'[\s\S]*split.salt"):
        read_dataset(stage.DATASET_DIR, 1, 8)


def test_read_dataset_with_one_label_is_refused(project: Path) -> None:
    records = [record for record in digits.records() if record.label == "3"]
    write(splits.split(records, salt="7", val=0.2, test=0.2))
    with pytest.raises(ProjectError, match="one label, '3'"):
        read_dataset(stage.DATASET_DIR, 1, 8)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weights": "imagenet"}, "train.weights .*no pretrained weights"),
        ({"init_from": "models:/digits@champion"}, "train.init_from .*one version, models:/<name>/<version number>"),
        ({"init_from": "models:/digits/latest"}, "train.init_from .*one version, models:/<name>/<version number>"),
        (
            {"arch": "mobilenet_v3_small", "weights": "imagenet", "init_from": "models:/digits/1"},
            "train.init_from .*starts from one place",
        ),
        ({"arch": "resnet"}, "train.arch .*'small_cnn'"),
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
        read_params("train", TrainParams)
