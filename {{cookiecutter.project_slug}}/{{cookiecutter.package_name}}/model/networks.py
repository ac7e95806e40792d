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


def build(arch: str, classes: int, channels: int, **options: Any) -> nn.Module:
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
    try:
        signature.bind(classes, channels, **options)
    except TypeError as error:
        takes = ", ".join(str(parameter) for parameter in list(signature.parameters.values())[2:]) or "nothing"
        raise NetworkError(
            f"{arch} with {options}: {error}", f"correct params.yaml:train.model; it takes {takes}"
        ) from error
    return NETWORKS[arch](classes, channels, **options)


def channels_of(arch: str) -> int | None:
    """Return the channels that a network takes, 1 for gray or 3 for RGB; None if it takes what the images have."""
    return CHANNELS.get(arch, None if arch in NETWORKS else 3)


def head_parameters(module: nn.Module, arch: str, classes: int, channels: int, **options: Any) -> list[str]:
    """Return the names in a network's state that depend on the number of classes: its last layer, of most networks.

    Pretrained weights leave these as they are, and frozen epochs train nothing else.
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
    """Return (N, classes) of what a network returned: googlenet and inception_v3 may add outputs of inner layers."""
    return output if isinstance(output, Tensor) else output.logits


def loss_of(
    output: Any, labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
) -> Tensor:
    """Return the loss of what a network returned.

    Source: Szegedy et al., Going deeper with convolutions, 2014 (arXiv:1409.4842), for the 0.3 of inner layers.
    """
    loss = criterion(logits(output), labels)
    for inner in () if isinstance(output, Tensor) else output[1:]:
        if inner is not None:
            loss = loss + 0.3 * criterion(inner, labels)
    return loss


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers, but for those of quantized weights."""
    from torchvision import models

    return list(models.list_models(module=models))


def torchvision_builder(arch: str) -> Callable[..., nn.Module]:
    """Return torchvision's function of a network; raise NetworkError, with names like it, if it has none."""
    from torchvision.models import get_model_builder

    if arch not in (names := torchvision_names()):
        near = difflib.get_close_matches(arch, [*NETWORKS, *names], n=5, cutoff=0.5)
        problem = f"there is no network {arch!r}" + (f"; near are {', '.join(near)}" if near else "")
        raise NetworkError(problem, f"correct params.yaml:train.arch; python -m {__package__}.weights lists all")
    builder: Callable[..., nn.Module] = get_model_builder(arch)
    return builder


def _torchvision(arch: str, classes: int, options: dict[str, Any]) -> nn.Module:
    builder = torchvision_builder(arch)
    try:
        module: nn.Module = builder(num_classes=classes, **{**DEFAULTS.get(arch, {}), **options})
        if unknown := options.keys() - inspect.signature(type(module).__init__).parameters.keys():
            raise TypeError(f"it has no argument {', '.join(sorted(unknown))}")  # some ignore what they don't know
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        if not options:
            raise
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
    """A network of one's own, with hyper-parameters: `train.model: {width: 64, depth: 4}`.

    They are kept in the model's `model.json`, and given back when it is loaded.

    Args:
        classes: Number of labels.
        channels: Of its images.
        width: Features of each layer.
        depth: Residual blocks; the side of the image halves after each.
        dropout: Part of the features that a training step leaves out, 0 to 1.
    """

    def __init__(self, classes: int, channels: int, width: int = 32, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = _conv(channels, width)
        self.blocks = nn.ModuleList(nn.Sequential(_conv(width, width), _conv(width, width)) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn (N, channels, px, px) float32 into (N, classes) logits."""
        features = self.stem(pixels)  # (N, width, px, px)
        for block in self.blocks:
            features = functional.max_pool2d(features + block(features), 2, ceil_mode=True)
        output: Tensor = self.head(self.dropout(features.mean((2, 3))))
        return output


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": _small_cnn,
    "small_resnet": SmallResNet,
}
"""The function that makes each network; torchvision's need no entry."""
CHANNELS: dict[str, int] = {}
"""Of networks in `NETWORKS` that do not take what the images have, 1 for gray or 3 for RGB: the channels they take."""
DEFAULTS: dict[str, dict[str, Any]] = {
    # Their weights expect images of another range; without the outputs of inner layers, images may be small.
    name: {"transform_input": True, "aux_logits": False, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}
"""Arguments of torchvision's functions that hold unless `train.model` has them."""
