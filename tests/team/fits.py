"""Trainings by `fit`, as the tests run them in one process and in several: `run`, and `results` for all of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from mlops.tracking.run import TrainingRun
from mlops.training import checkpoint
from mlops.training.checkpoint import Checkpoints
from PIL import Image
from team.model.dataset import Dataset, ImageDataset
from team.model.training import TrainParams, fit
from team.model.transforms import Normalise, Preprocess
from torch import nn

from .test_images import saved

EPOCHS = 4
PARAMS: dict[str, Any] = {
    "arch": "one of the tests'",
    **{"image_px": 8, "epochs": EPOCHS, "batch_size": 16, "max_lr": 0.003, "seed": 0, "threads": 1},
    **{"optimizer": {"name": "AdamW", "weight_decay": 1e-4}, "schedule": {"name": "OneCycleLR"}},
}
STATEFUL: dict[str, Any] = {"augment": "light", "freeze_epochs": 1, "accumulate": 2, "clip_norm": 1.0}


class CutOffError(Exception):
    """The training is cut off."""


class MemoryRun(TrainingRun):
    """A run that keeps its figures in memory; after `fail_after` of them it ends, before a state is saved."""

    def __init__(self, checkpoints: Checkpoints, fail_after: int | None) -> None:
        """Begin with nothing."""
        super().__init__(checkpoints)
        self.epochs: list[dict[str, float]] = []
        self._fail_after = fail_after

    def log(self, metrics: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""
        self.epochs.append(dict(metrics))
        if len(self.epochs) == self._fail_after:
            raise CutOffError


def images(count: int, augment: str = "none") -> ImageDataset:
    """Return gray images of two labels: which half is bright."""
    random = np.random.default_rng(count)
    pixels = random.integers(0, 100, (count, 8, 8), np.uint8)
    labels = torch.arange(count) % 2
    pixels[labels == 0, :, :4] += 100
    pixels[labels == 1, :, 4:] += 100
    contents = [saved(Image.fromarray(image), "PNG") for image in pixels]
    return ImageDataset(cast(Any, contents), labels, Preprocess(8, 1), augment)


def plain() -> nn.Module:
    """A network that computes the same of an image whatever others are in its batch."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def stateful() -> nn.Module:
    """A network that needs all there is to restore: random numbers in each step, and running statistics."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 2))


def run(
    fabric: Fabric,
    make: Callable[[], nn.Module],
    count: int,
    folder: Path | None = None,
    fail_after: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train from wherever the folder says; another network in each process, so that it matters whose is taken."""
    torch.set_num_threads(1)
    torch.manual_seed(fabric.global_rank)
    params, module = TrainParams.model_validate({**PARAMS, **changes}), make()
    train, val = images(count, params.augment), images(20)
    dataset, normalise = Dataset(("left", "right"), 1, train, val, val), Normalise.of(train.measured())
    recorded = MemoryRun(Checkpoints(folder, {"data": "abc"}, fabric), fail_after)
    try:
        best = fit(module, dataset, normalise, params, fabric, recorded, ("4.weight", "4.bias"))
    except CutOffError:
        return {}
    return {"epochs": recorded.epochs, "best": vars(best), "weights": module.state_dict()}


def results(fabric: Fabric, folder: Path) -> None:
    """Train on batches of unequal parts, and with all that is random: whole, and cut off in each epoch."""
    checkpoint.SHARE = float("inf")
    runs = {
        "plain": run(fabric, plain, 37),
        "whole": run(fabric, stateful, 40, **STATEFUL),
        "again": run(fabric, stateful, 40, **STATEFUL),
    }
    for epoch in range(1, EPOCHS):
        states = folder / f"{fabric.global_rank} {epoch}"
        run(fabric, stateful, 40, states, fail_after=epoch + 1, **STATEFUL)
        runs[str(epoch)] = run(fabric, stateful, 40, states, **STATEFUL)
    torch.save(runs, folder / f"{fabric.global_rank}.pt")
