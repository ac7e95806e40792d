"""The team's training loop, as the tests run it: on a small network, with a run that only remembers its figures."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mlops.tracking.run import TrainingRun
from mlops.training.checkpoint import Checkpoints
from mlops.training.distributed import SINGLE_PROCESS, ProcessGroup
from team.model.dataset import Images
from team.model.training import Epoch, TrainParams, fit, make_deterministic
from team.model.transforms import Normalise
from torch import Tensor, nn


class CutOffError(Exception):
    pass


@dataclass(frozen=True)
class Result:
    """What a training gave: its best epoch, the figures of each epoch that it computed, and the weights."""

    best: Epoch
    epochs: list[dict[str, float]]
    weights: dict[str, Tensor]


class MemoryRun(TrainingRun):
    """A run that keeps its figures in memory; after `fail_after` of them it ends, before a state is saved."""

    def __init__(self, group: ProcessGroup, checkpoints: Checkpoints, fail_after: int | None = None) -> None:
        super().__init__(group, checkpoints, live=None)
        self.epochs: list[dict[str, float]] = []
        self._fail_after = fail_after

    def log(self, metrics: Mapping[str, float]) -> None:
        self.epochs.append(dict(metrics))
        if len(self.epochs) == self._fail_after:
            raise CutOffError


def params(**changes: Any) -> TrainParams:
    values = {"arch": "small_cnn", "weights": None, "init_from": None, "image_px": 8, "epochs": 5, "batch_size": 16}
    numbers = {"max_lr": 0.03, "weight_decay": 1e-4, "seed": 0, "threads": 1, "processes": 1}
    return TrainParams(**{**values, **numbers, **changes})


def pictures(count: int, channels: int = 1, px: int = 8) -> Images:
    random = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, channels, px, px), dtype=torch.uint8, generator=random)
    return Images(pixels, torch.arange(count) % 2)


def train(
    make: Callable[[], nn.Module],
    images: tuple[Images, Images],
    settings: TrainParams,
    checkpoints: Checkpoints | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    fail_after: int | None = None,
) -> Result:
    """Train from wherever `checkpoints` says; another network in each process, so that it matters whose is taken."""
    make_deterministic(group.rank, 1)
    module, run = make(), MemoryRun(group, checkpoints or Checkpoints(), fail_after)
    best = fit(module, *images, Normalise.of(images[0].pixels), settings, run)
    return Result(best, run.epochs, module.state_dict())


def join(rank: int, size: int, port: int) -> None:
    """Set what torchrun tells a process."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
