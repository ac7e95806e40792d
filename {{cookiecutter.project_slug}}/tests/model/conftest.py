"""A task that a network learns in a second: which half of a small image is bright."""

import io
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from {{ cookiecutter.package_name }}.model.dataset import Images

Halves = Callable[[int, int], Images]


@pytest.fixture
def halves() -> Halves:
    def make(count: int, seed: int) -> Images:
        random = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 100, (count, 1, 8, 8), dtype=torch.uint8, generator=random)
        labels = torch.arange(count) % 2
        pixels[labels == 0, :, :, :4] += 100
        pixels[labels == 1, :, :, 4:] += 100
        return Images(pixels, labels)

    return make


@pytest.fixture
def png() -> Callable[..., bytes]:
    def make(mode: str = "L", side: int = 8, colour: int | tuple[int, ...] = 0) -> bytes:
        file = io.BytesIO()
        Image.new(mode, (side, side), colour).save(file, "PNG")
        return file.getvalue()

    return make
