"""What several tests use: your parameters with a small recipe, images, and a task that a network learns in a second."""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.model.dataset import Images

ROOT = Path(__file__).parents[1]
OWN: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# The parameters of the training as they are in params.yaml, whatever you add there, but for a small recipe.
SMALL = {
    **OWN["train"],
    **{"arch": "small_cnn", "arch_options": {}, "weights": None, "init_from": None, "image_px": 8, "epochs": 4},
    **{"batch_size": 64, "max_lr": 0.003, "weight_decay": 0.0001, "seed": 0, "threads": 1, "processes": 1},
}


def halves(count: int, seed: int) -> Images:
    """Return images of two labels: which half is bright."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 100, (count, 1, 8, 8), dtype=torch.uint8, generator=random)
    labels = torch.arange(count) % 2
    pixels[labels == 0, :, :, :4] += 100
    pixels[labels == 1, :, :, 4:] += 100
    return Images(pixels, labels)


def png(mode: str = "L", side: int = 8, colour: int | tuple[int, ...] = 0) -> bytes:
    """Return an encoded image of one colour."""
    return encoded(Image.new(mode, (side, side), colour), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
