"""A training loop in few lines that does what a team's has to: on any processes, cut off and resumed, the same bits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from mlops.training.checkpoint import Checkpoints
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

EPOCHS, BATCH = 5, 16
INPUTS = {"params": {"seed": 0}, "data": "abc"}


class CutOffError(Exception):
    pass


@dataclass
class Result:
    """What a training gave: the loss of each epoch that it computed, and the weights."""

    losses: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def stateful() -> nn.Module:
    """A network that needs all there is to restore: random numbers in each step, and running statistics."""
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))


def train(
    fabric: Fabric,
    make: Callable[[], nn.Module],
    records: int = 50,
    checkpoints: Checkpoints | None = None,
    fail_after: int | None = None,
) -> Result:
    """Train from wherever `checkpoints` says; after `fail_after` epochs, end before a state is saved."""
    torch.set_num_threads(1)
    images = torch.randn(records, 8, generator=torch.Generator().manual_seed(records))
    labels = (images[:, 0] > 0).long()
    torch.manual_seed(fabric.global_rank)  # another network in each process, so that it matters whose is taken
    checkpoints, network = checkpoints or Checkpoints(), make()
    module, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=0.03))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
    parts: dict[str, Any] = {"module": network, "optimizer": optimizer, "schedule": schedule}
    begin, result = 0, Result()
    if state := checkpoints.state:
        fabric.backward(cross_entropy(module(images[:2]), labels[:2]))  # after its first, DDP sums in another order
        for name, part in parts.items():
            part.load_state_dict(state[name])
        begin = state["epochs"]
    for epoch in range(begin, EPOCHS):
        order = torch.randperm(records, generator=torch.Generator().manual_seed(epoch))
        torch.manual_seed(1000 * (epoch + 1) + fabric.global_rank)
        total = torch.zeros(())
        for batch in order.split(BATCH):
            part, weight = share(batch, fabric)
            loss = cross_entropy(module(images[part]), labels[part]) * weight
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            total += loss.detach() * len(batch)
        schedule.step()
        result.losses.append(cast(Tensor, fabric.all_reduce(total)).item() / records)
        if len(result.losses) == fail_after:
            raise CutOffError
        checkpoints.save({**{name: part.state_dict() for name, part in parts.items()}, "epochs": epoch + 1})
    result.weights = network.state_dict()
    return result


def share(batch: Tensor, fabric: Fabric) -> tuple[Tensor, float]:
    """Return this process's part of a batch, and the weight of its mean loss."""
    parts = batch.tensor_split(min(fabric.world_size, len(batch) // 2))
    if fabric.global_rank >= len(parts):
        return batch[:2], 0.0
    part = parts[fabric.global_rank]
    return part, len(part) * fabric.world_size / len(batch)


def cut_off(run: Callable[..., Result], folder: Path, fabric: Fabric | None, epoch: int) -> Result:
    """Train from wherever the folder says; in an epoch, counted from 0, end before its state is saved."""
    checkpoints = Checkpoints(folder, INPUTS, fabric)
    done = checkpoints.state["epochs"] if checkpoints.state else 0
    try:
        return run(checkpoints=checkpoints, fail_after=epoch - done + 1)
    except CutOffError:
        return Result()
