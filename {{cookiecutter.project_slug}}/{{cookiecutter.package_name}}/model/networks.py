"""The networks that can be trained, by name. This module travels with a registered model.

`params.yaml:train.arch` is a name of `NETWORKS`, or of any classifier of torchvision; `params.yaml:train.model` has its
hyper-parameters. To add a network, write a function or class as `SmallResNet` is one, and name it in `NETWORKS`.
"""

import difflib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class NetworkError(ValueError):
    """A network that can't be what `params.yaml` says; `fix` is what to change."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def build(arch: str, classes: int, channels: int, /, **options: Any) -> nn.Module:
    """Make a network with random weights, which turns (N, channels, px, px) float32 into (N, classes) logits.

    Args:
        arch: A key of `NETWORKS`, or the name of a classifier of torchvision.
        classes: Number of labels.
        channels: Of its images: 1 for gray, 3 for RGB; what `channels_of` says, if it does.
        options: Its hyper-parameters: more arguments of its function, or of torchvision's.

    Raises:
        NetworkError: There is no such network, or it takes no such hyper-parameters.
    """
    if arch not in NETWORKS:
        return _torchvision(arch, classes, options)
    signature = inspect.signature(NETWORKS[arch])
    takes = ", ".join(str(parameter) for parameter in list(signature.parameters.values())[2:]) or "nothing"
    fix = f"correct params.yaml:train.model; {arch} takes {takes}"
    try:
        signature.bind(classes, channels, **options)
        for name, value in options.items():
            default = getattr(signature.parameters.get(name), "default", None)
            kind = int | float if isinstance(default, float) else type(default)
            if isinstance(default, int | float | str) and not isinstance(value, kind):
                raise TypeError(f"{name} is {value!r}, and by default {default!r}")
    except TypeError as error:
        raise NetworkError(f"{arch} with {options}: {error}", fix) from error
    try:
        return NETWORKS[arch](classes, channels, **options)
    except ValueError as error:  # a value is out of range; other errors are mistakes of the network's code
        raise NetworkError(f"{arch} with {options}: {error}", fix) from error


def channels_of(arch: str) -> int | None:
    """Return the channels that a network takes, 1 for gray or 3 for RGB; None if it takes what the images have.

    Raises:
        NetworkError: There is no such network.
    """
    if arch in NETWORKS:
        return CHANNELS.get(arch)
    torchvision_builder(arch)
    return 3


def head_parameters(module: nn.Module, arch: str, classes: int, channels: int, /, **options: Any) -> list[str]:
    """Return the names in a network's state that depend on the number of classes: its last layer, of most networks.

    Pretrained weights leave these random, and frozen epochs train nothing else.
    """
    with torch.random.fork_rng(devices=[]):
        other = build(arch, classes + 1, channels, **options).state_dict()
    return [name for name, tensor in module.state_dict().items() if tensor.shape != other[name].shape]


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network all its weights; raise RuntimeError if they are another's."""
    complete = OrderedDict(state)
    # Versions of its layers, which safetensors doesn't keep: mnasnet refuses weights without.
    complete._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(complete)


def logits(output: Any) -> Tensor:
    """Return (N, classes) of what a network gave: with `aux_logits`, googlenet and inception_v3 give three."""
    return output if isinstance(output, Tensor) else output.logits


def loss_of(
    output: Any, labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
) -> Tensor:
    """Return the loss of what a network gave; outputs of inner layers count 0.3 (arXiv:1409.4842, section 5)."""
    inner = () if isinstance(output, Tensor) else (part for part in output[1:] if part is not None)
    return sum((0.3 * criterion(part, labels) for part in inner), criterion(logits(output), labels))


def torchvision_builder(arch: str) -> Callable[..., nn.Module]:
    """Return torchvision's function of a network; raise NetworkError, with names like it, if it has none."""
    from torchvision import models

    names = models.list_models(module=models)
    if arch not in names:
        near = difflib.get_close_matches(arch, [*NETWORKS, *names], n=5, cutoff=0.5)
        problem = f"there is no network {arch!r}" + (f"; near are {', '.join(near)}" if near else "")
        raise NetworkError(problem, f"correct params.yaml:train.arch; python -m {__package__}.weights lists all")
    builder: Callable[..., nn.Module] = models.get_model_builder(arch)
    return builder


def _torchvision(arch: str, classes: int, options: dict[str, Any]) -> nn.Module:
    builder = torchvision_builder(arch)
    try:
        module = builder(num_classes=classes, **{**DEFAULTS.get(arch, {}), **options})
        if unknown := options.keys() - inspect.signature(type(module).__init__).parameters.keys():
            raise TypeError(f"it has no argument {', '.join(sorted(unknown))}")  # some ignore what they don't know
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        fix = f"correct params.yaml:train.model; python -m pydoc {builder.__module__} has the arguments"
        raise NetworkError(f"{arch} with {options}: {error}", fix) from error
    # Torchvision's 0.01 of some needs thousands of steps. Measured of mobilenet_v3_small, after 160 steps: accuracy
    # 0.10, not 0.90, from random weights, and 0.66, not 0.98, from those of another task.
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return module


def _small_cnn(classes: int, channels: int) -> nn.Module:
    """A network of 66,000 weights: seconds on a laptop, enough for digits."""
    return nn.Sequential(  # at 8 px, image sides by layer: 8, 8, 4, 2, 1
        _conv(channels, 16),
        _conv(16, 32),
        nn.MaxPool2d(2),
        _conv(32, 64),
        nn.MaxPool2d(2),
        _conv(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def _conv(channels: int, features: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU(inplace=True)
    )


class SmallResNet(nn.Module):
    """An example of a network of one's own, with hyper-parameters: `train.model: {width: 64, depth: 4}`.

    Args:
        classes: Number of labels.
        channels: Of its images.
        width: Features of each layer.
        depth: Residual blocks; after each, the side of the image halves.
        dropout: Part of the features that a training step leaves out, 0 to 1.
    """

    def __init__(self, classes: int, channels: int, width: int = 32, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = _conv(channels, width)
        self.blocks = nn.ModuleList(nn.Sequential(_conv(width, width), _conv(width, width)) for _ in range(depth))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, pixels: Tensor) -> Any:
        """Turn (N, channels, px, px) float32 into (N, classes) logits."""
        features = self.stem(pixels)  # (N, width, px, px)
        for block in self.blocks:
            features = functional.max_pool2d(features + block(features), 2, ceil_mode=True)
        return self.head(features)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": _small_cnn,
    "small_resnet": SmallResNet,
}
"""The function that makes each network; torchvision's need no entry."""
CHANNELS: dict[str, int] = {}
"""Of networks in `NETWORKS` that do not take what the images have, 1 for gray or 3 for RGB: the channels they take."""
# Their weights expect images of another range; without the outputs of inner layers, they take smaller images.
INCEPTION = {"transform_input": True, "aux_logits": False, "init_weights": False}
DEFAULTS: dict[str, dict[str, Any]] = {"googlenet": INCEPTION, "inception_v3": INCEPTION}
"""Arguments of torchvision's functions, unless `train.model` has them."""
