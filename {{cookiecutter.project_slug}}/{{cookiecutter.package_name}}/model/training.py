"""The training: its parameters, and the loop over epochs that keeps the weights of the best one.

`mlops` has the device, the processes and the batches; the network, what an image becomes and the metrics are in the
modules beside this one.
"""

import itertools
import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from mlops import BaseTrainParams, ProjectError, TrainingLoader, TrainingRun, known_name, mix_seed
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .dataset import Dataset
from .evaluation import evaluate
from .metrics import METRICS, measure
from .networks import loss_of
from .transforms import AUGMENTATIONS, Normalise

HIGHER_IS_BETTER = {metric.name: metric.higher_is_better for metric in METRICS}


class TrainParams(BaseTrainParams):
    """`params.yaml:train`, which states units and ranges; those of any training are in `BaseTrainParams`."""

    arch: str
    model: dict[str, Any] = Field(default_factory=dict)  # more arguments of the network
    weights: str | None = None  # start from pretrained weights of this name
    weights_file: str | None = None  # which are in this file
    init_from: str | None = None  # start from a registered model instead
    image_px: int = Field(ge=8, le=1024)
    resize: Literal["squeeze", "crop", "preset"] = "squeeze"
    augment: str = "none"
    cache: Literal["auto", "memory", "none"] = "auto"
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    freeze_epochs: int = Field(default=0, ge=0)
    select_by: str = "loss"
    patience: int | None = Field(default=None, ge=1)

    @field_validator("init_from")
    @classmethod
    def _is_exact(cls, uri: str | None, info: ValidationInfo) -> str | None:
        if uri and not re.fullmatch(r"models:/[^/@]+/\d+", uri):
            raise ValueError("it must name one version, models:/<name>/<version number>, since an alias moves")
        if uri and info.data.get("weights"):
            raise ValueError("a model starts from one place; set train.weights or train.init_from to null")
        return uri

    @field_validator("augment")
    @classmethod
    def _is_an_augmentation(cls, name: str) -> str:
        return known_name(name, AUGMENTATIONS)

    @field_validator("select_by")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        return known_name(name, HIGHER_IS_BETTER)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave; `lr` is the learning rate of its first step."""

    number: int
    train_loss: float
    val: dict[str, float]  # metrics by name
    lr: float


def place(module: nn.Module, fabric: Fabric) -> None:
    """Move a network to the device, in the layout of memory that its kernels are fastest with."""
    module.to(fabric.device)
    if fabric.device.type == "cuda":
        module.to(memory_format=torch.channels_last)


def fit(
    module: nn.Module,
    dataset: Dataset,
    normalise: Normalise,
    params: TrainParams,
    fabric: Fabric,
    run: TrainingRun,
    head: Collection[str] = (),
) -> Epoch:
    """Train `module` in place and leave it, on the CPU, with the weights of its best epoch.

    Several processes do it together: the steps and their learning rates are those of one, and each returns the same.
    From a checkpoint it goes on to the same bits, since all that is random follows from the seed and the epoch.

    Args:
        module: Turns (N, channels, px, px) float32 into (N, classes) logits.
        dataset: `train` to learn from; `val` chooses the best epoch, by `params.select_by`, then by the lowest loss.
        normalise: Turns pixels into the network's input.
        params: The recipe.
        fabric: The device and the processes to train with.
        run: Takes the metrics of each epoch, and has the checkpoint to go on from.
        head: Names of the parameters that learn during `params.freeze_epochs`, while the others stay as they are.

    Returns:
        The best epoch.

    Raises:
        ProjectError: Training diverged, there is only one training image, PyTorch refuses the recipe, or
            `params.select_by` isn't defined for so few labels.
    """
    training = _Training(module, dataset, normalise, params, fabric)
    state: dict[str, Any] = run.checkpoint or {"epochs": 0, "best": None, "weights": {}}
    training.load_state(state)
    best, weights = state["best"] and Epoch(**state["best"]), state["weights"]
    for number in range(state["epochs"], params.epochs):
        if params.patience and best and number - best.number > params.patience:
            break
        if number in (state["epochs"], params.freeze_epochs):
            training.wrap(head if number < params.freeze_epochs else ())
        epoch = training.run_epoch(number)
        run.log({"train/loss": epoch.train_loss, **{f"val/{k}": v for k, v in epoch.val.items()}, "lr": epoch.lr})
        if best is None or _quality(epoch, params) > _quality(best, params):
            best, weights = epoch, {name: tensor.clone() for name, tensor in module.state_dict().items()}
        run.log_weights(module.state_dict())
        run.save_checkpoint({**training.state(), "epochs": number + 1, "best": asdict(best), "weights": weights})
    module.load_state_dict(weights)
    module.to("cpu")
    return best


class _Training:
    """A network, its optimizer and schedule, and the batches that it learns from."""

    def __init__(
        self, module: nn.Module, dataset: Dataset, normalise: Normalise, params: TrainParams, fabric: Fabric
    ) -> None:
        if len(dataset.train) < 2:
            fix = "python -m mlops data split --suggest --write, then: dvc repro; or give more data"
            raise ProjectError("the training split has one record", fix)
        defined = [metric.name for metric in METRICS if len(dataset.classes) >= metric.labels]
        if params.select_by not in defined:
            problem = f"params.yaml:train.select_by is {params.select_by}, which is not defined for so few labels"
            raise ProjectError(problem, f"set params.yaml:train.select_by to one of {', '.join(defined)}")
        self.module, self.dataset, self.normalise, self.params, self.fabric = module, dataset, normalise, params, fabric
        place(module, fabric)
        self.loader = TrainingLoader(dataset.train, params.batch_size, params.seed, fabric, params.accumulate)
        optimizer, self.schedule = params.build_recipe(module, self.loader.steps)
        self.optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer))
        self.weight_of_class = _class_weights(dataset, params).to(fabric.device)

    def wrap(self, head: Collection[str]) -> None:
        """Let the parameters named in `head` learn (none named: all), in all processes together."""
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(not head or name in head)
        self.parallel = self.fabric.setup_module(self.module)
        if self.fabric.world_size > 1:
            # After its first backward pass, DDP sums gradients in another order, to other last bits: so that a resumed
            # training is in step with one that was not interrupted, that pass is thrown away.
            self.parallel.eval()
            for batch in itertools.islice(self.loader.epoch(0), 1):
                self.fabric.backward(self._loss(batch.images, batch.labels))
            self.optimizer.zero_grad()

    def run_epoch(self, number: int) -> Epoch:
        """Go once over the training images, then measure the network on those of `val`."""
        lr = float(self.schedule.get_last_lr()[0])
        torch.manual_seed(mix_seed(self.params.seed, number, self.fabric.global_rank))  # for dropout
        train_loss = self._train(number)
        val = measure(*evaluate(self.module, self.dataset.val, self.normalise, self.fabric))
        for name, loss in (("train", train_loss), ("val", val["loss"])):
            if not math.isfinite(loss):
                raise ProjectError(
                    f"training diverged in epoch {number + 1} of {self.params.epochs} with max_lr "
                    f"{self.params.max_lr}: the {name} loss is {loss}",
                    "lower params.yaml:train.max_lr, or set train.clip_norm: 1.0",
                )
        return Epoch(number, train_loss, val, lr)

    def _train(self, number: int) -> float:
        """Return the mean loss over all training images, in nats."""
        self.parallel.train()
        for layer in self.module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not layer.weight.requires_grad:
                layer.eval()  # frozen, with its statistics
        # MPS has no float64.
        total = torch.zeros((), dtype=torch.float32 if self.fabric.device.type == "mps" else torch.float64)
        total = total.to(self.fabric.device)
        batches = tqdm(self.loader.epoch(number), f"epoch {number + 1}", self.loader.batches, delay=5, leave=False)
        for batch in batches:
            with self.fabric.no_backward_sync(self.parallel, enabled=not batch.ends_step):
                loss = self._loss(batch.images, batch.labels) * batch.weight
                self.fabric.backward(loss)
            total += loss.detach() * batch.records
            if batch.ends_step:
                if self.params.clip_norm:
                    self.fabric.clip_gradients(self.parallel, self.optimizer, max_norm=self.params.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.schedule.step()
        mean = cast(Tensor, self.fabric.all_reduce(total, reduce_op="mean"))
        return mean.item() / len(self.dataset.train)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of images, (N, channels, px, px) uint8, with (N,) int64 labels."""
        return loss_of(self.parallel(self.normalise(images)), labels, self._criterion)

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing, weights = self.params.label_smoothing, self.weight_of_class
        total = functional.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=smoothing)
        return total / len(labels)  # whatever the weights of the labels: so parts of a batch add up to its loss

    def state(self) -> dict[str, Any]:
        """Return what `load_state` goes on from."""
        parts: dict[str, Any] = {"module": self.module, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state()`; from anything else, do nothing."""
        for name, part in (("module", self.module), ("optimizer", self.optimizer), ("schedule", self.schedule)):
            if name in state:
                part.load_state_dict(state[name])


def _class_weights(dataset: Dataset, params: TrainParams) -> Tensor:
    """Return the weight of each class in the loss, (classes,) float32, 1 on average over the training images."""
    counts = torch.bincount(dataset.train.labels, minlength=len(dataset.classes))
    if params.class_weights == "none":
        return torch.ones(len(counts))
    return len(dataset.train) / (len(counts) * counts)  # as scikit-learn's "balanced"


def _quality(epoch: Epoch, params: TrainParams) -> tuple[float, float]:
    value = epoch.val[params.select_by]
    return value if HIGHER_IS_BETTER[params.select_by] else -value, -epoch.val["loss"]
