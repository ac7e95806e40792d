"""Train a network on the dataset, keep its best epoch, and measure exactly the weights that are kept.

    dvc repro train
    dvc exp run train -S train.max_lr=0.001

Yours to edit: the networks are in `model/networks.py`, the loop in `model/training.py`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from ..data import manifest, shards
from ..errors import ProjectError
from ..files import read_json, write_json
from ..model import torchrun
from ..model.checkpoint import Checkpoints
from ..model.evaluation import Evaluation, confusion, confusion_image, evaluate, write_confusion, write_per_class
from ..model.networks import NETWORKS, Arch, build
from ..model.predictor import MODEL_DATA, Card, Predictor, save
from ..model.processes import ALONE, Group, joined
from ..model.training import Epoch, Recipe, fit, make_deterministic
from ..model.transforms import IMAGENET, Images, Normalise, decode
from ..registry import versions
from ..settings import RESOURCES, Section, load_params
from ..tracking import resume
from ..tracking.run import training_run

if TYPE_CHECKING:
    from ..tracking.live import Live

DATASET_DIR = Path("data/dataset")
MANIFEST_PATH = Path("data/manifest.parquet")
MODEL_DIR = Path("models/model")
REPORTS_DIR = Path("reports")


class TrainParams(Section):
    """What may change the model; units and ranges are told in `params.yaml`.

    Args:
        arch: The network.
        weights: Start from torchvision's ImageNet weights, or from random ones.
        init_from: Start from a registered model instead: `models:/<name>/<version number>`.
    """

    arch: Arch
    weights: Literal["imagenet"] | None
    init_from: str | None
    image_px: int = Field(ge=8, le=512)
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=65_536)
    max_lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**32)
    threads: int = Field(ge=1, le=256)
    processes: int = Field(ge=1, le=256)

    @field_validator("weights")
    @classmethod
    def _exist(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights and info.data.get("arch") == "small_cnn":
            raise ValueError("small_cnn has no pretrained weights; set it to null, or train.arch to mobilenet_v3_small")
        return weights

    @field_validator("init_from")
    @classmethod
    def _exact(cls, uri: str | None, info: ValidationInfo) -> str | None:
        if uri and not versions.EXACT.fullmatch(uri):
            raise ValueError("it must name one version, models:/<name>/<version number>, since an alias moves")
        if uri and info.data.get("weights"):
            raise ValueError("a model starts from one place; set train.weights or train.init_from to null")
        return uri

    @field_validator("processes")
    @classmethod
    def _have_work(cls, processes: int, info: ValidationInfo) -> int:
        most = info.data.get("batch_size", 2) // 2
        if processes > max(1, most):
            raise ValueError(f"train.batch_size is shared among them, two records each or more: for {most} at most")
        return processes


@dataclass(frozen=True)
class Dataset:
    """The decoded splits, and the labels that the positions in them stand for."""

    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images


def main() -> None:
    """Run the stage."""
    params = load_params("train", TrainParams)
    if torchrun.is_to_start(params.processes):
        torchrun.start(params.processes, params.threads, "stage", "train")
        return
    with torchrun.telling():
        parent = versions.fetch(params.init_from) if params.init_from else None
        start = Predictor.load(parent.path / MODEL_DATA) if parent else None
        dataset = read_dataset(DATASET_DIR, NETWORKS[params.arch].channels, params.image_px)
        with joined(params.processes) as group:
            checkpoints = _checkpoints(group)
            if group.rank > 0:  # the first one reports and writes
                learn(params, dataset, start, lambda epoch: None, group, checkpoints)
                return
            check_manifest()
            with training_run([parent.run] if parent else [], checkpoints.files) as live:
                train(params, dataset, start, live, group, checkpoints)
            if not RESOURCES.exists():  # a job of SageMaker's may still be cut off while it pushes the model
                checkpoints.clear()


def _checkpoints(group: Group) -> Checkpoints:
    folder = os.environ.get("CHECKPOINT_DIR")
    if not folder:
        return Checkpoints()
    inputs = resume.inputs() if group.rank == 0 else None  # they are read whole; the first process alone asks for them
    return Checkpoints(Path(folder), inputs, group)


def check_manifest() -> None:
    """See that the manifest lists what is in the dataset: audits will believe it.

    Raises:
        ProjectError: It does not, or its report is another one's.
    """
    listed, told = manifest.digest_of(MANIFEST_PATH), read_json(REPORTS_DIR / "manifest.json")["sha256"]
    if [listed] != told or listed != manifest.digest(manifest.build(DATASET_DIR)):
        raise ProjectError(
            f"{MANIFEST_PATH.as_posix()} is not the list of the records in {DATASET_DIR.as_posix()}",
            "dvc repro --force manifest, then: dvc repro train",
        )


def read_dataset(directory: Path, channels: int, image_px: int) -> Dataset:
    """Read and decode the splits; the classes are the labels of the training split, sorted.

    Raises:
        ProjectError: There is only one label to learn, or a label to be tested that can't have been learned.
    """
    tables = {split: shards.read(directory / split) for split in ("train", "val", "test")}
    classes = tuple(sorted(set(tables["train"]["label"].to_pylist())))
    if len(classes) < 2:
        raise ProjectError(f"the training split has one label, {classes[0]!r}", "give records of two labels or more")
    for split, table in tables.items():
        unseen = sorted(set(table["label"].to_pylist()) - set(classes))
        if unseen:
            raise ProjectError(
                f"{split} has labels that the training split lacks: {', '.join(map(repr, unseen))}",
                "change params.yaml:split.salt, or give more subjects with these labels",
            )
    images = {split: _images(table, classes, channels, image_px) for split, table in tables.items()}
    return Dataset(classes, images["train"], images["val"], images["test"])


def _images(table: pa.Table, classes: tuple[str, ...], channels: int, image_px: int) -> Images:
    position = {label: index for index, label in enumerate(classes)}
    labels = torch.tensor([position[label] for label in table["label"].to_pylist()])
    return Images(decode(table["image"].to_pylist(), channels, image_px), labels)


def train(
    params: TrainParams,
    dataset: Dataset,
    start: Predictor | None,
    live: "Live",
    group: Group = ALONE,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train, then write the model directory, the metrics and the plots.

    Args:
        params: What may change the model.
        dataset: Decoded images.
        start: A model to go on from.
        live: Gets the figures of each epoch.
        group: The processes to train with; this is the first of them.
        checkpoints: What to go on from, and where to save that.
    """
    checkpoints = checkpoints or Checkpoints()
    checkpoints.carry = lambda: resume.files(live)
    module, normalise, best = learn(params, dataset, start, lambda epoch: _report(epoch, live), group, checkpoints)
    live.summary["best_epoch"] = best.number  # the figures of `metrics` are this epoch's; curves go on to the last
    print(f"best epoch {best.number + 1} of {params.epochs}: validation accuracy {best.val_acc:.4f}")
    card = Card(
        arch=params.arch,
        classes=dataset.classes,
        image_px=params.image_px,
        channels=NETWORKS[params.arch].channels,
        mean=normalise.mean,
        std=normalise.std,
    )
    save(MODEL_DIR, module, card)
    saved = Predictor.load(MODEL_DIR)  # what is measured is what was saved
    _write_reports(saved, dataset, live)


def learn(
    params: TrainParams,
    dataset: Dataset,
    start: Predictor | None,
    report: Callable[[Epoch], None],
    group: Group,
    checkpoints: Checkpoints,
) -> tuple[nn.Module, Normalise, Epoch]:
    """Train and write nothing: what every process of the group does.

    Args:
        params: What may change the model.
        dataset: Decoded images.
        start: A model to go on from.
        report: Called after each epoch.
        group: The processes to train with.
        checkpoints: What to go on from, and where to save that.

    Returns:
        The network with the weights of its best epoch, the normalisation these expect, and that epoch.
    """
    # Dropout is to differ between processes; weights to start from, and the order of the images, are the first one's.
    make_deterministic(params.seed + group.rank, params.threads)
    module, normalise = _begin(params, dataset, start)
    recipe = Recipe(params.epochs, params.batch_size, params.max_lr, params.weight_decay)
    best = fit(module, dataset.train, dataset.val, normalise, recipe, report, group, checkpoints)
    return module, normalise, best


def _begin(params: TrainParams, dataset: Dataset, start: Predictor | None) -> tuple[nn.Module, Normalise]:
    """Return the network to train and the normalisation its weights expect."""
    if start is None:
        module = build(params.arch, len(dataset.classes), params.weights)
        return module, IMAGENET if params.weights else Normalise.of(dataset.train.pixels)
    for what, theirs, ours in (("arch", start.card.arch, params.arch), ("labels", start.card.classes, dataset.classes)):
        if theirs != ours:
            raise ProjectError(
                f"{params.init_from} has the {what} {theirs}, this training {ours}",
                "change params.yaml:train.init_from, or set it to null",
            )
    return start.module, start.normalise


def _report(epoch: Epoch, live: "Live") -> None:
    figures = {"train/loss": epoch.train_loss, "val/loss": epoch.val_loss, "val/acc": epoch.val_acc, "lr": epoch.lr}
    for name, value in figures.items():
        live.log_metric(name, value, timestamp=True)
    live.next_step()


def _write_reports(model: Predictor, dataset: Dataset, live: "Live") -> None:
    val, test = (evaluate(model.module, images, model.normalise) for images in (dataset.val, dataset.test))
    counts = confusion(dataset.test.labels, test.predicted, len(dataset.classes))
    figures = metrics(val, test)
    write_json(REPORTS_DIR / "metrics.json", figures)
    live.summary.update(figures)
    write_confusion(REPORTS_DIR / "confusion.csv", dataset.test.labels, test.predicted, dataset.classes)
    write_per_class(REPORTS_DIR / "per_class.csv", counts, dataset.classes)
    live.log_image("confusion.png", confusion_image(counts, dataset.classes))


def metrics(val: Evaluation, test: Evaluation) -> dict[str, float]:
    """Return what `reports/metrics.json` holds: shares of right answers, and the mean loss in nats."""
    figures = {"test_acc": test.accuracy, "val_acc": val.accuracy, "test_loss": test.loss}
    return {name: round(value, 4) for name, value in figures.items()}
