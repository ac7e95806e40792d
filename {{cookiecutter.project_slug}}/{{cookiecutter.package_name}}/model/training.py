"""The training loop: AdamW, one cycle of the learning rate, the best epoch's weights kept.

It runs over tensors in memory, with no DataLoader: the images are decoded already, and a DataLoader would take them
out one by one to stack them again (measured on the default network: 5 % more time an epoch).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from ..errors import ProjectError
from .checkpoint import Checkpoints
from .evaluation import evaluate
from .processes import ALONE, Group
from .transforms import Images, Normalise


@dataclass(frozen=True)
class Recipe:
    """How to train; the keys and ranges of `params.yaml:train`."""

    epochs: int
    batch_size: int
    max_lr: float
    weight_decay: float


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave; `lr` is the learning rate of its first step."""

    number: int
    train_loss: float
    val_loss: float
    val_acc: float
    lr: float


def make_deterministic(seed: int, threads: int) -> None:
    """Make the same inputs give the same bits: call it before a network is built.

    Results differ with the number of threads (sums in another order), hence it is fixed and not the machine's.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def fit(
    module: nn.Module,
    train: Images,
    val: Images,
    normalise: Normalise,
    recipe: Recipe,
    report: Callable[[Epoch], None],
    group: Group = ALONE,
    checkpoints: Checkpoints | None = None,
) -> Epoch:
    """Train `module` in place and leave it with the weights of its best epoch.

    Several processes do it together: the steps and their learning rates are those of one, and each returns the same.

    Args:
        module: Turns (N, channels, px, px) float32 into (N, classes) logits.
        train: Images to learn from.
        val: Images that choose the best epoch: highest accuracy, then lowest loss.
        normalise: Turns pixels into the network's input.
        recipe: Epochs, batch size, learning rate, weight decay.
        report: Called after each epoch.
        group: The processes to train with; the weights to keep are those in the first.
        checkpoints: What to go on from, and where to save that; the result is the same to the bit.

    Returns:
        The best epoch.

    Raises:
        ProjectError: Training diverged, or there is only one training image.
    """
    if len(train.labels) < 2:
        raise ProjectError("the training split has one record", "change params.yaml:split.salt, or give more data")
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.max_lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(_batches(train, recipe.batch_size, group))
    schedule = OneCycleLR(optimizer, max_lr=recipe.max_lr, total_steps=steps)
    parallel = group.parallel(module)
    begin, best, weights = 0, Epoch(-1, math.inf, math.inf, -1.0, 0.0), module.state_dict()  # any epoch is better
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    checkpoints = checkpoints or Checkpoints()
    if kept := checkpoints.state:
        _settle(parallel, train, normalise)
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        begin, best, weights = kept["epochs"], Epoch(**kept["best"]), kept["weights"]
        checkpoints.restore_random_numbers()
    for number in tqdm(range(begin, recipe.epochs), "train", recipe.epochs, unit="epoch", initial=begin, delay=2):
        lr = float(schedule.get_last_lr()[0])
        train_loss = _train_once(parallel, train, normalise, recipe, optimizer, schedule, group)
        epoch = Epoch(number, train_loss, *_validate(module, val, normalise, group), lr)
        _check_finite(epoch, recipe)
        report(epoch)
        if (epoch.val_acc, -epoch.val_loss) > (best.val_acc, -best.val_loss):
            best, weights = epoch, {name: tensor.clone() for name, tensor in module.state_dict().items()}
        states = {name: part.state_dict() for name, part in parts.items()}
        checkpoints.save({**states, "epochs": number + 1, "best": vars(best), "weights": weights})
    module.load_state_dict(weights)
    return best


def _settle(module: nn.Module, images: Images, normalise: Normalise) -> None:
    """Do a step that counts for nothing: after its first, DDP sums gradients in another order, to other last bits."""
    module.train()
    functional.cross_entropy(module(normalise(images.pixels[:2])), images.labels[:2]).backward()


def _train_once(
    module: nn.Module,
    images: Images,
    normalise: Normalise,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    group: Group,
) -> float:
    """Return the mean loss over all images, in nats."""
    module.train()
    total = torch.zeros((), dtype=torch.float64)
    for batch in _batches(images, recipe.batch_size, group):  # (batch_size,) positions
        mine, weight = group.share(batch)
        loss = functional.cross_entropy(module(normalise(images.pixels[mine])), images.labels[mine])
        if weight != 1:
            loss = loss * weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(batch)
    return group.mean(total).item() / len(images.labels)


def _validate(module: nn.Module, images: Images, normalise: Normalise, group: Group) -> tuple[float, float]:
    """Return loss and accuracy of the first process's weights and running statistics, which are the ones to be kept."""
    figures = torch.zeros(2, dtype=torch.float64)
    if group.rank == 0:
        found = evaluate(module, images, normalise)
        figures = torch.tensor([found.loss, found.accuracy], dtype=torch.float64)
    loss, accuracy = group.agreed(figures).tolist()
    return loss, accuracy


def _batches(images: Images, size: int, group: Group) -> list[Tensor]:
    """Shuffle; a last batch of one joins the one before, since BatchNorm can't take a variance over one."""
    order = group.agreed(torch.randperm(len(images.labels)))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _check_finite(epoch: Epoch, recipe: Recipe) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.val_loss)):
        raise ProjectError(
            f"training diverged in epoch {epoch.number + 1} of {recipe.epochs} with max_lr {recipe.max_lr}: "
            f"loss {epoch.train_loss} (train), {epoch.val_loss} (val)",
            "lower params.yaml:train.max_lr",
        )
