"""How good a registered version is on given records: what `registry promote --by` can compare.

Yours to add to: a function of a loaded model and a table of records, and its name in `MEASURES`. Where a name ends in
`loss` or `error`, less is better.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas

BATCH = 1024  # images that are decoded at once

Model = Any
"""What `mlflow.pyfunc.load_model` returns: it runs the code that the version was logged with, not today's."""


def lower_is_better(name: str) -> bool:
    """Return whether less of a measure is better."""
    return name.endswith(("loss", "error"))


def accuracy(model: Model, records: pa.Table) -> float:
    """Return the share of records whose label the model tells, 0 to 1."""
    right = 0
    for frame in _frames(records):
        told = model.predict(frame[["image"]])["label"].astype(str)
        right += int((told == frame["label"]).sum())
    return right / len(records)


def error(model: Model, records: pa.Table) -> float:
    """Return the share of records whose label the model gets wrong, 0 to 1."""
    return 1 - accuracy(model, records)


def loss(model: Model, records: pa.Table) -> float:
    """Return the mean cross-entropy, nats; a label that the model does not know counts as the least float32."""
    # MLflow's predict tells the likeliest label only; the project's class behind it tells all probabilities.
    predictor = model._model_impl.predictor
    place = {label: index for index, label in enumerate(predictor.card.classes)}
    total = 0.0
    for frame in _frames(records):
        found = predictor.probabilities(frame["image"].tolist())
        given = [row[place[label]] if label in place else 0.0 for row, label in zip(found, frame["label"], strict=True)]
        total -= float(np.log(np.maximum(np.array(given, dtype=np.float64), np.finfo(np.float32).tiny)).sum())
    return total / len(records)


MEASURES: dict[str, Callable[[Model, pa.Table], float]] = {
    "test_acc": accuracy,
    "test_error": error,
    "test_loss": loss,
}


def _frames(records: pa.Table) -> "Iterator[pandas.DataFrame]":
    columns = records.select(["image", "label"])
    for start in range(0, len(records), BATCH):
        yield columns.slice(start, BATCH).to_pandas()
