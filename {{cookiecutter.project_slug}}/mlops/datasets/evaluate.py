"""Measure a model on a dataset that it need not come from: nothing is trained, and nothing recorded.

Records of subjects that the model has trained on do not count, nor do those of subjects without consent today.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from ..contract import known_metrics
from ..errors import ProjectError
from ..files import read_json
from ..pipeline import training_stage
from ..records import consent, shards
from ..records.manifest import digest_of
from ..registry import aliases, evaluation
from ..registry.evaluation import MANIFEST, IncomparableError, Predictions
from ..registry.predictions import open_model
from ..tracking import dvc_remote
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.run_context import DATASET
from ..tracking.run_files import read_facts
from . import versions

VERSION = re.compile(r"(models:/(?P<name>[^/@]+)[/@])?(?P<version>[\w-]+)")


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a split."""

    model: str  # as it was named
    dataset: str  # as it was named
    split: str
    predictions: Predictions  # of the records that count
    seen: int | None  # records of subjects that it has trained on, or was chosen by (val); None: nobody can tell
    without_consent: int  # other records, which are left out

    @property
    def metrics(self) -> dict[str, float]:
        """Return all metrics that are defined, by name."""
        count, has_scores = len(self.predictions.classes), self.predictions.has_scores
        metrics = [each for each in known_metrics().values() if has_scores or not each.needs_probabilities]
        return evaluation.measure(self.predictions, [each for each in metrics if count >= each.labels])

    def row(self) -> dict[str, Any]:
        """Return what `evaluate` says of it."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "records": len(self.predictions.actual),
            "subjects": len(set(self.predictions.subject_ids)),
            "seen": self.seen,
            "without_consent": self.without_consent,
            "metrics": self.metrics,
        }


def evaluate(model: str, on: str = DATASET, split: str = "test", include_seen: bool = False) -> Evaluation:
    """Measure a model on a split of a dataset.

    Args:
        model: The directory of the stage that trains, or a version: its number, alias, or `models:/<name>/<number>`.
        on: A dataset's directory, a version of the dataset as `data show` takes it, or a version of the model that has
            `models:/` or an alias: its own dataset.
        split: Such as `test`.
        include_seen: Records that the model has seen count too.

    Raises:
        ProjectError: One of them isn't there, no record is left, or nobody can tell what the model has seen.
    """
    version = None if Path(model).is_dir() else _find_version(model)
    known, count, without_consent = _seen(model, version, include_seen), 0, 0
    predict = open_model(f"models:/{version.name}/{version.version}" if version else model)
    with _open(on, split) as (folder, is_consent_required):
        today = consent.read(consent.PATH) if is_consent_required else None

        def fair_batches() -> Iterator[pa.RecordBatch]:
            nonlocal count, without_consent
            for file in tqdm(shards.shard_files(folder), "Evaluating", unit=" shards", delay=2):
                records, _, refused = evaluation.fair_part(shards.read_shard(file), (), today)
                unseen, seen, _ = evaluation.fair_part(records, known or (), None)
                count, without_consent = count + seen, without_consent + refused
                yield from (records if include_seen else unseen).to_batches(evaluation.BATCH)

        predictions = evaluation.predict_batches(predict, fair_batches())
    if not predictions.record_ids:
        raise ProjectError(
            f"of the records in {split} of {on} none is left: {without_consent} have no consent today, {count} are of "
            "subjects that the model has trained on, or was chosen by",
            "take another split or dataset; or count what it has seen: --include-seen",
        )
    return Evaluation(model, on, split, predictions, None if known is None else count, without_consent)


def _find_version(text: str) -> StoredVersion:
    """Return a version of the project's model; raise ProjectError if there is none."""
    if not (parts := VERSION.fullmatch(text)):
        raise ProjectError(f"there is no directory {text}, and it names no version", f"{aliases.VERB} list")
    registry = aliases.read()
    if parts["name"] not in (None, registry.name):
        problem = f"{text} is not a version of {registry.name}, so nobody can tell what it has seen"
        raise ProjectError(problem, f"{aliases.VERB} list")
    return registry.find(parts["version"])


def _seen(model: str, version: StoredVersion | None, may_be_unknown: bool) -> frozenset[str] | None:
    """Return the subjects that a model has seen; None if that isn't known, and may be so."""
    try:
        if version:
            return evaluation.seen_subjects(aliases.read(), version)
        is_out = Path(os.path.relpath(model)).as_posix() in training_stage().outs
        if not is_out or digest_of(Path(MANIFEST)) != read_facts()["manifest_sha256"]:
            problem = f"{model} is not what the training stage made of the dataset of {MANIFEST}"
            raise IncomparableError(f"{problem}: nobody can tell what it has seen", "name a registered version")
        return evaluation.seen_below(Path(), model, aliases.read)
    except ProjectError as error:
        if may_be_unknown:
            return None
        raise ProjectError(error.problem, f"{error.fix}; or count what it may have seen: --include-seen") from error


@contextmanager
def _open(on: str, split: str) -> Iterator[tuple[Path, bool]]:
    """Give the folder of a split, and whether its subjects must consent."""
    if on in (DATASET, versions.WORKSPACE) or Path(on).is_dir():
        report = Path("reports/prepare.json")
        yield (
            Path(DATASET if on == versions.WORKSPACE else on, split),
            _requires_consent(read_json(report) if report.exists() else {}),
        )
        return
    is_model = on.startswith("models:") or on in aliases.ALIASES
    version = versions.find(evaluation.result_commit(_find_version(on)) if is_model else on)
    with tempfile.TemporaryDirectory() as folder:
        dvc_remote.restore(version.commit, (f"{DATASET}/{split}",), Path(folder))
        yield Path(folder, DATASET, split), _requires_consent(version.report("prepare"))


def _requires_consent(report: dict[str, Any]) -> bool:
    """Return whether a dataset needs consent, by the report of the stage that made it: in doubt, it does."""
    return bool(report.get("consent_sha256") != [consent.NOT_REQUIRED])
