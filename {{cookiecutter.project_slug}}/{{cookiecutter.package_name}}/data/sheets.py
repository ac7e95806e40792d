"""Contact sheets: one picture of what is in a split, a row of images per label."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..files import replacing
from ..images import open_image
from .manifest import FIRST, Summary
from .shards import read_shard

CELL, GAP, TEXT = 64, 4, 110
"""Pixels: side of an image, space between images, width of the labels."""
ACROSS, DOWN = FIRST, 40
"""Images per label, which makes 994 pixels (a DVC plots page shows 1,000); labels at most, the first in order."""


def draw(dataset: Path, manifest: Summary, split: str, path: Path) -> None:
    """Draw the first records, by id, of each label in a split, and write the sheet as PNG."""
    labels = [row["label"] for row in manifest.counts if row["split"] == split][:DOWN]
    sheet = Image.new("RGB", (TEXT + ACROSS * (CELL + GAP), GAP + len(labels) * (CELL + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for down, label in enumerate(labels):
        top = GAP + down * (CELL + GAP)
        pen.text((GAP, top + CELL // 2), _fit(label, font), "black", font, anchor="lm")
        shown = manifest.first.filter((pc.field("split") == split) & (pc.field("label") == label))
        for across, (record_id, image) in enumerate(_images(dataset, shown.slice(0, ACROSS))):
            sheet.paste(_cell(image, f"the image of record {record_id!r}"), (TEXT + across * (CELL + GAP), top))
    with replacing(path) as new:
        sheet.save(new, "png")


def _images(dataset: Path, rows: pa.Table) -> list[tuple[str, bytes]]:
    """Read the images of a few records, each with its id, from as few row groups as hold them."""
    ids: list[str] = rows["record_id"].to_pylist()
    found: dict[str, bytes] = {}
    for path in rows["path"].unique().to_pylist():
        table = read_shard(dataset / path, ["record_id", "image"], pc.field("record_id").isin(ids))
        found |= dict(zip(table["record_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return [(name, found[name]) for name in ids]


def _cell(content: bytes, name: str) -> Image.Image:
    """Bring an image to the size of a cell; a small one by a whole factor, so that its pixels can be seen."""
    picture = open_image(content, name).convert("RGB")
    picture = ImageOps.scale(picture, max(1, CELL // max(picture.size)), Image.Resampling.NEAREST)
    picture.thumbnail((CELL, CELL))
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while font.getlength(text) > TEXT - 2 * GAP:
        text = text.rstrip("…")[:-1] + "…"
    return text
