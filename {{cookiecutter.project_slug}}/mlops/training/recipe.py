"""Optimizers and learning-rate schedules of PyTorch by name, with their arguments, as `params.yaml` gives them.

    optimizer: {name: SGD, momentum: 0.9, weight_decay: 0.0001}
    schedule: {name: CosineAnnealingLR, warmup: 5}

Source: https://docs.pytorch.org/docs/stable/optim.html
"""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch.optim import Optimizer, lr_scheduler

from ..config import StrictModel
from ..errors import ProjectError

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    name: made_by
    for name, made_by in vars(torch.optim).items()
    if isinstance(made_by, type)
    and issubclass(made_by, Optimizer)
    # Of the base class and these there is no plain step: LBFGS computes the loss itself, SparseAdam takes sparse
    # gradients only.
    and name not in ("Optimizer", "LBFGS", "SparseAdam")
}
SCHEDULES = {
    "ConstantLR": "the learning rate stays, after a warm-up",
    "CosineAnnealingLR": "down to eta_min along half a cosine",
    "CosineAnnealingWarmRestarts": "such cosines again and again",
    "ExponentialLR": "times gamma each epoch",
    "LinearLR": "from start_factor to end_factor of it",
    "MultiStepLR": "times gamma at each of the milestones",
    "OneCycleLR": "up and down once",
    "PolynomialLR": "down to 0 along a polynomial",
    "StepLR": "times gamma every step_size epochs",
}
IN_EPOCHS = ("T_0", "T_max", "milestones", "step_size", "total_iters")
"""Arguments of schedules that count steps in PyTorch; here they count epochs, since a schedule moves at each step."""


class _Named(StrictModel):
    """A name, and keyword arguments for what it stands for."""

    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, content: Any) -> Any:
        if not isinstance(content, dict | cls):
            raise ValueError("write it like {name: …}, with its arguments behind the name")
        return content

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments that `params.yaml` gives beside the name."""
        return dict(self.model_extra or {})

    def _check_arguments(self, made_by: Any, without: Iterable[str], rehearse: Callable[[], object]) -> None:
        parameters = inspect.signature(made_by).parameters
        known = {name: parameter.default for name, parameter in parameters.items() if name not in without}
        if unknown := [name for name in self.arguments if name not in known]:
            raise ValueError(f"there is no argument {', '.join(unknown)} of {self.name}; it takes {', '.join(known)}")
        try:
            rehearse()
        except ValueError:
            raise
        except Exception as error:  # which type depends on what PyTorch does with a value of another type
            takes = (name if value is inspect.Parameter.empty else f"{name}={value}" for name, value in known.items())
            problem = f"an argument is missing, or has another kind of value; {self.name} takes {', '.join(takes)}"
            raise ValueError(problem) from error


class OptimizerParams(_Named):
    """A class of `torch.optim`, with its arguments but for the learning rate."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return known_name(name, OPTIMIZERS)

    @model_validator(mode="after")
    def _takes_arguments(self) -> "OptimizerParams":
        trial = [torch.nn.Parameter(torch.zeros(2, 2))]
        self._check_arguments(OPTIMIZERS[self.name], ("params", "lr"), lambda: self.build(trial, 0.1))
        return self

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> Optimizer:
        """Return the optimizer of some parameters.

        Raises:
            ValueError: An argument is out of range, or it can't train such parameters.
            TypeError: An argument has another type.
        """
        return OPTIMIZERS[self.name](parameters, lr=lr, **self.arguments)


class ScheduleParams(_Named):
    """A class of `torch.optim.lr_scheduler`, with its arguments; what counts steps in PyTorch counts epochs here."""

    warmup: float = Field(default=0, ge=0, le=1000)  # epochs, in which the learning rate rises from 1 % of it

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return known_name(name, SCHEDULES)

    @field_validator("warmup")
    @classmethod
    def _is_the_only_one(cls, warmup: float, info: ValidationInfo) -> float:
        if warmup and info.data.get("name") == "OneCycleLR":
            raise ValueError("there is a warm-up in OneCycleLR already: pct_start, its part of all steps, 0 to 1")
        return warmup

    @model_validator(mode="after")
    def _takes_arguments(self) -> "ScheduleParams":
        given = ("optimizer", "last_epoch", "max_lr", "total_steps", "epochs", "steps_per_epoch")
        self._check_arguments(getattr(lr_scheduler, self.name), given, self._rehearse)
        return self

    def _rehearse(self) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        schedule = self.build(optimizer, epochs=2, steps=50)
        for _ in range(100):
            if not 0 <= (rate := float(schedule.get_last_lr()[0])) < math.inf:
                raise ValueError(f"it makes {rate} of a learning rate of 1")
            optimizer.step()
            schedule.step()

    def build(self, optimizer: Optimizer, epochs: int, steps: int) -> lr_scheduler.LRScheduler:
        """Return the schedule, whose `step()` follows each step of the optimizer.

        Args:
            optimizer: Its learning rate is the highest that there will be.
            epochs: Of the whole training.
            steps: Of the optimizer in an epoch.

        Raises:
            ValueError: An argument is missing or out of range.
            TypeError: An argument has another type.
        """
        warmup = round(self.warmup * steps)
        rest = max(1, epochs * steps - warmup)
        made_by: type[lr_scheduler.LRScheduler] = getattr(lr_scheduler, self.name)
        arguments = {name: _in_steps(name, value, steps) for name, value in self.arguments.items()}
        if self.name == "ExponentialLR" and "gamma" in arguments:
            arguments["gamma"] **= 1 / steps
        defaults: dict[str, Any] = {"T_max": rest, "total_iters": rest, "total_steps": rest}
        if self.name == "OneCycleLR":
            defaults["max_lr"] = optimizer.param_groups[0]["lr"]
        elif self.name == "ConstantLR":  # PyTorch's defaults are a third of it, for five steps
            defaults["factor"] = 1.0
        taken = inspect.signature(made_by).parameters
        main = made_by(optimizer, **{name: value for name, value in defaults.items() if name in taken} | arguments)
        if not warmup:
            return main
        rise = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])


class BaseTrainParams(StrictModel):
    """The keys of `params.yaml:train` that any training with PyTorch has; a project's own class adds others."""

    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=65_536)  # records of a step of the optimizer, all processes together
    accumulate: int = Field(default=1, ge=1, le=1024)  # parts that a process computes its share of a batch in
    max_lr: float = Field(gt=0, le=100)
    optimizer: OptimizerParams
    schedule: ScheduleParams
    clip_norm: float | None = Field(default=None, gt=0)
    seed: int = Field(ge=0, lt=2**32)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    deterministic: bool = True
    portable: bool = False  # the same bits on all x86 CPUs, at 2 to 5 times the time of a step
    threads: int = Field(ge=1, le=256)  # of the CPU, for each process
    processes: int | Literal["auto"] = "auto"  # on all machines together; auto: one per GPU, else one per machine

    @field_validator("processes", mode="before")
    @classmethod
    def _have_work(cls, processes: Any, info: ValidationInfo) -> Any:
        most = max(1, info.data.get("batch_size", 2) // 2)
        if processes != "auto" and not (type(processes) is int and 1 <= processes <= most):
            raise ValueError(f"auto, or 1 to {most}: train.batch_size is shared among them, two records each or more")
        return processes

    def build_recipe(self, module: torch.nn.Module, steps: int) -> tuple[Optimizer, lr_scheduler.LRScheduler]:
        """Return the optimizer of a network's parameters, and its schedule for `steps` steps an epoch.

        Raises:
            ProjectError: PyTorch refuses an argument.
        """
        trial = torch.nn.Parameter(torch.zeros_like(next(module.parameters())))
        trial.grad = torch.zeros_like(trial)
        try:
            optimizer = self.optimizer.build(module.parameters(), self.max_lr)
            self.optimizer.build([trial], 0.1).step()  # which some arguments let only a GPU do
            return optimizer, self.schedule.build(optimizer, self.epochs, steps)
        except (ValueError, RuntimeError, AssertionError) as error:
            problem = f"{self.optimizer.name} with {self.schedule.name}: {error}"
            raise ProjectError(problem, "correct params.yaml:train.optimizer or train.schedule") from error


def known_name(name: str, known: Iterable[str]) -> str:
    """Return a name, as a validator of pydantic's does.

    Args:
        name: What a file says.
        known: The names that there are.

    Raises:
        ValueError: It is none of them.
    """
    if name not in known:
        raise ValueError(f"there is none of this name; known: {', '.join(sorted(known))}")
    return name


def _in_steps(name: str, value: Any, steps: int) -> Any:
    """Return an argument with epochs turned into steps of the optimizer; raise ValueError if it has none."""
    if name not in IN_EPOCHS:
        return value
    if isinstance(value, list):
        return [round(epoch * steps) for epoch in value]
    if not value > 0:
        raise ValueError(f"the epochs of {name} have to be more than 0")
    return max(1, round(value * steps))
