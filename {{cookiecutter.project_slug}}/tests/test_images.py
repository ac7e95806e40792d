"""Images that others send: they are shown right or refused, and nothing huge is decoded."""

import numpy as np
import pytest
from PIL import Image

from {{ cookiecutter.package_name }} import images
from {{ cookiecutter.package_name }}.images import ImageError, extension_of, open_image

from .conftest import encoded, png

GREY = Image.new("L", (8, 8), 0x80)
RIGHT = {
    **{f"{kind} {mode}": encoded(GREY.convert(mode), kind) for kind in images.FORMATS for mode in ("L", "RGB")},
    **{f"PNG {mode}": encoded(GREY.convert(mode), "PNG") for mode in ("LA", "P", "RGBA")},
    "PNG 16 bits": encoded(Image.fromarray(np.full((8, 8), 0x8000, np.uint16)), "PNG"),
}
REFUSED = {
    "cut short": (png(side=64)[:60], "is damaged or not an image"),
    "another format": (encoded(GREY, "EPS"), "is damaged or not an image in one of the formats BMP"),
    "float pixels": (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "has 32-bit.* save it with 8 or 16 bits"),
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT.keys())
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_open_image_half_grey_is_half_grey(content: bytes, mode: str) -> None:
    pixels = np.asarray(open_image(content).convert(mode)).astype(int)
    assert np.abs(pixels - 0x80).max() <= 2


@pytest.mark.parametrize(("content", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_open_image_that_cant_be_shown_right_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        open_image(content)


def test_image_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXELS", 63)
    for read in (open_image, extension_of):
        with pytest.raises(ImageError, match="has 8 x 8 pixels, more than 63"):
            read(png())
