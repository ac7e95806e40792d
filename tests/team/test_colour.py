"""Gray or colour: what the images are, and what a model makes of images of the other kind."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from team import interface
from team.model.networks import build
from team.model.predictor import ModelConfig, Predictor
from team.model.transforms import decode

GRAY, RED = Image.new("L", (8, 8), 0x80), Image.new("RGB", (8, 8), (200, 0, 0))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_decode_of_gray_images_is_one_channel_however_they_are_stored() -> None:
    shades = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 13), np.uint8))
    stored = [png(shades.convert(mode)) for mode in ("L", "LA", "RGB", "RGBA")]
    pixels = decode(stored, None, 8)
    assert torch.equal(pixels, decode(stored, 1, 8))
    assert torch.equal(pixels, pixels[:1].expand(4, 1, 8, 8))


@pytest.mark.parametrize("place", range(3))
def test_decode_of_one_image_in_colour_is_three_channels_of_all(place: int) -> None:
    images = [png(GRAY), png(GRAY.convert("RGB"))]
    images.insert(place, png(RED))
    pixels = decode(images, None, 8)
    assert torch.equal(pixels, decode(images, 3, 8))
    assert pixels[place, :, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_takes_gray_and_colour_whatever_the_model_learned_from(channels: int, tmp_path: Path) -> None:
    figures = (0.5,) * channels
    config = ModelConfig(
        arch="small_cnn", classes=("no", "yes"), image_px=8, channels=channels, mean=figures, std=figures
    )
    model = Predictor(build("small_cnn", 2, channels, None), config)
    gray, same, red, _ = model.probabilities([png(GRAY), png(GRAY.convert("RGB")), png(RED), interface.example(model)])
    assert np.array_equal(gray, same)
    shade = model.probabilities([png(RED.convert("L"))])[0]
    assert np.array_equal(red, shade) == (channels == 1)
