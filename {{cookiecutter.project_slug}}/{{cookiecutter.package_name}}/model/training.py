"""The training loop: AdamW, one cycle of the learning rate, the best epoch's weights kept.

It runs over tensors in memory, with no DataLoader: the images are decoded already, and a DataLoader would take them
out one by one to stack them again (measured on the default network: 5 % more time an epoch).
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from mlops import ProjectError, StrictModel, TrainingRun
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from .dataset import Images
from .evaluation import evaluate
from .networks import Arch
from .transforms import Normalise, augment


class TrainParams(StrictModel):
    """`params.yaml:train`, which states units and ranges."""

    arch: Arch
    arch_options: dict[str, Any] = Field(default_factory=dict)  # more arguments of its function in networks.py
    weights: Literal["imagenet"] | None  # start from torchvision's weights, or from random ones
    init_from: str | None  # start from a registered model instead
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
    def _is_exact(cls, uri: str | None, info: ValidationInfo) -> str | None:
        if uri and not re.fullmatch(r"models:/[^/@]+/\d+", uri):
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
class Epoch:
    """What one pass over the training images gave; `lr` is the learning rate of its first step."""

    number: int
    train_loss: float
    val_loss: float
    val_acc: float
    lr: float


def fit(
    module: nn.Module,
    train: Images,
    val: Images,
    normalise: Normalise,
    params: TrainParams,
    run: TrainingRun,
    fabric: Fabric,
) -> Epoch:
    """Train `module` in place and leave it with the weights of its best epoch.

    Several processes do it together: the steps and their learning rates are those of one, and each returns the same.
    From a checkpoint it goes on to the same bits.

    Args:
        module: Turns (N, channels, px, px) float32 into (N, classes) logits.
        train: Images to learn from.
        val: Images that choose the best epoch: highest accuracy, then lowest loss.
        normalise: Turns pixels into the network's input.
        params: Epochs, batch size, learning rate, weight decay.
        run: Takes the metrics of each epoch; has the checkpoint to go on from.
        fabric: The device, and the processes that train together.

    Returns:
        The best epoch.

    Raises:
        ProjectError: Training diverged, or there is only one training image.
    """
    if len(train.labels) < 2:
        raise ProjectError("the training split has one record", "change params.yaml:split.salt, or give more data")
    optimizer = torch.optim.AdamW(module.parameters(), lr=params.max_lr, weight_decay=params.weight_decay)
    steps = params.epochs * len(_batches(train, params, 0))
    parallel, optimizer = fabric.setup(module, optimizer)
    schedule = OneCycleLR(optimizer, max_lr=params.max_lr, total_steps=steps)
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    begin, best, weights = 0, Epoch(-1, math.inf, math.inf, -1.0, 0.0), module.state_dict()  # any epoch is better
    if state := run.checkpoint:
        _warm_up_ddp(parallel, train, normalise, fabric)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        begin, best, weights = state["epochs"], Epoch(**state["best"]), state["weights"]
    for number in tqdm(range(begin, params.epochs), "train", params.epochs, unit="epoch", initial=begin, delay=2):
        lr = float(schedule.get_last_lr()[0])
        train_loss = _train_epoch(parallel, train, normalise, params, optimizer, schedule, fabric, number)
        epoch = Epoch(number, train_loss, *_validate(module, val, normalise, fabric), lr)
        _check_finite(epoch, params)
        run.log({"train/loss": train_loss, "val/loss": epoch.val_loss, "val/acc": epoch.val_acc, "lr": lr})
        if (epoch.val_acc, -epoch.val_loss) > (best.val_acc, -best.val_loss):
            best, weights = epoch, {name: tensor.clone() for name, tensor in module.state_dict().items()}
        states = {name: part.state_dict() for name, part in parts.items()}
        run.save_checkpoint({**states, "epochs": number + 1, "best": vars(best), "weights": weights})
    module.load_state_dict(weights)
    return best


def _warm_up_ddp(module: nn.Module, images: Images, normalise: Normalise, fabric: Fabric) -> None:
    """Run one throw-away backward pass: after its first, DDP sums gradients in another order, to other last bits."""
    module.train()
    fabric.backward(functional.cross_entropy(module(normalise(images.pixels[:2])), images.labels[:2]))


def _train_epoch(
    module: nn.Module,
    images: Images,
    normalise: Normalise,
    params: TrainParams,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    fabric: Fabric,
    number: int,
) -> float:
    """Go once over the images; return the mean loss over all of them, in nats."""
    module.train()
    total = torch.zeros((), dtype=torch.float64)
    torch.manual_seed(params.seed + 1_000_003 * (number + 1) + fabric.global_rank)
    for batch in _batches(images, params, number):  # (batch_size,) positions
        own, weight = _shard(batch, fabric)
        loss = functional.cross_entropy(module(normalise(augment(images.pixels[own]))), images.labels[own])
        if weight != 1:
            loss = loss * weight
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(batch)
    return fabric.all_reduce(total).item() / len(images.labels)


def _validate(module: nn.Module, images: Images, normalise: Normalise, fabric: Fabric) -> tuple[float, float]:
    """Return loss and accuracy of the first process's weights and running statistics, which are those that are kept."""
    figures = torch.zeros(2, dtype=torch.float64)
    if fabric.is_global_zero:
        result = evaluate(module, images.pixels, images.labels, normalise)
        figures = torch.tensor([result.loss, result.accuracy], dtype=torch.float64)
    loss, accuracy = fabric.broadcast(figures.tolist())
    return loss, accuracy


def _batches(images: Images, params: TrainParams, epoch: int) -> list[Tensor]:
    """Shuffle; a last batch of one joins the one before, since BatchNorm can't take a variance over one."""
    size, generator = params.batch_size, torch.Generator().manual_seed(params.seed + 1_000_003 * epoch)
    order = torch.randperm(len(images.labels), generator=generator)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _shard(batch: Tensor, fabric: Fabric) -> tuple[Tensor, float]:
    """Return this process's part of a batch of positions, and the weight of its mean loss."""
    if fabric.world_size == 1:
        return batch, 1.0
    parts = batch.tensor_split(min(fabric.world_size, len(batch) // 2))
    if fabric.global_rank >= len(parts):
        return batch[:2], 0.0
    own = parts[fabric.global_rank]
    return own, len(own) * fabric.world_size / len(batch)


def _check_finite(epoch: Epoch, params: TrainParams) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.val_loss)):
        raise ProjectError(
            f"training diverged in epoch {epoch.number + 1} of {params.epochs} with max_lr {params.max_lr}: "
            f"loss {epoch.train_loss} (train), {epoch.val_loss} (val)",
            "lower params.yaml:train.max_lr",
        )
