"""The training loop: AdamW, one cycle of the learning rate, the best epoch's weights kept.

It runs over tensors in memory, with no DataLoader: the images are decoded already, and a DataLoader would take them
out one by one to stack them again (measured on the default network: 5 % more time an epoch).
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mlops import ProjectError, StrictModel, TrainingRun
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from .dataset import Images
from .evaluation import evaluate
from .metrics import measure
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


def make_deterministic(seed: int, threads: int) -> None:
    """Make the same inputs give the same bits: call it before a network is built.

    Results differ with the number of threads (sums in another order), hence it is fixed and not the machine's.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def fit(
    module: nn.Module, train: Images, val: Images, normalise: Normalise, params: TrainParams, run: TrainingRun
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
        run: Takes the metrics of each epoch; has the processes to train with, and the checkpoint to go on from.

    Returns:
        The best epoch.

    Raises:
        ProjectError: Training diverged, or there is only one training image.
    """
    if len(train.labels) < 2:
        raise ProjectError("the training split has one record", "change params.yaml:split.salt, or give more data")
    optimizer = torch.optim.AdamW(module.parameters(), lr=params.max_lr, weight_decay=params.weight_decay)
    steps = params.epochs * len(_batches(train, params.batch_size, run))
    schedule = OneCycleLR(optimizer, max_lr=params.max_lr, total_steps=steps)
    parallel = run.group.parallel(module)
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    begin, best, weights = 0, Epoch(-1, math.inf, math.inf, -1.0, 0.0), module.state_dict()  # any epoch is better
    if state := run.checkpoint:
        _warm_up_ddp(parallel, train, normalise)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        begin, best, weights = state["epochs"], Epoch(**state["best"]), state["weights"]
        run.restore_random_numbers()
    for number in tqdm(range(begin, params.epochs), "train", params.epochs, unit="epoch", initial=begin, delay=2):
        lr = float(schedule.get_last_lr()[0])
        train_loss = _train_epoch(parallel, train, normalise, params, optimizer, schedule, run)
        epoch = Epoch(number, train_loss, *_validate(module, val, normalise, run), lr)
        _check_finite(epoch, params)
        run.log({"train/loss": train_loss, "val/loss": epoch.val_loss, "val/acc": epoch.val_acc, "lr": lr})
        if (epoch.val_acc, -epoch.val_loss) > (best.val_acc, -best.val_loss):
            best, weights = epoch, {name: tensor.clone() for name, tensor in module.state_dict().items()}
        states = {name: part.state_dict() for name, part in parts.items()}
        run.save_checkpoint({**states, "epochs": number + 1, "best": vars(best), "weights": weights})
    module.load_state_dict(weights)
    return best


def _warm_up_ddp(module: nn.Module, images: Images, normalise: Normalise) -> None:
    """Run one throw-away backward pass: after its first, DDP sums gradients in another order, to other last bits."""
    module.train()
    functional.cross_entropy(module(normalise(images.pixels[:2])), images.labels[:2]).backward()


def _train_epoch(
    module: nn.Module,
    images: Images,
    normalise: Normalise,
    params: TrainParams,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    run: TrainingRun,
) -> float:
    """Go once over the images; return the mean loss over all of them, in nats."""
    module.train()
    total = torch.zeros((), dtype=torch.float64)
    for batch in _batches(images, params.batch_size, run):  # (batch_size,) positions
        own, weight = run.group.shard_batch(batch)
        loss = functional.cross_entropy(module(normalise(augment(images.pixels[own]))), images.labels[own])
        if weight != 1:
            loss = loss * weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(batch)
    return run.group.mean(total).item() / len(images.labels)


def _validate(module: nn.Module, images: Images, normalise: Normalise, run: TrainingRun) -> tuple[float, float]:
    """Return loss and accuracy of the first process's weights and running statistics, which are those that are kept."""
    figures = torch.zeros(2, dtype=torch.float64)
    if run.group.rank == 0:
        result = measure(*evaluate(module, images.pixels, images.labels, normalise))
        figures = torch.tensor([result["loss"], result["acc"]], dtype=torch.float64)
    loss, accuracy = run.group.broadcast(figures).tolist()
    return loss, accuracy


def _batches(images: Images, size: int, run: TrainingRun) -> list[Tensor]:
    """Shuffle; a last batch of one joins the one before, since BatchNorm can't take a variance over one."""
    order = run.group.broadcast(torch.randperm(len(images.labels)))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _check_finite(epoch: Epoch, params: TrainParams) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.val_loss)):
        raise ProjectError(
            f"training diverged in epoch {epoch.number + 1} of {params.epochs} with max_lr {params.max_lr}: "
            f"loss {epoch.train_loss} (train), {epoch.val_loss} (val)",
            "lower params.yaml:train.max_lr",
        )
