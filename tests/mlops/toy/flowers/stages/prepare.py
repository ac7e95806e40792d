"""Stage `prepare`: forty plants, three flowers each; the length says little of a flower's label, the width all."""

import json
from collections.abc import Iterator
from functools import partial

from mlops import Record, read_records, with_consent, write_dataset


def flowers() -> Iterator[Record]:
    """Yield flowers whose width is 1 or 2, by label, and whose length crosses labels in a third of the plants."""
    for plant in range(40):
        for flower in range(3):
            wide = plant % 2
            long = wide if plant % 3 else 1 - wide
            content = json.dumps({"length": 3 + long + flower / 10, "width": 1 + wide + flower / 10}).encode()
            label, origin = ("narrow", "wide")[wide], f"plant {plant}, flower {flower}"
            yield Record(f"{plant:02}-{flower}", f"plant-{plant:02}", label, partial(bytes, content), origin)


def main() -> None:
    """Make `data/dataset`, a fifth of the plants each for validation and for the test."""
    allowed = with_consent(read_records(flowers(), "flowers"), "required")
    splits = {"val": (0,), "test": (1,), "train": (2, 3, 4)}
    parts = {
        split: [record for record in allowed.records if int(record.subject_id[-2:]) % 5 in rest]
        for split, rest in splits.items()
    }
    write_dataset(parts, 2, allowed)
