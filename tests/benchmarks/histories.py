"""Dataset versions of subjects that come and go, made up."""

from typing import Any

import numpy as np
import pyarrow as pa

PER_SUBJECT = 5
CHURN = 0.001
LABELS = ("tuberculosis", "normal")


class History:
    """Subjects that come and go over versions.

    Args:
        records: Of a version.
        versions: How many.
        branched: Every other version is of a branch that lacks 1 % of the subjects.
    """

    def __init__(self, records: int, versions: int, branched: bool = False) -> None:
        """Make them."""
        random = np.random.default_rng(0)
        subjects = records // PER_SUBJECT
        each = max(1, int(subjects * CHURN))
        total = subjects + each * (versions - 1)
        self.added = np.zeros(total, np.int32)
        self.removed = np.full(total, versions, np.int32)
        alive = np.arange(subjects)
        for version in range(1, versions):
            new = np.arange(subjects + each * (version - 1), subjects + each * version)
            leaving = random.choice(len(alive), each, replace=False)
            self.added[new], self.removed[alive[leaving]] = version, version
            alive = np.concatenate([np.delete(alive, leaving), new])
        numbers = random.permutation(total)  # a new subject is not the last in order
        self.names = np.array([f"PAT-{number:08}" for number in numbers], object)
        self.branched, self.versions = branched, versions

    def holds(self, version: int) -> Any:
        """Return for each subject whether a version has it."""
        held = (self.added <= version) & (self.removed > version)
        return held & (np.arange(len(held)) % 97 != 0) if self.branched and version % 2 else held

    def subjects(self, version: int) -> list[str]:
        """Return the subjects of a version."""
        return list(self.names[self.holds(version)])

    def manifest(self, version: int, schema: pa.Schema) -> pa.Table:
        """Return the manifest of a version."""
        names = np.repeat(np.sort(self.names[self.holds(version)].astype(str)), PER_SUBJECT)
        each = np.char.add(
            names, np.tile([f"-SCAN-{number:04}" for number in range(PER_SUBJECT)], len(names) // PER_SUBJECT)
        )
        count = len(names)
        label = np.resize(LABELS, count)
        columns = (names, each, np.full(count, "train/shard-000.parquet"), np.full(count, "train"), label)
        return pa.table([pa.array(column, pa.string()) for column in columns], schema=schema)
