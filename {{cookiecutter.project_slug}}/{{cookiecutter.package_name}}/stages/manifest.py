"""Stage `manifest`: what is in `data/dataset`, as a table, counts and pictures. Run it with `dvc repro manifest`."""

import csv
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..data import manifest, sheets
from ..data.splits import SPLITS
from ..files import replacing, write_json


def main() -> None:
    """Make `data/manifest.parquet`, `reports/manifest.json`, `reports/labels.csv` and `reports/samples`.

    Raises:
        ProjectError: The dataset isn't there or is damaged.
    """
    dataset, reports = Path("data", "dataset"), Path("reports")
    found = manifest.write(manifest.build(dataset), Path("data", "manifest.parquet"))
    with replacing(reports / "samples") as samples:
        for split in tqdm(SPLITS, desc="Contact sheets", delay=2):
            sheets.draw(dataset, found, split, samples / f"{split}.png")
    _write_csv(reports / "labels.csv", found.counts)
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the lists.
    content = {
        "records": found.records,
        "subjects": found.subjects,
        "counts": found.counts,
        "sha256": [found.sha256],
    }
    write_json(reports / "manifest.json", content)
    print(f"{content['records']} records of {content['subjects']} subjects, see reports/samples")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
