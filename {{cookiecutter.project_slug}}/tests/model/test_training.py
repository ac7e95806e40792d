"""The training loop."""

import pytest
import torch

from mlops.errors import ProjectError
from {{ cookiecutter.package_name }}.model.evaluation import evaluate
from {{ cookiecutter.package_name }}.model.networks import build
from {{ cookiecutter.package_name }}.model.training import (Epoch, TrainConfig, fit, make_deterministic)
from {{ cookiecutter.package_name }}.model.transforms import Images, Normalise

from .conftest import Halves

RECIPE = TrainConfig(epochs=4, batch_size=16, max_lr=3e-3, weight_decay=1e-4)


def run(train: Images, val: Images, recipe: TrainConfig = RECIPE) -> tuple[torch.nn.Module, Epoch, list[Epoch]]:
    make_deterministic(0, 1)
    module, epochs = build("small_cnn", 2, None), []
    best = fit(module, train, val, Normalise.of(train.pixels), recipe, epochs.append)
    return module, best, epochs


def test_fit_an_easy_task_learns_it(halves: Halves) -> None:
    _, best, epochs = run(halves(64, 0), halves(32, 1))
    assert best.val_acc == 1
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_fit_that_gets_worse_keeps_the_best_epochs_weights(halves: Halves) -> None:
    train, val = halves(64, 0), halves(32, 1)
    wrong = Images(train.pixels, 1 - train.labels)  # so that validation gets worse from epoch to epoch
    module, best, epochs = run(wrong, val, TrainConfig(epochs=6, batch_size=16, max_lr=3e-3, weight_decay=0))
    found = evaluate(module, val, Normalise.of(train.pixels))
    assert best == max(epochs, key=lambda epoch: (epoch.val_acc, -epoch.val_loss)) != epochs[-1]
    assert (found.accuracy, found.loss) == (best.val_acc, best.val_loss)


def test_fit_twice_gives_the_same_bits(halves: Halves) -> None:
    first, second = (run(halves(40, 0), halves(20, 1))[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("count", [17, 33])
def test_fit_batch_of_one_left_over_joins_the_one_before(count: int) -> None:
    make_deterministic(0, 1)
    images = Images(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 2)
    module = build("mobilenet_v3_small", 2, None)  # its last BatchNorm sees one pixel per image
    epochs: list[Epoch] = []
    fit(module, images, images, Normalise.of(images.pixels), TrainConfig(1, 16, 1e-3, 0), epochs.append)
    assert len(epochs) == 1


def test_fit_one_record_is_refused(halves: Halves) -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml:split\.salt"):
        run(halves(1, 0), halves(4, 1))


def test_fit_that_diverges_names_epoch_and_rate(halves: Halves) -> None:
    with pytest.raises(ProjectError, match=r"epoch 1 of 4 with max_lr 1e\+38[\s\S]*lower params.yaml:train.max_lr"):
        run(halves(64, 0), halves(32, 1), TrainConfig(4, 16, 1e38, 0))
