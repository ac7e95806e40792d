"""Open encoded images: which formats are taken, how large they may be, and what their pixels mean.

Everything that opens an image does it here, so that `prepare` refuses what training or serving can't use. This module
travels with a registered model.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

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
ORIENTATION = 274  # of EXIF


class ImageError(ValueError):
    """An image that can't be used; the message begins with a verb: `is damaged …`."""


def open_image(content: bytes, shrink: bool = False) -> Image.Image:
    """Decode an encoded image whole, to what a viewer shows: upright, in sRGB, on white where it is transparent.

    A colour profile that is damaged or made for other pixels is ignored, as browsers do: the picture is then as good as
    that of a file without one.

    Args:
        content: A file in one of `FORMATS`.
        shrink: Make an eighth of a JPEG's size: the same damage is seen, in less time.

    Returns:
        An image in mode L, if its file holds shades of gray, or RGB.

    Raises:
        ImageError: It is damaged, in another format, larger than `PIXELS`, or what it shows isn't clear: it has
            several pages, only transparent pixels, or pixels without 8 or 16 bits.
    """
    with _pillow_errors():
        image = _identify(content)
        if shrink:
            image.draft(image.mode, (1, 1))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        # Pillow compares a transparent colour of other than 8 bits with pixels of 8. Byte 24 of a PNG says how many.
        if image.format == "PNG" and image.mode != "P" and "transparency" in image.info and content[24] not in (1, 8):
            raise ImageError("has a transparent colour of other than 8 bits: save it with an alpha channel")
        picture = _with_8_bits(image)
        mode = "L" if picture.mode == "L" else "RGB"
        if transform := _srgb_transform(image.info.get("icc_profile"), picture.mode):
            picture = transform.apply(picture)
        return picture if picture.mode == mode else picture.convert(mode)


def extension_of(content: bytes) -> str:
    """Return the file extension of an encoded image, such as `png`, from its first bytes.

    Raises:
        ImageError: It is in none of `FORMATS`, larger than `PIXELS`, or has several pages.
    """
    with _pillow_errors():
        name = str(_identify(content).format)
    return "jpeg" if name == "MPO" else name.lower()


def size_of(content: bytes) -> tuple[int, int]:
    """Return width and height of an encoded image as it is stored, from its first bytes; errors as `extension_of`."""
    with _pillow_errors():
        return _identify(content).size


def is_stored_gray(content: bytes) -> bool:
    """Return whether an encoded image has no colours, from its first bytes; errors as `extension_of`."""
    with _pillow_errors():
        return _identify(content).mode in ("1", "L")


def plain_jpeg_mode(content: bytes) -> str | None:
    """Return L or RGB for a JPEG that `open_image` only decodes: upright, and with no colours to convert; else None."""
    with suppress(*DAMAGED, ImageError), _pillow_errors():
        image = _identify(content)
        upright = image.format == "JPEG" and image.mode in ("L", "RGB") and image.getexif().get(ORIENTATION, 1) == 1
        if upright and not _srgb_transform(image.info.get("icc_profile"), image.mode):
            return image.mode
    return None


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
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # phones put a second picture behind a JPEG
        raise ImageError(f"has {pages} pages or frames: save the one that counts as a file of its own")
    return image


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Bring an image to mode L, RGB or CMYK."""
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
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode == "La":
        image = image.convert("LA")  # Pillow's only way on from there
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        if alpha.max() == 0:
            raise ImageError("is transparent all over: save it without transparency")
        if alpha.min() < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in (mode, "CMYK") else image.convert(mode)


@lru_cache(maxsize=8)
def _srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns colours of a profile into sRGB's; None if they are sRGB's already, or it is of no use."""
    try:
        transform = ImageCms.buildTransform(io.BytesIO(profile or b""), ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    colours = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)).convert(mode)
    change = np.asarray(transform.apply(colours), dtype=int) - np.asarray(colours.convert("RGB"))
    return transform if np.abs(change).max() > 3 else None  # the profiles called sRGB differ by 1 of 255 (measured)
