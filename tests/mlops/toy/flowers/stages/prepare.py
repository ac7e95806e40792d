"""Stage `prepare`: forty plants, three flowers each; the length says little of a flower's label, the width all."""

import json
import sys
from collections.abc import Iterator

from mlops import Record, read_records, require_consent, write_dataset

SPLITS = ("val", "test", "train", "train", "train")


def records() -> Iterator[Record]:
    """Yield the flowers, and their splits: a fifth of the plants each for validation and for the test."""
    for plant in range(40):
        for flower in range(3):
            name, label = f"{plant:02}-{flower}", ("narrow", "wide")[plant % 2]
            yield Record(name, f"plant-{plant:02}", label, f"{plant} {flower}", name, split=SPLITS[plant % 5])


def read(content: str) -> bytes:
    """Return a flower, whose width is 1 or 2, by label; its length crosses labels in a third of the plants."""
    plant, flower = map(int, content.split())
    wide = plant % 2
    long = wide if plant % 3 else 1 - wide
    return json.dumps({"length": 3 + long + flower / 10, "width": 1 + wide + flower / 10}).encode()


def main() -> None:
    """Make `data/dataset`."""
    with read_records(sys.modules[__name__]) as flowers:
        require_consent(flowers, "required")
        write_dataset(flowers, 2)
