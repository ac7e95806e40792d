"""The stage: what it reads, refuses and reports."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from dvclive import Live
from lightning_fabric import Fabric
from mlops import ProjectError, SplitParams, TrainingRun, read_records, split_by_subject, write_dataset
from mlops import params as read_params
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.data import digits
from {{ cookiecutter.package_name }}.model.dataset import Dataset, read_dataset
from {{ cookiecutter.package_name }}.model.metrics import measure
from {{ cookiecutter.package_name }}.model.predictor import Predictor
from {{ cookiecutter.package_name }}.model.training import TrainParams
from {{ cookiecutter.package_name }}.model.transforms import Preprocess
from {{ cookiecutter.package_name }}.stages import train as stage

from ..conftest import SMALL

LARGE = {"arch": "mobilenet_v3_small"}


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits, as `prepare` writes them; the working directory."""
    monkeypatch.chdir(tmp_path)
    write()


def write(without: str = "") -> None:
    """Write the dataset, but for some labels of the training split."""
    with read_records(digits) as records:
        split_by_subject(records, SplitParams(salt="7", val=0.2, test=0.2))
        records.table.execute("DELETE FROM records WHERE split = 'train' AND instr(?, label)", [without])
        write_dataset(records, 8)


def metrics() -> dict[str, float]:
    return dict(json.loads(Path("reports/metrics.json").read_text(encoding="utf-8")))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(path: str, delimiter: str = ",") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def run(start: Predictor | None = None, live: type[Live] = Live, **keys: object) -> Dataset:
    settings = TrainParams(**{**SMALL, **keys})
    dataset = read_dataset(stage.DATASET_DIR, Preprocess(settings.image_px, 1))
    with live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as opened:
        stage.train(settings, dataset, start, Fabric(accelerator="cpu", devices=1), TrainingRun(live=opened))
    return dataset


def test_train_reports_what_the_saved_weights_do_and_every_epoch(dataset: None) -> None:
    data = run(epochs=2)
    saved = Predictor.load(stage.MODEL_DIR)
    for name, split in (("val", data.val), ("test", data.test)):
        probabilities = saved.probabilities(split.contents[:])  # as they come in use: encoded
        for metric, value in measure(split.labels.numpy(), probabilities).items():
            assert metrics()[f"{name}_{metric}"] == round(value, 4)
    pairs = Counter((row["actual"], row["predicted"]) for row in rows("reports/confusion.csv"))
    right = sum(count for (actual, predicted), count in pairs.items() if actual == predicted)
    assert round(right / sum(pairs.values()), 4) == metrics()["test_acc"]
    assert sum(pairs.values()) == len(data.test)
    for name in ("train/loss", "val/loss", "val/acc", "lr"):
        assert [row["step"] for row in rows(f"reports/train/plots/metrics/{name}.tsv", "\t")] == ["0", "1"], name


def test_train_twice_gives_the_same_bytes_and_interrupted_leaves_them(dataset: None) -> None:
    written = []
    for _ in range(2):
        shutil.rmtree(stage.MODEL_DIR, ignore_errors=True)  # as DVC does
        run(epochs=1)
        written.append(digests(stage.MODEL_DIR))
    assert written[0] == written[1]

    class Interrupted(Live):  # type: ignore[misc]  # DVCLive has no types
        def next_step(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(live=Interrupted, seed=1)
    assert digests(stage.MODEL_DIR) == written[0]


def test_train_from_a_model_goes_on_from_its_weights(dataset: None) -> None:
    run()
    start = Predictor.load(stage.MODEL_DIR)
    before = metrics()["val_acc"]
    shutil.rmtree(stage.MODEL_DIR)
    run(start, epochs=1, max_lr=1e-6, init_from="models:/digits/1")
    assert metrics()["val_acc"] == pytest.approx(before, abs=0.02)
    assert Predictor.load(stage.MODEL_DIR).config == start.config
    with pytest.raises(ProjectError, match=r"has arch: small_cnn, and .*[\s\S]*train.arch: small_cnn, or .*null"):
        run(start, **LARGE, init_from="models:/digits/1")


def test_read_dataset_of_one_label_or_of_one_that_train_never_saw_is_refused(dataset: None) -> None:
    write(without="37")
    with pytest.raises(ProjectError, match=r"val has labels that .* lacks: '3', '7'\nFix: .*split --suggest"):
        read_dataset(stage.DATASET_DIR, Preprocess(8, 1))
    write(without="012456789")
    with pytest.raises(ProjectError, match=r"one label, '3'\nFix: python -m mlops data split --suggest --write"):
        read_dataset(stage.DATASET_DIR, Preprocess(8, 1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimizer": {"name": "Adm"}}, "train.optimizer.*known: .*AdamW"),
        ({"schedule": {"name": "StepLR", "size": 3}}, "train.schedule.*no argument size of StepLR; it takes step_size"),
        ({"augment": "strong"}, "train.augment .*known: .*trivial"),
        ({"select_by": "auc"}, "train.select_by .*known: .*macro_f1"),
        ({"init_from": "models:/digits@champion"}, "train.init_from .*one version, models:/<name>/<version number>"),
        ({"init_from": "models:/digits/latest"}, "train.init_from .*one version, models:/<name>/<version number>"),
        ({**LARGE, "weights": "imagenet", "init_from": "models:/digits/1"}, "train.init_from .*starts from one place"),
        ({"image_px": 4}, "train.image_px is 4: .*8"),
        ({"max_lr": float("nan")}, "train.max_lr is NaN"),
        ({"max_lr": 0}, "train.max_lr is 0: .*greater than 0"),
        ({"batch_size": 1}, "train.batch_size is 1: .*2"),
        ({"processes": 0}, "train.processes is 0: auto, or 1 to 32"),
        ({"processes": 3, "batch_size": 5}, "train.processes is 3: auto, or 1 to 2: train.batch_size is shared"),
    ],
    ids=str,
)
def test_params_out_of_range_name_key_and_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    YAML().dump({"train": {**SMALL, **keys}}, Path("params.yaml"))
    with pytest.raises(ProjectError, match=message):
        read_params("train", TrainParams)
