"""The splits as training sees them: which images are decoded, how, and which are kept in memory."""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from mlops import ContentDataset, Contents, open_labelled
from PIL import Image
from torch import Tensor

from ..images import is_stored_gray, open_image, plain_jpeg_mode, size_of
from .transforms import AUGMENTATIONS, MODES, Preprocess

KEEP_BYTES = 1 << 28  # of decoded images, at most, that `cache: auto` keeps in each process
MEASURED = 2048  # images by which colours are measured, at most


class ImageDataset(ContentDataset):
    """The images of a split, (channels, px, px) uint8, with their labels, as positions in the classes.

    Args:
        contents: The encoded images.
        labels: (N,) int64.
        preprocess: What makes an image of a content, where it isn't augmented.
        augment: A key of `AUGMENTATIONS`; what it changes are whole images.
    """

    def __init__(self, contents: Contents, labels: Tensor, preprocess: Preprocess, augment: str = "none") -> None:
        self.preprocess = preprocess
        make = AUGMENTATIONS[augment]
        whole = partial(decode, channels=preprocess.channels or 3)
        super().__init__(contents, labels, whole if make else self._prepare, make and make(preprocess.image_px))

    def _prepare(self, content: bytes) -> Tensor:
        return torch.from_numpy(self.preprocess(content))

    def decoded_bytes(self, most: int) -> int:
        """Return how many bytes the decoded images take; of more than `most`, any number above it."""
        channels = self.preprocess.channels or 3
        if not self.augment:
            return len(self) * channels * self.preprocess.image_px**2
        size = 0
        for index in range(len(self)):
            size += channels * int(np.prod(self.read(index, size_of)))
            if size > most:
                break
        return size

    def measured(self) -> Iterator[np.ndarray]:
        """Yield images without augmentation, by which colours are measured: all, or evenly spaced ones of many."""
        count = min(len(self), MEASURED)
        indices = [index * len(self) // count for index in range(count)]
        if self.in_memory and not self.augment:
            return (self[index][0].numpy() for index in indices)
        return self.each(indices, self.preprocess, "measure")


@dataclass(frozen=True)
class Dataset:
    """The splits, and the labels that the positions in them stand for."""

    classes: tuple[str, ...]
    channels: int  # of the images: 1 for gray, 3 for RGB
    train: ImageDataset
    val: ImageDataset
    test: ImageDataset


def read_dataset(directory: Path, preprocess: Preprocess, augment: str = "none", cache: str = "auto") -> Dataset:
    """Open the splits; the classes are the labels of `train`, sorted.

    Args:
        directory: `data/dataset`.
        preprocess: Makes images of contents. With `channels` None, they are gray if all of `train` are, else RGB.
        augment: A key of `AUGMENTATIONS`, for `train`.
        cache: What stays decoded of `train` and `val`: `memory` all, `auto` what takes `KEEP_BYTES`, `none` nothing.

    Raises:
        ProjectError: There is only one label to learn, a label of val or test can't have been learned, or an image is
            damaged.
    """
    classes, splits = open_labelled(directory)
    if preprocess.channels is None:
        train = ImageDataset(*splits["train"], preprocess)
        gray = all(train.each(range(len(train)), partial(_is_gray, preprocess), "gray or colour"))
        preprocess = replace(preprocess, channels=1 if gray else 3)
    train = ImageDataset(*splits["train"], preprocess, augment)
    val, test = (ImageDataset(*splits[name], preprocess) for name in ("val", "test"))
    left = KEEP_BYTES
    for split in (train, val) if cache != "none" else ():
        if cache == "memory" or (size := split.decoded_bytes(left)) <= left:
            split.keep()
            left -= 0 if cache == "memory" else size
    return Dataset(classes, preprocess.channels or 3, train, val, test)


def _is_gray(preprocess: Preprocess, content: bytes) -> bool:
    """Return whether an image is gray, be it stored in colour."""
    if is_stored_gray(content):
        return True
    red, green, blue = replace(preprocess, channels=3)(content)
    return bool((red == green).all() and (red == blue).all())


def decode(content: bytes, channels: int) -> Tensor:
    """Return a whole image, (channels, height, width) uint8: `open_image`'s bits, faster where torchvision has them."""
    mode = plain_jpeg_mode(content)
    if mode and (mode == MODES[channels] or channels == 3) and _decoders_agree():
        with suppress(RuntimeError):  # a damaged one: Pillow says how
            return _decode_by_torchvision(content).expand(channels, -1, -1)
    pixels = np.array(open_image(content).convert(MODES[channels]))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _decode_by_torchvision(content: bytes) -> Tensor:
    from torchvision.io import decode_jpeg  # 1 s, which only augmented trainings pay

    return cast(Tensor, decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)))


@cache
def _decoders_agree() -> bool:
    """Return whether torchvision and Pillow, which bring a libjpeg each, decode some images to the same bits here."""
    noise = np.random.default_rng(0).integers(0, 256, (67, 45, 3), dtype=np.uint8)
    for mode, quality, progressive in (("RGB", 75, False), ("RGB", 95, True), ("L", 75, False)):
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG", quality=quality, progressive=progressive)
        try:
            planes = _decode_by_torchvision(file.getvalue()).permute(1, 2, 0).squeeze()
        except (ImportError, RuntimeError):  # this torchvision has no decoder
            return False
        if not np.array_equal(planes, np.asarray(open_image(file.getvalue()))):
            return False
    return True
