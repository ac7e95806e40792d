"""The training loop."""

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from mlops import ProjectError, TrainingRun

from {{ cookiecutter.package_name }}.model.dataset import Dataset, ImageDataset
from {{ cookiecutter.package_name }}.model.evaluation import evaluate
from {{ cookiecutter.package_name }}.model.metrics import measure
from {{ cookiecutter.package_name }}.model.networks import build, head_parameters
from {{ cookiecutter.package_name }}.model.training import Epoch, TrainParams, fit
from {{ cookiecutter.package_name }}.model.transforms import Normalise

from ..conftest import SMALL, halves, images

FABRIC = Fabric(accelerator="cpu", devices=1)


class Recorded(TrainingRun):
    """A run that keeps the metrics of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []

    def log(self, metrics: Any) -> None:
        self.epochs.append(dict(metrics))


def run(
    train: ImageDataset, val: ImageDataset, arch: str = "small_cnn", **changes: Any
) -> tuple[torch.nn.Module, Epoch, list[dict[str, float]]]:
    """Train; return the network, its best epoch, and the metrics of each epoch."""
    torch.manual_seed(0)
    channels = train.preprocess.channels or 3
    module, recorded = build(arch, 2, channels), Recorded()
    # Not validated again: also beyond what params.yaml may hold.
    values = TrainParams(**SMALL).model_copy(update={"batch_size": 16, **changes})
    dataset, normalise = Dataset(("left", "right"), channels, train, val, val), Normalise.of(train.measured())
    best = fit(module, dataset, normalise, values, FABRIC, recorded, head_parameters(module, arch, 2, channels))
    return module, best, recorded.epochs


def test_fit_an_easy_task_learns_it() -> None:
    _, best, epochs = run(halves(64, 0), halves(32, 1))
    assert best.val["acc"] == 1
    assert epochs[-1]["train/loss"] < epochs[0]["train/loss"]


@pytest.mark.parametrize("select_by", ["acc", "loss"])
def test_fit_that_gets_worse_keeps_the_best_epochs_weights(select_by: str) -> None:
    train, val = halves(64, 0), halves(32, 1)
    train.labels = 1 - train.labels  # so that validation gets worse from epoch to epoch
    module, best, epochs = run(train, val, epochs=6, select_by=select_by)
    better = {"acc": lambda epoch: (epoch["val/acc"], -epoch["val/loss"]), "loss": lambda epoch: -epoch["val/loss"]}
    assert best.number == max(range(6), key=lambda index: better[select_by](epochs[index])) != 5
    assert measure(*evaluate(module, val, Normalise.of(train.measured()), FABRIC)) == best.val
    assert len(run(train, val, epochs=6, patience=1)[2]) == best.number + 2
    with pytest.raises(ProjectError, match=r"top5_acc, which is not defined[\s\S]*train.select_by to one of acc, "):
        run(train, val, select_by="top5_acc")


def test_fit_twice_gives_the_same_bits() -> None:
    first, second = (run(halves(40, 0), halves(20, 1))[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fit_in_parts_takes_the_steps_of_whole_batches() -> None:
    whole, parts = (run(halves(64, 0), halves(20, 1), accumulate=count)[2] for count in (1, 2))
    assert [epoch["lr"] for epoch in whole] == [epoch["lr"] for epoch in parts]
    assert parts[-1]["train/loss"] == pytest.approx(whole[-1]["train/loss"], abs=0.05)  # BatchNorm sees other parts


def test_fit_frozen_epochs_train_the_head_alone() -> None:
    torch.manual_seed(0)
    before = build("small_cnn", 2, 1).state_dict()  # as `run` makes it
    after = run(halves(64, 0), halves(20, 1), epochs=1, freeze_epochs=1)[0].state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"8.weight", "8.bias"}


@pytest.mark.parametrize("keys", [{"class_weights": "balanced"}, {"label_smoothing": 0.1}, {"clip_norm": 0.1}], ids=str)
def test_fit_with_another_loss_trains_otherwise(keys: dict[str, Any]) -> None:
    train = images(halves(40, 0).batch(list(range(30)))[0], torch.arange(30) % 3 // 2)  # 20 and 10
    plain, other = (run(train, halves(20, 1), epochs=1, **changes)[2] for changes in ({}, keys))
    assert plain != other


@pytest.mark.parametrize("count", [17, 33])
def test_fit_batch_of_one_left_over_joins_the_one_before(count: int) -> None:
    split = images(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 2)
    # The last BatchNorm of this network sees one pixel per image.
    assert len(run(split, split, "mobilenet_v3_small", epochs=1)[2]) == 1


def test_fit_one_record_is_refused() -> None:
    with pytest.raises(ProjectError, match="one record\nFix: python -m mlops data split --suggest --write"):
        run(halves(1, 0), halves(4, 1))


def test_fit_that_diverges_names_epoch_and_rate() -> None:
    with pytest.raises(ProjectError, match=r"epoch 1 of 4 with max_lr 1e\+38[\s\S]*lower params.yaml:train.max_lr"):
        run(halves(64, 0), halves(32, 1), max_lr=1e38)
