"""Pieces of the pages that show records: a small picture of an image, and a text that fits beside it."""

from PIL import Image, ImageFont, ImageOps

from .images import open_image

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def thumbnail(content: bytes, side: int) -> Image.Image:
    """Fit an encoded image into a square of `side` pixels; a small one by a whole factor, so that its pixels are seen.

    Raises:
        ImageError: It can't be used.
    """
    picture = open_image(content).convert("RGB")
    picture = ImageOps.scale(picture, max(1, side // max(picture.size)), Image.Resampling.NEAREST)
    picture.thumbnail((side, side))
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def shorten(text: str, font: Font, width: float) -> str:
    """Cut a text to a width in pixels."""
    while font.getlength(text) > width:
        text = text.rstrip("…")[:-1] + "…"
    return text
