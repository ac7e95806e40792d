"""Images that others send: which formats are opened, how large they may be, and what their pixels mean.

Everything that opens an encoded image does it here, so that `prepare` refuses what training or serving can't use.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ProjectError

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What is opened. Pillow knows many more, among them EPS, for which it starts Ghostscript."""
PIXELS = 89_478_485
"""Pixels of one image at most. Source: PIL.Image.MAX_IMAGE_PIXELS, above which Pillow only warns."""

FIX = f"give a whole file in one of the formats {', '.join(FORMATS)}, with 8 or 16 bits a channel"
# What Pillow raises for bytes that it can't make sense of; the second line is for broken tags of TIFF and EXIF.
DAMAGED: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
DAMAGED += (Image.DecompressionBombWarning,)  # where warnings are errors
DAMAGED += (TypeError, LookupError, ArithmeticError, struct.error)
# Tags of TIFF, and one value of each of the last two.
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2


def open_image(content: bytes, name: str) -> Image.Image:
    """Decode an encoded image whole, and turn it as its EXIF data says: as people see it.

    Args:
        content: A file in one of `FORMATS`.
        name: What the image is called in errors, where a verb follows it.

    Returns:
        An image with 8 bits a channel, in a mode from which `convert()` to `L` and to `RGB` is right.

    Raises:
        ProjectError: It is damaged, in another format, larger than `PIXELS`, or its pixels have no 8 or 16 bits.
    """
    with _pillow_errors(name):
        image = _identify(content, name)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _with_8_bits(image, name)


def format_of(content: bytes, name: str) -> str:
    """Return which of `FORMATS` an encoded image has, without decoding it.

    Raises:
        ProjectError: None of them, or it is larger than `PIXELS`; `name` as in `open_image`.
    """
    with _pillow_errors(name):
        kind = str(_identify(content, name).format)
    return "JPEG" if kind == "MPO" else kind  # phones put a second picture behind a JPEG


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:  # its text is the address of the bytes
        problem = f"{name} is damaged or not an image in one of the formats {', '.join(FORMATS)}"
        raise ProjectError(problem, FIX) from error
    except DAMAGED as error:
        raise ProjectError(f"{name} is damaged or not an image: {error}", FIX) from error


def _identify(content: bytes, name: str) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise ProjectError(f"{name} has {image.width} x {image.height} pixels, more than {PIXELS}", "make it smaller")
    return image


def _with_8_bits(image: Image.Image, name: str) -> Image.Image:
    tags = getattr(image, "tag_v2", None)  # a TIFF's
    # convert() would clip I and F at 0 and 255, to all black or all white; signed bytes are read as unsigned ones.
    if image.mode in ("I", "F") or (tags and SIGNED in tags.get(SAMPLE_FORMAT, ())):
        raise ProjectError(
            f"{name} has 32-bit, signed or float pixels, which don't say what is black and what is white: "
            "save it with 8 or 16 bits a channel",
            FIX,
        )
    if image.mode.startswith("I;16"):
        bits = tags[BITS_PER_SAMPLE][0] if tags else 16  # 12 bits are held in 16, unscaled
        values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        # Of 8 bits, Pillow inverts such values itself.
        return Image.fromarray(255 - values if tags and tags.get(PHOTOMETRIC, 0) == WHITE_IS_ZERO else values)
    if image.mode in ("La", "LAB"):  # from which Pillow has no way to both L and RGB
        return image.convert({"La": "LA", "LAB": "RGB"}[image.mode])
    return image
