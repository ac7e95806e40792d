"""From encoded images to a network's numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from {{ cookiecutter.package_name }}.images import ImageError
from {{ cookiecutter.package_name }}.model.transforms import Normalise, decode

from ..conftest import encoded, png


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_decode_any_mode_gives_the_channels_asked_for(mode: str, channels: int | None) -> None:
    pixels = decode([png(mode, 5)], channels, 8)
    assert pixels.shape == (1, channels or 1, 8, 8), "all of them are gray"
    assert pixels.dtype == torch.uint8


def test_decode_image_of_that_size_keeps_its_pixels() -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode([encoded(Image.fromarray(values), "PNG")], 1, 8)[0, 0], values)


@pytest.mark.parametrize("keep", [0, 5, 60], ids=["empty", "no image", "cut short"])
def test_decode_damaged_image_is_named(keep: int) -> None:
    with pytest.raises(ImageError, match="image 2 of 2 can't be read: it is damaged or not an image"):
        decode([png(), png(side=64)[:keep]], 1, 8)


def test_normalise_of_images_gives_mean_0_and_deviation_1() -> None:
    pixels = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalised = Normalise.of(pixels)(pixels)
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-3
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_normalise_of_one_colour_stays_finite() -> None:
    pixels = torch.full((4, 1, 8, 8), 7, dtype=torch.uint8)
    assert Normalise.of(pixels)(pixels).isfinite().all()
