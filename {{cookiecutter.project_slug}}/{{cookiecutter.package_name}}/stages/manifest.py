"""Stage `manifest`: what is in `data/dataset`, as a table, counts and pictures. Run it with `dvc repro manifest`."""

from collections.abc import Iterable
from pathlib import Path

from mlops import ProjectError, write_manifest, write_report
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..images import ImageError
from ..pictures import shorten, thumbnail

DATASET_DIR = Path("data/dataset")
REPORTS_DIR = Path("reports")
CELL, GAP, TEXT = 64, 4, 110
"""Pixels: side of an image, space between images, width of the labels."""
ACROSS, DOWN = 13, 40
"""Images per label, which makes 994 pixels (a DVC plots page shows 1,000); labels at most, the first in order."""


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
        pen.text((GAP, top + CELL // 2), shorten(label, font, TEXT - 2 * GAP), "black", font, anchor="lm")
        for across, (record_id, image) in enumerate(images):
            try:
                sheet.paste(thumbnail(image, CELL), (TEXT + across * (CELL + GAP), top))
            except ImageError as error:
                problem = f"the image of record {record_id!r} {error}"
                raise ProjectError(problem, "correct the source, then: dvc repro") from error
    return sheet
