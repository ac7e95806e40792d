"""Contact sheets: every label has its row, and pixels stay visible."""

from pathlib import Path

import numpy as np
from PIL import Image

from mlops.records import manifest, shards
from {{ cookiecutter.package_name }}.data import sheets
from mlops.records.source import Record, png


def test_draw_sheet_has_a_row_per_label_and_enlarged_pixels(tmp_path: Path) -> None:
    def part(labels: str, shape: tuple[int, ...]) -> list[Record]:
        image = png(np.full(shape, 90, dtype="uint8"))
        pairs = ((label, n) for label in labels for n in range(20))
        return [Record(f"{shape}-{label}-{n:03}", "s", label * 60, lambda: image, "") for label, n in pairs]

    shards.write({"train": part("ab", (8, 8)), "val": part("a", (300, 150, 3)), "test": part("b", (8, 8))}, 2, tmp_path)
    found = manifest.write(manifest.build(tmp_path), tmp_path / "manifest.parquet")
    for split in ("train", "val", "test"):
        sheets.render(tmp_path, found, split, tmp_path / f"{split}.png")
    train = Image.open(tmp_path / "train.png")
    assert train.size == (994, sheets.GAP + 2 * (sheets.CELL + sheets.GAP))
    grey = np.asarray(train.convert("L")) == 90
    assert grey[:, sheets.TEXT :].sum() == 2 * sheets.ACROSS * sheets.CELL**2
    # A tall photograph is fitted, a label that the split lacks has an empty row, long labels are cut.
    grey = np.asarray(Image.open(tmp_path / "val.png").convert("L")) == 90
    assert grey[:, sheets.TEXT :].sum() == sheets.ACROSS * sheets.CELL * sheets.CELL // 2


def test_draw_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    image = png(np.full((8, 8), 0x5A00, dtype="uint16"))
    parts = {split: [Record(split, "s", "a", lambda: image, "")] for split in ("train", "val", "test")}
    shards.write(parts, 1, tmp_path)
    found = manifest.write(manifest.build(tmp_path), tmp_path / "manifest.parquet")
    sheets.render(tmp_path, found, "train", tmp_path / "s.png")
    grey = np.asarray(Image.open(tmp_path / "s.png").convert("L")) == 0x5A
    assert grey[:, sheets.TEXT :].sum() == sheets.CELL**2
