"""The splits in memory, decoded: what the training loop and the evaluation go through."""

from dataclasses import dataclass
from pathlib import Path

import torch
from mlops import ProjectError, read_split
from torch import Tensor

from ..images import ImageError
from .transforms import decode


@dataclass(frozen=True)
class Images:
    """Images with their labels: pixels (N, channels, px, px) uint8, labels (N,) int64, positions in the classes."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """The decoded splits, and the labels that the positions in them stand for."""

    classes: tuple[str, ...]
    channels: int  # of the images: 1 for gray, 3 for RGB
    train: Images
    val: Images
    test: Images


def read_dataset(directory: Path, channels: int | None, image_px: int) -> Dataset:
    """Read and decode the splits, to `image_px` pixels a side; the classes are the labels of `train`, sorted.

    With `channels` None, the images are gray if all of `train` are, else RGB.

    Raises:
        ProjectError: There is only one label to learn, a label of val or test can't have been learned, or an image is
            damaged.
    """
    tables = {split: read_split(directory / split) for split in ("train", "val", "test")}
    labels = {split: table["label"].to_pylist() for split, table in tables.items()}
    classes = tuple(sorted(set(labels["train"])))
    if len(classes) < 2:
        raise ProjectError(f"the training split has one label, {classes[0]!r}", "give records of two labels or more")
    for split, names in labels.items():
        if unseen := sorted(set(names) - set(classes)):
            raise ProjectError(
                f"{split} has labels that the training split lacks: {', '.join(map(repr, unseen))}",
                "change params.yaml:split.salt, or give more subjects with these labels",
            )
    position = {label: index for index, label in enumerate(classes)}
    images = {}
    for split, table in tables.items():
        try:
            pixels = decode(table["image"].to_pylist(), channels, image_px)
        except ImageError as error:
            raise ProjectError(f"{split}: {error}", "correct the source, then: dvc repro") from error
        channels = pixels.shape[1]  # train's, which comes first
        images[split] = Images(pixels, torch.tensor([position[label] for label in labels[split]]))
    return Dataset(classes, images["train"].pixels.shape[1], images["train"], images["val"], images["test"])
