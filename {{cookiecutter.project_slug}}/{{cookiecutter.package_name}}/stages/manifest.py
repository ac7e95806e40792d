"""Stage `manifest`: what is in `data/dataset`, as a table, counts and pictures. Run it with `dvc repro manifest`."""

from collections.abc import Iterable
from pathlib import Path

from mlops import ProjectError, write_manifest, write_report
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from ..images import ImageError, open_image

DATASET_DIR = Path("data/dataset")
REPORTS_DIR = Path("reports")
CELL, GAP, TEXT = 64, 4, 110
"""Pixels: side of an image, space between images, width of the labels."""
ACROSS, DOWN = 13, 40
"""Images per label, which makes 994 pixels (a DVC plots page shows 1,000); labels at most, the first in order."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def main() -> None:
    """Make `data/manifest.parquet`, `reports/manifest.json`, `reports/labels.csv` and `reports/samples`.

    Raises:
        ProjectError: The dataset isn't there or is damaged.
    """
    manifest = write_manifest(DATASET_DIR, Path("data/manifest.parquet"))
    splits = dict.fromkeys(row["split"] for row in manifest.counts)
    for split in tqdm(splits, desc="Contact sheets", delay=2):
        labels = [row["label"] for row in manifest.counts if row["split"] == split][:DOWN]
        rows = ((label, manifest.first_records(split, label)[:ACROSS]) for label in labels)
        write_report(REPORTS_DIR / "samples" / f"{split}.png", contact_sheet(rows, len(labels)))
    write_report(REPORTS_DIR / "labels.csv", manifest.counts)
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the lists.
    content = {
        "records": manifest.records,
        "subjects": manifest.subjects,
        "counts": manifest.counts,
        "sha256": [manifest.sha256],
    }
    write_report(REPORTS_DIR / "manifest.json", content)
    print(f"{manifest.records} records of {manifest.subjects} subjects, see reports/samples")


def contact_sheet(rows: Iterable[tuple[str, list[tuple[str, bytes]]]], count: int) -> Image.Image:
    """Draw a row of images per label; `rows`, of which there are `count`, give each label's ids and encoded images."""
    sheet = Image.new("RGB", (TEXT + ACROSS * (CELL + GAP), GAP + count * (CELL + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for down, (label, images) in enumerate(rows):
        top = GAP + down * (CELL + GAP)
        pen.text((GAP, top + CELL // 2), _fit(label, font), "black", font, anchor="lm")
        for across, (record_id, image) in enumerate(images):
            try:
                sheet.paste(_cell(image), (TEXT + across * (CELL + GAP), top))
            except ImageError as error:
                problem = f"the image of record {record_id!r} {error}"
                raise ProjectError(problem, "correct the source, then: dvc repro") from error
    return sheet


def _cell(content: bytes) -> Image.Image:
    """Bring an image to the size of a cell; a small one by a whole factor, so that its pixels can be seen."""
    picture = open_image(content).convert("RGB")
    picture = ImageOps.scale(picture, max(1, CELL // max(picture.size)), Image.Resampling.NEAREST)
    picture.thumbnail((CELL, CELL))
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell


def _fit(text: str, font: Font) -> str:
    while font.getlength(text) > TEXT - 2 * GAP:
        text = text.rstrip("…")[:-1] + "…"
    return text
