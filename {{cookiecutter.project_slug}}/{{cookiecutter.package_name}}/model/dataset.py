"""The splits as map-style datasets: images are read from the shards one by one; those of small splits are kept.

What is kept is decoded once, before the training. It makes it faster and never changes a bit.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from mlops import Contents, ProjectError, open_split
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from ..images import ImageError, is_stored_gray, open_image, plain_jpeg_mode, size_of
from .transforms import AUGMENTATIONS, MODES, Preprocess

KEEP_BYTES = 1 << 30  # of decoded images, at most, that `cache: auto` keeps in each process
MEASURED = 2048  # images by which colours are measured, at most
THREADS = 8  # that decode before the training, at most
T = TypeVar("T")


class ImageDataset(TorchDataset[tuple[Tensor, int]]):
    """The images of a split, (channels, px, px) uint8, with their labels, as positions in the classes.

    Args:
        contents: The encoded images.
        labels: (N,) int64.
        preprocess: What makes an image of a content, where it isn't augmented.
        augment: A key of `AUGMENTATIONS`.
    """

    def __init__(self, contents: Contents, labels: Tensor, preprocess: Preprocess, augment: str = "none") -> None:
        self.contents, self.labels, self.preprocess = contents, labels, preprocess
        make = AUGMENTATIONS[augment]
        self._augment = make(preprocess.image_px) if make else None
        self._kept: Tensor | list[Tensor] | None = None

    @property
    def random(self) -> bool:
        """Whether an item draws random numbers."""
        return self._augment is not None

    @property
    def in_memory(self) -> bool:
        """Whether images are decoded already."""
        return self._kept is not None

    @property
    def record_ids(self) -> Sequence[str]:
        """The records' ids."""
        return self.contents.record_ids

    @property
    def subject_ids(self) -> Sequence[str]:
        """The ids of whom the records are of."""
        return self.contents.subject_ids

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its label.

        Raises:
            ProjectError: It is damaged.
        """
        image = self._decode(index) if self._kept is None else self._kept[index]
        return self._augment(image) if self._augment else image, int(self.labels[index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return several images at once, (N, channels, px, px), and their labels, (N,)."""
        if isinstance(self._kept, Tensor):
            return self._kept[indices], self.labels[indices]
        images, labels = zip(*(self[index] for index in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def keep(self, most: int | None) -> int:
        """Decode all images and keep them, if they take `most` bytes or less; return how many they take."""
        channels, px = self.preprocess.channels or 3, self.preprocess.image_px
        size = 0
        if not self._augment:
            size = len(self) * channels * px * px
        elif most is not None:  # whole images are kept then: what their headers say
            for index in range(len(self)):
                size += channels * int(np.prod(self._read(index, size_of)))
                if size > most:
                    break
        if most is not None and size > most:
            return 0
        decoded = _each(self._decode, range(len(self)), "decode")
        if self._augment:
            self._kept = list(decoded)
        else:
            kept = torch.empty((len(self), channels, px, px), dtype=torch.uint8)
            for index, image in enumerate(decoded):
                kept[index] = image
            self._kept = kept
        return size

    def measured(self) -> Iterator[np.ndarray]:
        """Yield images without augmentation, by which colours are measured: all, or evenly spaced ones of many."""
        count = min(len(self), MEASURED)
        indices = [index * len(self) // count for index in range(count)]
        if isinstance(self._kept, Tensor):
            return (self._kept[index].numpy() for index in indices)
        return _each(lambda index: self._read(index, self.preprocess), indices, "measure")

    def is_gray(self, index: int) -> bool:
        """Return whether an image is gray, be it stored in colour."""
        content = self.contents[index]
        if is_stored_gray(content):
            return True
        red, green, blue = self._read(index, replace(self.preprocess, channels=3))
        return bool((red == green).all() and (red == blue).all())

    def _decode(self, index: int) -> Tensor:
        if self._augment:
            return self._read(index, lambda content: decode(content, self.preprocess.channels or 3))
        return torch.from_numpy(self._read(index, self.preprocess))

    def _read(self, index: int, function: Callable[[bytes], T]) -> T:
        try:
            return function(self.contents[index])
        except ImageError as error:
            problem = f"the image of record {self.record_ids[index]!r} {error}"
            raise ProjectError(problem, "correct the source, then: dvc repro") from error


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
        cache: `memory` keeps all images decoded, `auto` splits of `KEEP_BYTES` together, `none` nothing.

    Raises:
        ProjectError: There is only one label to learn, a label of val or test can't have been learned, or an image is
            damaged.
    """
    opened = {split: open_split(directory / split) for split in ("train", "val", "test")}
    classes = tuple(opened["train"].labels.unique())
    if len(classes) < 2:
        raise ProjectError(f"the training split has one label, {classes[0]!r}", "give records of two labels or more")
    for split, contents in opened.items():
        if unseen := sorted(set(contents.labels.unique()) - set(classes)):
            raise ProjectError(
                f"{split} has labels that the training split lacks: {', '.join(map(repr, unseen))}",
                "change params.yaml:split.salt, or give more subjects with these labels",
            )

    def dataset(split: str, augment: str = "none") -> ImageDataset:
        labels = torch.from_numpy(opened[split].labels.positions(classes))
        return ImageDataset(opened[split], labels, preprocess, augment)

    if preprocess.channels is None:
        gray = _each(dataset("train").is_gray, range(len(opened["train"])), "gray or colour")
        preprocess = replace(preprocess, channels=1 if all(gray) else 3)
    train, val, test = dataset("train", augment), dataset("val"), dataset("test")
    left = KEEP_BYTES
    for images in (train, val, test) if cache != "none" else ():
        left -= images.keep(left if cache == "auto" else None)
    return Dataset(classes, preprocess.channels or 3, train, val, test)


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


def _each(function: Callable[[int], T], indices: Sequence[int], title: str) -> Iterator[T]:
    """Yield what a function gives for each index, in order, by several threads: Pillow runs beside itself."""
    waiting = iter(tqdm(indices, title, unit="image", delay=2))
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        while some := list(islice(waiting, 256)):
            yield from pool.map(function, some)
