"""From encoded images to a network's numbers."""

from typing import Any

import numpy as np
import pytest
import torch

from {{ cookiecutter.package_name }}.images import ImageError
from {{ cookiecutter.package_name }}.model.transforms import AUGMENTATIONS, Normalise, Preprocess

from ..conftest import png


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["squeeze", "crop", "preset"])
def test_preprocess_any_mode_gives_the_channels_asked_for(mode: str, channels: int, resize: Any) -> None:
    pixels = Preprocess(8, channels, resize, 10)(png(mode, 5))
    assert (pixels.shape, pixels.dtype) == ((channels, 8, 8), np.uint8)


@pytest.mark.parametrize("keep", [0, 5, 60], ids=["empty", "no image", "cut short"])
def test_preprocess_damaged_image_is_refused(keep: int) -> None:
    with pytest.raises(ImageError, match="is damaged or not an image"):
        Preprocess(8, 1)(png(side=64)[:keep])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_gives_images_of_the_size(name: str) -> None:
    make = AUGMENTATIONS[name]
    for channels, side in ((1, 8), (3, 40)) if make else ():
        image = make(16)(torch.randint(0, 256, (channels, side, side), dtype=torch.uint8))
        assert (image.shape, image.dtype) == ((channels, 16, 16), torch.uint8)


def test_normalise_of_images_gives_mean_0_and_deviation_1() -> None:
    pixels = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalised = Normalise.of(pixels.numpy())(pixels)
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-3
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 1e-3
