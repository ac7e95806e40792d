"""From encoded images to the numbers that a network sees. This module travels with a registered model.

`Preprocess` is what validation, test and serving see; it needs Pillow and no torch. Training sees the same, or, if
`params.yaml:train.augment` says so, one of `AUGMENTATIONS`. `Normalise` follows both, on the device.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from ..images import open_image

if TYPE_CHECKING:
    from torch import Tensor

Augmentation = Callable[["Tensor"], "Tensor"]
MODES: dict[int | None, str | None] = {None: None, 1: "L", 3: "RGB"}  # Pillow's names, by the number of channels


@dataclass(frozen=True)
class Preprocess:
    """Turn an encoded image into (channels, image_px, image_px) uint8.

    Args:
        image_px: Width and height of the result, pixels.
        channels: 1 for gray, 3 for RGB; None for 1 if the image is stored as gray, else 3.
        resize: `squeeze` takes the whole image, also if it isn't square; `crop` the square in its middle; `preset` the
            middle of an image whose shorter side is `resize_px`, as torchvision's weights were measured.
        resize_px: For `preset`; `image_px` or more.
        interpolation: `nearest`, `bilinear`, `bicubic` or another of `PIL.Image.Resampling`.

    Raises:
        ValueError: For `preset`, `resize_px` is missing or too small.
    """

    image_px: int
    channels: int | None
    resize: Literal["squeeze", "crop", "preset"] = "squeeze"
    resize_px: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.resize == "preset" and (self.resize_px or 0) < self.image_px:
            raise ValueError(f"resize_px is {self.resize_px}, and has to be image_px, {self.image_px}, or more")

    def __call__(self, content: bytes) -> np.ndarray:
        """Return the pixels of an encoded image.

        Raises:
            ImageError: It can't be read as an image.
        """
        image = open_image(content)
        image = image.convert(MODES[self.channels] or image.mode)
        size, method = (self.image_px, self.image_px), Image.Resampling[self.interpolation.upper()]
        image = image.resize(size, method, self._box(*image.size))
        return np.ascontiguousarray(np.array(image).reshape(*size, -1).transpose(2, 0, 1))

    def _box(self, width: int, height: int) -> tuple[float, float, float, float] | None:
        """Return what is taken of an image: left, top, right, bottom in its pixels; None for all.

        It is what torchvision's Resize and CenterCrop leave, without an image between them, which could be huge.
        """
        if self.resize == "squeeze":
            return None
        shorter = self.resize_px if self.resize == "preset" and self.resize_px else self.image_px
        spans = []
        for side in (width, height):
            scaled = shorter * side // min(width, height)
            start = round((scaled - self.image_px) / 2)
            spans.append((start * side / scaled, (start + self.image_px) * side / scaled))
        (left, right), (top, bottom) = spans
        return left, top, right, bottom


def _light(px: int) -> Augmentation:
    """Take most of the image, and change its brightness a little. Nothing is mirrored: digits and text stay right."""
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(px, scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True)
    steps: Augmentation = v2.Compose([crop, v2.ColorJitter(brightness=0.2, contrast=0.2)])
    return steps


def _standard(px: int) -> Augmentation:
    """Take a part of the image, from a twelfth of its area on, and mirror every second one: for photos."""
    from torchvision.transforms import v2

    steps: Augmentation = v2.Compose([v2.RandomResizedCrop(px, antialias=True), v2.RandomHorizontalFlip()])
    return steps


def _trivial(px: int) -> Augmentation:
    """As `standard`, then one of 14 changes of any strength, such as a turn or inverted colours; for long trainings.

    Source: Müller and Hutter, TrivialAugment, 2021 (arXiv:2103.10158).
    """
    from torchvision.transforms import v2

    steps: Augmentation = v2.Compose([_standard(px), v2.TrivialAugmentWide()])
    return steps


AUGMENTATIONS: dict[str, Callable[[int], Augmentation] | None] = {
    "none": None,  # as in validation
    "light": _light,
    "standard": _standard,
    "trivial": _trivial,
}
"""What can be done to training images, by the name in `params.yaml:train.augment`; add yours here.

A function takes the side of the result in pixels, and returns a function from one whole image, (channels, height,
width) uint8, to (channels, px, px) uint8. It may draw from torch's, Python's and NumPy's global random numbers, which
are those of seed, epoch and image.
"""


@dataclass(frozen=True)
class Normalise:
    """Turn uint8 pixels into float32 of about mean 0 and deviation 1, a channel at a time."""

    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]  # standard deviation, on the same scale

    def __call__(self, pixels: "Tensor") -> "Tensor":
        """Return float32 of the shape of `pixels`, (N, channels, px, px), on the same device."""
        import torch

        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in (self.mean, self.std))
        return pixels.sub(mean.to(pixels.device)).div_(std.to(pixels.device))

    @classmethod
    def of(cls, images: Iterable[np.ndarray]) -> "Normalise":
        """Measure (channels, px, px) uint8 images: from whole counts, so bit for bit the same on every machine."""
        counts: np.ndarray | int = 0  # (channels, 256)
        for image in images:
            counts = counts + np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
        mean, std = [], []
        for channel in np.atleast_2d(counts).tolist():
            total = sum(channel)
            middle = sum(value * count for value, count in enumerate(channel)) / total
            spread = (sum(count * (value - middle) ** 2 for value, count in enumerate(channel)) / total) ** 0.5
            mean.append(round(middle / 255, 6))
            std.append(round(max(spread, 1.0) / 255, 6))  # images of one colour have no spread to divide by
        return cls(tuple(mean), tuple(std))
