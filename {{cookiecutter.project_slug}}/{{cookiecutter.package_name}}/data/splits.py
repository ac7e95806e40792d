"""Which of train, val and test a record belongs to: decided by its subject alone.

A draw by hash needs no memory and no order. Take a subject out, or add one, and nobody else moves; so two versions of
a dataset can be compared on the records that they share.
"""

import hashlib
from collections.abc import Sequence

from mlops import ProjectError, Record

SPLITS = ("train", "val", "test")


def uniform_hash(*words: str) -> float:
    """Return a number in [0, 1), always the same for the same words."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(subject_id: str, salt: str, val: float, test: float) -> str:
    """Return the split of a subject; `val` and `test` are fractions of all subjects."""
    number = uniform_hash(salt, subject_id)
    return "test" if number < test else "val" if number < test + val else "train"


def subsample(records: Sequence[Record], fraction: float) -> list[Record]:
    """Keep about this fraction of the records; those of 5 % are all among those of 10 %."""
    return [record for record in records if uniform_hash("fraction", record.record_id) < fraction]


def split(records: Sequence[Record], salt: str, val: float, test: float) -> dict[str, list[Record]]:
    """Part records into train, val and test.

    Raises:
        ProjectError: A part would be empty.
    """
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        parts[split_of(record.subject_id, salt, val, test)].append(record)
    if empty := [name for name in SPLITS if not parts[name]]:
        subjects = len({record.subject_id for record in records})
        raise ProjectError(
            f"no record falls into {' and '.join(empty)} with salt {salt!r}, val {val} and test {test}: "
            f"{len(records)} records of {subjects} subjects are left",
            "try another params.yaml:split.salt, or raise split.val, split.test or data.fraction",
        )
    return parts
