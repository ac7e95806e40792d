"""What several tests use: your parameters with a small recipe, images, and a task that a network learns in a second."""

import io
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.model.dataset import ImageDataset
from {{ cookiecutter.package_name }}.model.transforms import Preprocess

ROOT = Path(__file__).parents[1]
OWN: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# The parameters of the training as they are in params.yaml, whatever you add there, but for a small recipe.
SMALL = {
    **OWN["train"],
    **{"arch": "small_cnn", "model": {}, "weights": None, "weights_file": None, "init_from": None, "image_px": 8},
    **{"epochs": 4, "batch_size": 64, "max_lr": 0.003, "seed": 0, "threads": 1, "processes": 1},
}


def halves(count: int, seed: int) -> ImageDataset:
    """Return gray images of two labels: which half is bright."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 100, (count, 1, 8, 8), dtype=torch.uint8, generator=random)
    labels = torch.arange(count) % 2
    pixels[labels == 0, :, :, :4] += 100
    pixels[labels == 1, :, :, 4:] += 100
    return images(pixels, labels)


def images(pixels: torch.Tensor, labels: torch.Tensor) -> ImageDataset:
    """Return images of pixels, (N, 1 or 3, px, px) uint8, with (N,) labels, as a small split has them."""
    mode, px = {1: "L", 3: "RGB"}[pixels.shape[1]], pixels.shape[2]
    arrays = pixels.permute(0, 2, 3, 1).squeeze(3).numpy()
    contents = [encoded(Image.fromarray(array, mode), "PNG") for array in arrays]
    dataset = ImageDataset(cast(Any, contents), labels, Preprocess(px, pixels.shape[1]))
    dataset.keep()
    return dataset


def png(mode: str = "L", side: int = 8, colour: int | tuple[int, ...] = 0) -> bytes:
    """Return an encoded image of one colour."""
    return encoded(Image.new(mode, (side, side), colour), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
