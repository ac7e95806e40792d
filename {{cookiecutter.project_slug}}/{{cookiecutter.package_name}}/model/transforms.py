"""From encoded images to the numbers that a network sees: the same way in training and in serving."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..images import ImageError, open_image


def decode(images: Sequence[bytes], channels: int | None, image_px: int) -> Tensor:
    """Decode and resize images, once: all of them stay in memory, N x channels x image_px² bytes.

    (50,000 RGB images of 32 px: 154 MB; 10,000 of 224 px: 1.5 GB.) Images that aren't square are squeezed.

    Args:
        images: Encoded images, in the formats of `images.py:FORMATS`.
        channels: 1 for gray, 3 for RGB; None for 1 if all of the images are gray, else 3.
        image_px: Width and height of the result, pixels.

    Returns:
        (N, channels, image_px, image_px), uint8.

    Raises:
        ImageError: One of them can't be read as an image.
    """
    pixels = np.empty((len(images), channels or 1, image_px, image_px), dtype=np.uint8)
    for index, image in enumerate(tqdm(images, desc="decode", unit="image", delay=2)):
        try:
            planes = _decode_one(image, channels, image_px)
        except ImageError as error:
            raise ImageError(f"image {index + 1} of {len(images)} can't be read: it {error}") from error
        if len(planes) > pixels.shape[1]:  # the first in colour
            pixels, channels = np.repeat(pixels, 3, axis=1), 3
        pixels[index] = planes
    return torch.from_numpy(pixels)


def _decode_one(content: bytes, channels: int | None, image_px: int) -> np.ndarray:
    image = open_image(content)
    image = image.convert({None: image.mode, 1: "L", 3: "RGB"}[channels])
    image = image.resize((image_px, image_px), Image.Resampling.BILINEAR)
    planes = np.asarray(image).reshape(image_px, image_px, -1).transpose(2, 0, 1)
    return planes[:1] if channels is None and (planes == planes[0]).all() else planes


@dataclass(frozen=True)
class Preprocess:
    """Turn an encoded image into (channels, image_px, image_px) uint8."""

    image_px: int
    channels: int
    resize: str = "squeeze"
    resize_px: int | None = None
    interpolation: str = "bilinear"

    def __call__(self, content: bytes) -> np.ndarray:
        """Return an image as (channels, px, px) uint8."""
        return _decode_one(content, self.channels, self.image_px)


def augment(pixels: Tensor) -> Tensor:
    """Change a batch of training images, (N, channels, px, px) uint8, before it is normalised: here, nothing.

    Validation, test and serving never come here.
    """
    return pixels


@dataclass(frozen=True)
class Normalise:
    """Turn uint8 pixels into float32 of about mean 0 and deviation 1, a channel at a time."""

    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]  # standard deviation, on the same scale

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 of the shape of `pixels`, (N, channels, px, px)."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in (self.mean, self.std))
        return pixels.sub(mean).div_(std)

    @classmethod
    def of(cls, pixels: Tensor) -> "Normalise":
        """Measure (N, channels, px, px) uint8 pixels: from whole counts, so bit for bit the same on every machine."""
        mean, std = [], []
        for channel in pixels.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).tolist()
            total = sum(counts)
            middle = sum(value * count for value, count in enumerate(counts)) / total
            spread = (sum(count * (value - middle) ** 2 for value, count in enumerate(counts)) / total) ** 0.5
            mean.append(round(middle / 255, 6))
            std.append(round(max(spread, 1.0) / 255, 6))  # images of one colour have no spread to divide by
        return cls(tuple(mean), tuple(std))


IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What torchvision's ImageNet weights were trained with. Source: torchvision.transforms._presets."""
