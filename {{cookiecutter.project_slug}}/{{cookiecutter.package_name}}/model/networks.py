"""The networks that can be trained, by name. This module travels with a registered model.

To add one, write its function and name it in `Arch` and in `NETWORKS`; `params.yaml:train.arch` takes it from there,
and `params.yaml:train.arch_options` gives its function more arguments.
"""

from collections.abc import Callable
from typing import Any, Literal, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn

Arch = Literal["small_cnn", "mobilenet_v3_small"]
BATCH = 256  # images at once when not training; fixed, since another size gives other last bits


def build(arch: Arch, classes: int, channels: int, weights: str | None, **options: Any) -> nn.Module:
    """Make a network that turns (N, channels, px, px) float32 into (N, classes) logits.

    Args:
        arch: A key of `NETWORKS`.
        classes: Number of labels.
        channels: Of its images: 1 for gray, 3 for RGB; what `CHANNELS` says, if it does.
        weights: "imagenet" to start from torchvision's weights with a new last layer; None to start from random ones.
        options: More arguments of the network's function.

    Raises:
        ConnectionError: The weights can't be downloaded.
        TypeError: The network takes no such option.
        ValueError: There are no such weights.
    """
    return NETWORKS[arch](classes, channels, weights, **options)


def logits(module: nn.Module, pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a network over (N, channels, px, px) uint8 images: (N, classes) float32. Leaves it in evaluation mode."""
    module.eval()
    with torch.inference_mode():
        starts = range(0, max(1, len(pixels)), BATCH)  # no images: (0, classes)
        return torch.cat([module(normalise(pixels[start : start + BATCH])) for start in starts])


def _small_cnn(classes: int, channels: int, weights: str | None) -> nn.Module:
    """A network of 66,000 weights: seconds on a laptop, enough for digits. It has no pretrained weights."""
    if weights:
        raise ValueError(f"small_cnn has no {weights} weights")
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


def _mobilenet_v3_small(classes: int, channels: int, weights: str | None) -> nn.Module:
    """Source: Howard et al., Searching for MobileNetV3, 2019 (arXiv:1905.02244), as torchvision builds it."""
    from torchvision.models import mobilenet_v3_small

    module: nn.Module = _pretrained_mobilenet(classes) if weights else mobilenet_v3_small(num_classes=classes)
    # Torchvision's 0.01 needs thousands of steps. Measured: accuracy 0.10, not 0.90, from random weights, and 0.66, not
    # 0.98, from those of another task, after 160 steps.
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return module


def _pretrained_mobilenet(classes: int) -> nn.Module:
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    module = mobilenet_v3_small()
    try:  # not by `weights=`, which unpickles whatever the file holds
        state = MobileNet_V3_Small_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True)
    except (URLError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(f"the ImageNet weights can't be downloaded: {error}") from error
    module.load_state_dict(state)
    module.classifier[-1] = nn.Linear(module.classifier[-1].in_features, classes)
    return cast(nn.Module, module)


NETWORKS: dict[Arch, Callable[..., nn.Module]] = {
    "small_cnn": _small_cnn,
    "mobilenet_v3_small": _mobilenet_v3_small,
}
"""The function that makes each network."""
CHANNELS: dict[Arch, int] = {"mobilenet_v3_small": 3}
"""Of networks that do not take what the images have, 1 for gray or 3 for RGB: the channels that they take."""
