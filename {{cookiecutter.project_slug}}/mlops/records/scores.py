"""What a model says of records, as a Parquet file: the same predictions are the same bytes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import atomic_write


def write_scores(
    path: Path,
    record_ids: Sequence[str],
    subject_ids: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
) -> None:
    """Write N predictions in the order of `record_ids`, whole or not at all.

    The columns are `record_id`, `subject_id`, `label`, `predicted` (texts) and `scores` (K float32 in each row, in the
    order of `classes`, which are in the schema's metadata as JSON). It names subjects, so it is for DVC, not for Git.

    Args:
        path: A `.parquet` file, which is replaced.
        record_ids: (N,).
        subject_ids: (N,).
        labels: (N,), the actual ones.
        classes: (K,), the labels that the columns of `probabilities` are for.
        probabilities: (N, K).
    """
    scores = pa.array(np.ascontiguousarray(probabilities, np.float32).ravel())
    columns = {
        "record_id": pa.array(record_ids, pa.string()),
        "subject_id": pa.array(subject_ids, pa.string()),
        "label": pa.array(labels, pa.string()),
        "predicted": pa.array(list(classes), pa.string()).take(pa.array(probabilities.argmax(1))),
        "scores": pa.FixedSizeListArray.from_arrays(scores, len(classes)),
    }
    table = pa.table(columns).sort_by("record_id").replace_schema_metadata({"classes": json.dumps(list(classes))})
    with atomic_write(path) as new:
        pq.write_table(table, new, compression="zstd")
