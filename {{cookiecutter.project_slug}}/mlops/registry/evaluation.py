"""How good a model is on records that it may be measured on: not those it has seen, and none without consent today."""

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract import Metric, known_metrics, package_name
from ..errors import ProjectError
from ..files import read_json
from ..records.consent import Registry as Consent
from ..tracking.dvc_remote import ArtifactMissingError, restore
from ..tracking.git import exists
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import STATUS
from .aliases import Registry
from .predictions import Predict
from .versions import TAG_RUN_PREFIX

MANIFEST, FACTS = "data/manifest.parquet", "reports/train/lineage.json"
BATCH = 1024  # records that are predicted at once


class IncomparableError(ProjectError):
    """A version can't be measured fairly: it, its data or what it has seen isn't known, or its rows lack `scores`."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of N records; it knows K labels, those of the records included."""

    record_ids: list[str]
    subject_ids: list[str]
    classes: tuple[str, ...]
    actual: np.ndarray  # (N,) int64, positions in `classes`
    probabilities: np.ndarray  # (N, K) float32
    has_scores: bool  # False: it told labels alone, which have the probability 1 here

    @property
    def labels(self) -> list[str]:
        """Return the actual label of each record."""
        return [self.classes[position] for position in self.actual]


def find_metric(name: str, prefix: str = "") -> Metric:
    """Return a metric by its name, `prefix` before it; raise ProjectError, which lists those that there are."""
    if (metric := known_metrics().get(name.removeprefix(prefix))) is None or not name.startswith(prefix):
        names = [f"{prefix}{known}" for known in known_metrics()]
        problem = f"there is no metric {name!r} (known: {', '.join(names)})"
        raise ProjectError(problem, f"take one of these, or write it: {package_name()}/interface.py:METRICS")
    return metric


def measure(predictions: Predictions, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return metrics of predictions by name; raise IncomparableError for one that needs scores where there are none."""
    metrics = list(metrics)
    if lacking := [metric.name for metric in metrics if metric.needs_probabilities and not predictions.has_scores]:
        names = [metric.name for metric in known_metrics().values() if not metric.needs_probabilities]
        raise IncomparableError(
            f"the model gives labels without scores, and {', '.join(lacking)} needs the probability of each label",
            f"take a metric that does not: {', '.join(names)}",
        )
    return {metric.name: metric.function(predictions.actual, predictions.probabilities) for metric in metrics}


def predict(model: Predict, records: pa.Table) -> Predictions:
    """Let a model predict records, a table with the columns of `shards.SCHEMA`, in order."""
    return predict_batches(model, records.to_batches(BATCH))


def predict_batches(model: Predict, batches: Iterable[pa.RecordBatch]) -> Predictions:
    """Return what `predict` does, for records that need not fit into memory; of each, there is at least one."""
    ids: dict[str, list[str]] = {"record_id": [], "subject_id": [], "label": []}
    predicted, known, parts = list[str](), list[str](), list[np.ndarray]()
    for batch in batches:
        rows = model(batch["image"].to_pylist())
        for column, texts in ids.items():
            texts += batch[column].to_pylist()
        predicted += [str(row["label"]) for row in rows]
        if "scores" in rows[0]:
            known = known or list(rows[0]["scores"])
            parts.append(np.array([[row["scores"][label] for label in known] for row in rows], np.float32))
    labels = ids["label"]
    classes = (*known, *sorted({*labels, *([] if known else predicted)}.difference(known)))
    position = {label: index for index, label in enumerate(classes)}
    probabilities = np.zeros((len(labels), len(classes)), np.float32)
    if known:
        probabilities[:, : len(known)] = np.concatenate(parts)
    else:
        probabilities[np.arange(len(labels)), [position[label] for label in predicted]] = 1
    actual = np.array([position[label] for label in labels], np.int64)
    return Predictions(ids["record_id"], ids["subject_id"], classes, actual, probabilities, bool(known))


def fair_part(records: pa.Table, seen: Collection[str], today: Consent | None) -> tuple[pa.Table, int, int]:
    """Return the records of subjects that are not `seen` and consent `today`, and how many are seen, do not consent.

    `today` is None where no consent is required. A record that is both counts as seen.
    """
    subjects = records["subject_id"].to_pylist()
    unseen = [subject not in seen for subject in subjects]
    fair = [new and (today is None or today.allows(subject)) for new, subject in zip(unseen, subjects, strict=True)]
    return records.filter(pa.array(fair, pa.bool_())), len(records) - sum(unseen), sum(unseen) - sum(fair)


def seen_subjects(registry: Registry, version: StoredVersion) -> frozenset[str]:
    """Return the subjects that a version trained on, or was chosen by (val), itself or through its parents."""
    with restored(version, MANIFEST, FACTS) as folder:
        return seen_below(folder, f"version {version.version}", lambda: registry)


def seen_below(folder: Path, name: str, registry: Callable[[], Registry]) -> frozenset[str]:
    """Return what `seen_subjects` does, for the model `name` of the training whose files are below a folder.

    Raises:
        IncomparableError: It started from a model that is not in the registry, which is asked for parents only.
    """
    rows, facts = pq.read_table(folder / MANIFEST, partitioning=None), read_json(folder / FACTS)
    seen = frozenset(rows.filter(pc.field("split") != "test")["subject_id"].to_pylist())
    for run in facts["parents"]:
        parents = [parent for parent in registry().versions.values() if TAG_RUN_PREFIX + run in parent.tags]
        if not parents:
            problem = f"{name} started from run {run}, which is not registered (any more)"
            raise IncomparableError(f"{problem}: nobody can tell what it has seen", STATUS)
        seen |= seen_subjects(registry(), parents[0])
    return seen


def result_commit(version: StoredVersion) -> str:
    """Return the commit that pins a version's data and results; raise IncomparableError if this clone has none."""
    commit = version.tags.get("result_commit", "")
    if not commit or not exists(commit):
        problem = f"this clone lacks the commit of {version.name} version {version.version}, {commit[:10]}"
        fix = "git fetch --tags origin; before that, where it was registered: python -m mlops lineage push"
        if not commit:
            problem = f"{version.name} version {version.version} names no commit: no stage register made it"
            fix = "take one that has a commit: python -m mlops registry list --json"
        raise IncomparableError(problem, fix)
    return commit


@contextlib.contextmanager
def restored(version: StoredVersion, *paths: str) -> Iterator[Path]:
    """Give a temporary folder with files as they were when a version was registered, from DVC's cache or remote."""
    commit = result_commit(version)
    with tempfile.TemporaryDirectory() as folder:
        try:
            restore(commit, paths, Path(folder))
        except ArtifactMissingError as error:
            raise IncomparableError(f"version {version.version}: {error.problem}", error.fix) from error
        if missing := [path for path in paths if not Path(folder, path).exists()]:
            problem = f"commit {commit[:10]} of version {version.version} has no {', '.join(missing)}"
            raise IncomparableError(problem, "take a version that has it: python -m mlops registry list")
        yield Path(folder)
