"""Open encoded images: which formats are taken, how large they may be, and what their pixels mean.

Everything that opens an image does it here, so that `prepare` refuses what training or serving can't use. This module
travels with a registered model.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What is opened. Pillow knows many more, among them EPS, for which it starts Ghostscript."""
PIXELS = 89_478_485
"""Pixels of one image at most. Source: PIL.Image.MAX_IMAGE_PIXELS, above which Pillow only warns."""

# What Pillow raises for bytes that it can't decode, with broken tags of TIFF and EXIF.
DAMAGED: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
DAMAGED += (Image.DecompressionBombWarning,)  # where warnings are errors
DAMAGED += (TypeError, LookupError, ArithmeticError, struct.error)
# Tags of TIFF, and one value of each of the last two.
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2


class ImageError(ValueError):
    """An image that can't be used; the message begins with a verb: `is damaged …`."""


def open_image(content: bytes) -> Image.Image:
    """Decode an encoded image whole, and turn it upright as its EXIF data says.

    Args:
        content: A file in one of `FORMATS`.

    Returns:
        An image with 8 bits a channel, in a mode from which `convert()` to `L` and to `RGB` is right.

    Raises:
        ImageError: It is damaged, in another format, larger than `PIXELS`, or its pixels have no 8 or 16 bits.
    """
    with _pillow_errors():
        image = _identify(content)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _with_8_bits(image)


def extension_of(content: bytes) -> str:
    """Return the file extension of an encoded image, such as `png`, from its first bytes.

    Raises:
        ImageError: It is in none of `FORMATS`, or larger than `PIXELS`.
    """
    with _pillow_errors():
        name = str(_identify(content).format)
    return "jpeg" if name == "MPO" else name.lower()  # phones put a second picture behind a JPEG


def encode_png(pixels: Any) -> bytes:
    """Encode an array of bytes, (height, width) in grey or (height, width, 3) in colour, as PNG, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@contextmanager
def _pillow_errors() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its text is the address of the bytes
        raise ImageError(f"is damaged or not an image in one of the formats {', '.join(FORMATS)}") from error
    except DAMAGED as error:
        raise ImageError(f"is damaged or not an image: {error}") from error


def _identify(content: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise ImageError(f"has {image.width} x {image.height} pixels, more than {PIXELS}")
    return image


def _with_8_bits(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", None)  # a TIFF's
    # convert() would clip I and F at 0 and 255, to all black or all white; signed bytes are read as unsigned ones.
    if image.mode in ("I", "F") or (tags and SIGNED in tags.get(SAMPLE_FORMAT, ())):
        raise ImageError(
            "has 32-bit, signed or float pixels, which don't say what is black and what is white: "
            "save it with 8 or 16 bits a channel"
        )
    if image.mode.startswith("I;16"):
        bits = tags[BITS_PER_SAMPLE][0] if tags else 16  # 12 bits are held in 16, unscaled
        values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        # Of 8 bits, Pillow inverts such values itself.
        return Image.fromarray(255 - values if tags and tags.get(PHOTOMETRIC, 0) == WHITE_IS_ZERO else values)
    if image.mode in ("La", "LAB"):  # from which Pillow has no way to both L and RGB
        return image.convert({"La": "LA", "LAB": "RGB"}[image.mode])
    return image
