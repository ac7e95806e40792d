"""Draw scans of patients who do not exist, and list them in `data/raw/records.csv`, for healthcare-walkthrough.md.

In a project's root: `python docs/healthcare-images.py`. It draws the same scans every time.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

RAW = Path("data/raw")
PATIENTS = 100


def draw_scan(random: np.random.Generator, nodule: bool) -> Image.Image:
    """Return a gray picture of two lungs, 32 x 32 pixels, one of them with a bright spot if there is to be a nodule."""
    image = Image.new("L", (32, 32), 150)
    pen = ImageDraw.Draw(image)
    pen.ellipse((3, 4, 14, 28), fill=60)
    pen.ellipse((18, 4, 29, 28), fill=60)
    if nodule:
        x, y = random.choice((9, 24)) + random.uniform(-2, 2), random.uniform(9, 23)
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=220)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))) + random.normal(0, 12, (32, 32))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Draw three to six scans of each patient; a nodule may be there from the start, come later, or never."""
    random = np.random.default_rng(0)
    (RAW / "scans").mkdir(parents=True)
    with (RAW / "records.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("record_id", "subject_id", "label", "path"))
        for patient in range(1, PATIENTS + 1):
            onset = random.integers(0, 8)
            for visit in range(random.integers(3, 7)):
                name, nodule = f"scan-{patient:03}-{visit + 1}", bool(visit >= onset)
                draw_scan(random, nodule).save(RAW / f"scans/{name}.png")
                label = "nodule" if nodule else "clear"
                writer.writerow((name, f"patient-{patient:03}", label, f"scans/{name}.png"))


if __name__ == "__main__":
    main()
