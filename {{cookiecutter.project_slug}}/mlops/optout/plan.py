"""Where the records of subjects are now, and so what an opt-out has to do. It changes nothing."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..audit.audit import Audit
from ..audit.catalog_mlflow import RETRY, Run
from ..audit.manifests import Fetch, GoneError, fetched
from ..audit.policy import KNOWN
from ..config import load_platform, read_params
from ..files import read_json
from ..records.consent import PATH
from ..tracking import dvc_remote, mlflow_client
from ..tracking.git import git, paths, without_credentials

REGISTRY = (PATH.as_posix(), f"{PATH.as_posix()}.dvc")


@dataclass
class Dataset:
    """A dataset version that holds records of the subjects.

    Args:
        md5: DVC's hash of it.
        data_version: Its label, or the short hash.
        manifest_sha256: Digest of its manifest.
        shards: Files of it that hold the records, and how many each.
        objects: These files in the DVC remote; none when this clone's cache does not know the dataset.
    """

    md5: str
    data_version: str
    manifest_sha256: str
    shards: dict[str, int]
    objects: list[str]


@dataclass
class Plan:
    """What an opt-out meets.

    Args:
        subjects: Whom it is about.
        datasets: Versions of the dataset that hold their records.
        runs: Trainings that know them, and how: `direct`, or `inherited` by weights that they started from.
        versions: Registered versions that those made.
        numbers: Those of the project's model.
        aliases: What of them is in use: alias and version of the project's model.
        starts_from: The version that `params.yaml` makes a training start from, when it knows them.
        unknown: Runs and versions of which nobody can tell.
        changes: What else differs from the last commit in the work tree, and goes into the new version.
    """

    subjects: list[str]
    datasets: list[Dataset] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    starts_from: str = ""
    unknown: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it for the report."""
        return asdict(self)

    def text(self) -> Iterator[str]:
        """Give lines for people."""
        for one in self.datasets:
            records = sum(one.shards.values())
            yield f"dataset {one.data_version} ({one.md5}): {records} records in {len(one.shards)} of its files:"
            yield from (f"  {shard}: {many}" for shard, many in one.shards.items())
        for run in self.runs:
            yield f"run {run['title']} ({run['run']}): {run['exposure']}{', deleted' if run['deleted'] else ''}"
        yield from (f"version {version}" for version in self.versions)
        yield from (f"nobody can tell: {one}" for one in self.unknown)
        if not (self.runs or self.unknown):
            yield "no run knows them"

    def steps(self) -> Iterator[str]:
        """Give the steps that follow, for people."""
        yield "append the withdrawal to data/consent.csv"
        if self.starts_from:
            yield f"stop: params.yaml:train.init_from is {self.starts_from}, which knows them"
            return
        yield f"dvc repro{', with the other changes: ' + ', '.join(self.changes) if self.changes else ''}"
        for alias, number in self.aliases.items():
            yield f"registry promote <the new version> --to {alias}, in place of version {number}"
        yield "audit verify, audit deployed"


def make(audit: Audit, subjects: list[str]) -> Plan:
    """Find what knows the subjects.

    Args:
        audit: The runs, as they are now.
        subjects: Their ids.

    Raises:
        NoAnswerError: MLflow can't be reached.
    """
    found = audit.find(subjects)
    known: dict[str, dict[str, Any]] = {}
    for row in found.rows:
        if row["exposure"] in KNOWN:
            known.setdefault(row["run"], {key: row[key] for key in ("run", "title", "exposure", "deleted", "path")})
    runs = [run for run in audit.world.runs if run.id in known]
    versions = [one for one in audit.made if {run.id for run in audit.made[one]} & known.keys()]
    own = [one for one in versions if one.model == load_platform().project]
    changed = [entry[3:] for entry in paths(git("status", "--porcelain", "-z", "--no-renames"))]
    in_log = {doubt.alias: doubt.version for doubt in audit.world.doubts}
    logged = {alias: version.number for alias, version in in_log.items() if version and version in own}
    start = str((read_params().get("train") or {}).get("init_from") or "")
    return Plan(
        subjects,
        _datasets(audit, runs, subjects),
        [known[run.id] for run in runs],
        [str(one) for one in versions],
        [one.number for one in own],
        logged | {alias: one.number for one in own for alias in one.aliases},
        start if start in {f"models:/{one.model}/{one.number}" for one in versions} else "",
        [f"{row.get('run', row.get('served_by'))}: {'; '.join(row['path'])}" for row in found.unknown],
        [path for path in changed if not path.endswith(REGISTRY)],
    )


def _datasets(audit: Audit, runs: list[Run], subjects: list[str]) -> list[Dataset]:
    """Return the datasets that runs read which hold the subjects."""
    found = []
    for manifest in dict.fromkeys(run.manifest for run in runs if run.manifest):
        if shards := _shards(manifest, audit.world.places(manifest), subjects):
            for md5, label in (_labels(manifest) or {"": ""}).items():
                found.append(Dataset(md5, label, manifest, shards, _objects(md5, shards)))
    return found


def _labels(manifest: str) -> dict[str, str]:
    """Return the datasets of a manifest that MLflow knows, and their labels."""
    from mlflow.entities import ViewType

    asked = f"params.manifest_sha256 = '{manifest}'"
    with mlflow_client.translate_errors(RETRY):
        client = mlflow_client.client()
        # Deleted experiments too, which `mlflow.search_runs` leaves out.
        every = [one.experiment_id for one in mlflow_client.pages(partial(client.search_experiments, ViewType.ALL))]
        runs = list(mlflow_client.pages(partial(client.search_runs, every, asked, ViewType.ALL))) if every else []
    return {run.data.params.get("dataset_md5", ""): run.data.params.get("data_version", "") for run in runs}


def _objects(md5: str, shards: dict[str, int]) -> list[str]:
    """Return where the DVC remote has the shards, as DVC's list of the dataset in the cache says."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        listed = Path(repo.cache.local.oid_to_path(md5)) if md5 else Path()
        hashes = {one["relpath"]: one["md5"] for one in read_json(listed)} if listed.is_file() else {}
        address = without_credentials(dvc_remote.url(repo))
    return [f"{address}/files/md5/{hashes[one][:2]}/{hashes[one][2:]}" for one in shards if one in hashes]


def _shards(manifest: str, places: Iterable[Fetch], subjects: list[str]) -> dict[str, int]:
    """Return the shards of a dataset that hold the subjects, and how many of their records, from its manifest."""
    try:
        with fetched(manifest, places) as (file, _):
            asked = pq.read_table(file, columns=["path"], filters=[("subject_id", "in", subjects)])
    except GoneError as error:
        return {error.problem: 0}
    counts = asked["path"].value_counts().to_pylist()
    return {one["values"]: one["counts"] for one in sorted(counts, key=lambda one: str(one["values"]))}
