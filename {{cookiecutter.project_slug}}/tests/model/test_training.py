"""The training loop."""

from typing import Any

import pytest
import torch
from mlops import ProjectError, TrainingRun

from {{ cookiecutter.package_name }}.model.dataset import Images
from {{ cookiecutter.package_name }}.model.evaluation import evaluate
from {{ cookiecutter.package_name }}.model.metrics import measure
from {{ cookiecutter.package_name }}.model.networks import Arch, build
from {{ cookiecutter.package_name }}.model.training import Epoch, TrainParams, fit, make_deterministic
from {{ cookiecutter.package_name }}.model.transforms import Normalise

from ..conftest import SMALL, halves


class Recorded(TrainingRun):
    """A run that keeps the metrics of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []

    def log(self, metrics: Any) -> None:
        self.epochs.append(dict(metrics))


def run(
    train: Images, val: Images, arch: Arch = "small_cnn", **changes: Any
) -> tuple[torch.nn.Module, Epoch, list[dict[str, float]]]:
    """Train; return the network, its best epoch, and the metrics of each epoch."""
    make_deterministic(0, 1)
    module, recorded = build(arch, 2, train.pixels.shape[1], None), Recorded()
    # Not validated again: also beyond what params.yaml may hold.
    values = TrainParams(**SMALL).model_copy(update={"batch_size": 16, **changes})
    best = fit(module, train, val, Normalise.of(train.pixels), values, recorded)
    return module, best, recorded.epochs


def test_fit_an_easy_task_learns_it() -> None:
    _, best, epochs = run(halves(64, 0), halves(32, 1))
    assert best.val_acc == 1
    assert epochs[-1]["train/loss"] < epochs[0]["train/loss"]


def test_fit_that_gets_worse_keeps_the_best_epochs_weights() -> None:
    train, val = halves(64, 0), halves(32, 1)
    wrong = Images(train.pixels, 1 - train.labels)  # so that validation gets worse from epoch to epoch
    module, best, epochs = run(wrong, val, epochs=6, weight_decay=0.0)
    number = max(range(6), key=lambda index: (epochs[index]["val/acc"], -epochs[index]["val/loss"]))
    assert best.number == number != 5
    result = measure(*evaluate(module, val.pixels, val.labels, Normalise.of(train.pixels)))
    assert (result["acc"], result["loss"]) == (best.val_acc, best.val_loss)


def test_fit_twice_gives_the_same_bits() -> None:
    first, second = (run(halves(40, 0), halves(20, 1))[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("count", [17, 33])
def test_fit_batch_of_one_left_over_joins_the_one_before(count: int) -> None:
    images = Images(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 2)
    # The last BatchNorm of this network sees one pixel per image.
    assert len(run(images, images, "mobilenet_v3_small", epochs=1)[2]) == 1


def test_fit_one_record_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml:split\.salt"):
        run(halves(1, 0), halves(4, 1))


def test_fit_that_diverges_names_epoch_and_rate() -> None:
    with pytest.raises(ProjectError, match=r"epoch 1 of 4 with max_lr 1e\+38[\s\S]*lower params.yaml:train.max_lr"):
        run(halves(64, 0), halves(32, 1), max_lr=1e38, weight_decay=0.0)
