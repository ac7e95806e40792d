"""Is a version as good as the champion? Both answer the same records.

Records that one of the two has trained on, and those of subjects who have no consent today, count for neither. The
metrics are those of the team's `interface.compare`.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract import interface
from ..errors import ProjectError
from ..files import read_json
from ..records import consent, shards
from ..tracking.dvc_remote import ArtifactMissingError, restore
from ..tracking.git import exists
from .aliases import Registry
from .versions import TAG_RUN_PREFIX

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TEST_SET, MANIFEST, FACTS = "data/dataset/test", "data/manifest.parquet", "reports/train/lineage.json"
BATCH = 1024  # images that are decoded at once
REPAIR = "python -m mlops mirror repair"


def metric_names() -> list[str]:
    """Return the metrics that `registry promote --by` takes: those of the team's `interface.compare`."""
    return [f"test_{name}" for name in interface().compare(["a"], ["a"])]


class IncomparableError(ProjectError):
    """Two versions can't be compared; `--anyway` goes on without."""


@dataclass(frozen=True)
class Comparison:
    """Both versions on one test set."""

    test_set_of: int  # a version
    records: int  # that both answered
    seen: int  # records left out, since one of the two has trained on their subject, or was chosen by it (val)
    without_consent: int  # more records left out
    candidate: float
    champion: float

    def __str__(self) -> str:
        return (
            f"{self.candidate:.4f} against {self.champion:.4f} on the test set of version {self.test_set_of} "
            f"({self.records} records; left out: {self.seen} that one of them has trained on, "
            f"{self.without_consent} without consent)"
        )


def compare(registry: Registry, candidate: int, champion: int, by: str) -> list[Comparison]:
    """Measure two versions on the test set of the first, and on that of the second where it is another.

    Raises:
        Incomparable: A version, its data or what it has seen aren't to be had, or nothing is left that is fair to both.
        ProjectError: Today's consent registry isn't there, or is malformed.
    """
    if champion not in registry.versions:
        raise IncomparableError(f"{registry.name} version {champion} is not in MLflow any more", REPAIR)
    versions = [registry.versions[number] for number in (candidate, champion)]
    seen = frozenset[str]().union(*(_seen(registry, version) for version in versions))
    rounds = [_fair(version, seen) for version in versions]
    if rounds[0][0].equals(rounds[1][0]):
        del rounds[1]
    tables = [left for left, *_ in rounds]
    figures = zip(*(_measure(f"models:/{registry.name}/{one.version}", tables, by) for one in versions), strict=True)
    return [
        Comparison(int(version.version), len(left), *out, *pair)
        for version, (left, *out), pair in zip(versions, rounds, figures, strict=False)
    ]


def _fair(version: "ModelVersion", seen: frozenset[str]) -> tuple[pa.Table, int, int]:
    """Return the records of a test set that are fair to both, and how many are not: seen, without consent."""
    with _pinned(version, TEST_SET) as folder:
        test = shards.read(folder / TEST_SET)
    today = consent.read(consent.PATH) if version.tags.get("consent_sha256") != consent.NOT_REQUIRED else None
    subjects = test["subject_id"].to_pylist()
    unseen = [subject not in seen for subject in subjects]
    fair = [new and (today is None or today.allows(subject)) for new, subject in zip(unseen, subjects, strict=True)]
    out = (len(test) - sum(unseen), sum(unseen) - sum(fair))
    if not any(fair):
        raise IncomparableError(
            f"of the {len(test)} records in the test set of version {version.version} none is left: one of the two has "
            f"trained on {out[0]}, and {out[1]} more have no consent",
            "compare versions of the same split (params.yaml:split)",
        )
    return test.filter(pa.array(fair)), *out


def _seen(registry: Registry, version: "ModelVersion") -> frozenset[str]:
    """Return whom a version has trained on, or was chosen by (val), itself or through what it started from."""
    with _pinned(version, MANIFEST, FACTS) as folder:
        rows, facts = pq.read_table(folder / MANIFEST, partitioning=None), read_json(folder / FACTS)
    seen = frozenset(rows.filter(pc.field("split") != "test")["subject_id"].to_pylist())
    for run in facts["parents"]:
        parents = [one for one in registry.versions.values() if TAG_RUN_PREFIX + run in one.tags]
        if not parents:
            problem = f"version {version.version} started from run {run}, which is not registered (any more)"
            raise IncomparableError(f"{problem}: nobody can tell what it has seen", REPAIR)
        seen |= _seen(registry, parents[0])
    return seen


def result_commit(version: "ModelVersion") -> str:
    """Return the commit that pins a version's data and results.

    Raises:
        Incomparable: The version names none, or this clone does not have it.
    """
    commit = version.tags.get("result_commit", "")
    if not commit or not exists(commit):
        raise IncomparableError(
            f"this clone lacks the commit of {version.name} version {version.version}, {commit[:10] or 'not told'}",
            "git fetch --tags origin; before that, where it was registered: python -m mlops lineage push",
        )
    return commit


@contextlib.contextmanager
def _pinned(version: "ModelVersion", *paths: str) -> Iterator[Path]:
    """Give a temporary folder with files as they were when a version was registered, from DVC's cache or remote."""
    commit = result_commit(version)
    with tempfile.TemporaryDirectory() as folder:
        try:
            restore(commit, paths, Path(folder))
        except ArtifactMissingError as error:
            raise IncomparableError(f"version {version.version}: {error.problem}", error.fix) from error
        if lacks := [path for path in paths if not Path(folder, path).exists()]:
            problem = f"commit {commit[:10]} of version {version.version} has no {', '.join(lacks)}"
            raise IncomparableError(problem, f"git show {commit[:10]}:dvc.lock")
        yield Path(folder)


def _measure(uri: str, tables: list[pa.Table], by: str) -> list[float]:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            model = mlflow.pyfunc.load_model(uri, dst_path=folder)
            return [_score(model, records, by.removeprefix("test_")) for records in tables]
        except Exception as error:  # it runs code of its own, which raises what it likes
            fix = f"see that MLflow answers, and what it needs: mlflow.pyfunc.get_model_dependencies('{uri}')"
            raise IncomparableError(f"{uri} gives no {by}: {error}", fix) from error


def _score(model: Any, records: pa.Table, name: str) -> float:
    predicted: list[str] = []
    for batch in records.select(["image"]).to_batches(BATCH):
        predicted += model.predict(batch.to_pandas())["label"].astype(str).tolist()
    return interface().compare(records["label"].to_pylist(), predicted)[name]
