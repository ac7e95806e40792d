"""Where the records of subjects are now, and so what an opt-out has to do. It changes nothing."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audit.audit import Audit
from ..audit.index import ManifestMissingError, open_manifest
from ..audit.policy import KNOWN
from ..config import load_platform, read_params
from ..files import read_json
from ..records.consent import PATH
from ..tracking import dvc_remote
from ..tracking.git import git, paths, without_credentials


@dataclass
class Dataset:
    """A dataset version that holds records of the subjects."""

    md5: str  # DVC's hash
    data_version: str  # its label, or the short hash
    manifest_sha256: str
    shards: dict[str, int]  # files that hold the records, and how many each
    objects: list[str]  # these files in the DVC remote; empty if this clone's cache does not have the list


@dataclass
class Plan:
    """Everything affected by an opt-out."""

    subjects: list[str]
    datasets: list[Dataset] = field(default_factory=list)  # that hold their records
    runs: list[dict[str, Any]] = field(default_factory=list)  # that know them, and how
    versions: list[str] = field(default_factory=list)  # registered versions that those runs made
    numbers: list[int] = field(default_factory=list)  # of the versions of the project's model
    aliases: dict[str, int] = field(default_factory=dict)  # which of these versions are in use, by alias
    starts_from: str = ""  # `params.yaml:train.init_from`, if that version knows them
    unknown: list[str] = field(default_factory=list)  # runs and versions whose subjects can't be determined
    changes: list[str] = field(default_factory=list)  # other uncommitted files, which go into the new version

    def text(self) -> Iterator[str]:
        """Give what is affected, for people."""
        for dataset in self.datasets:
            files = f"{sum(dataset.shards.values())} records in {len(dataset.shards)} of its files"
            yield f"dataset {dataset.data_version} ({dataset.md5}): {files}:"
            yield from (f"  {shard}: {count}" for shard, count in dataset.shards.items())
        for run in self.runs:
            yield f"run {run['title']} ({run['run']}): {run['exposure']}{', deleted' if run['deleted'] else ''}"
        yield from (f"version {version}" for version in self.versions)
        yield from (f"unknown: {problem}" for problem in self.unknown)
        if not (self.runs or self.unknown):
            yield "no run knows them"

    def steps(self) -> Iterator[str]:
        """Give the steps to take, for people."""
        yield "append the withdrawal to data/consent.csv"
        if self.starts_from:
            yield f"stop: params.yaml:train.init_from is {self.starts_from}, which knows them"
            return
        yield f"dvc repro{', with the other changes: ' + ', '.join(self.changes) if self.changes else ''}"
        for alias, number in self.aliases.items():
            yield f"registry promote <the new version> --to {alias}, in place of version {number}"
        yield "audit verify, audit deployed"


def make_plan(audit: Audit, subjects: list[str]) -> Plan:
    """Find what knows the subjects; raise MlflowError if MLflow can't be reached."""
    report = audit.find(subjects)
    known: dict[str, dict[str, Any]] = {}
    for row in report.rows:
        if row["exposure"] in KNOWN:
            known.setdefault(row["run"], {key: row[key] for key in ("run", "title", "exposure", "deleted", "path")})
    runs = [run for run in audit.catalog.runs if run.id in known]
    versions = [version for version, made_by in audit.runs_of.items() if {run.id for run in made_by} & known.keys()]
    own = [version for version in versions if version.model == load_platform().project]
    logged = {issue.alias: each.number for issue in audit.catalog.issues for each in own if each == issue.version}
    init_from = str((read_params().get("train") or {}).get("init_from") or "")
    changed = [entry[3:] for entry in paths(git("status", "--porcelain", "-z", "--no-renames"))]
    manifests = dict.fromkeys(run.manifest for run in runs if run.manifest)
    return Plan(
        subjects,
        [dataset for manifest in manifests for dataset in _datasets(audit, manifest, subjects)],
        [known[run.id] for run in runs],
        [str(version) for version in versions],
        [version.number for version in own],
        logged | {alias: version.number for version in own for alias in version.aliases},
        init_from if init_from in {f"models:/{version.model}/{version.number}" for version in versions} else "",
        [f"{row.get('run', row.get('served_by'))}: {'; '.join(row['path'])}" for row in report.unknown],
        [path for path in changed if not path.endswith((PATH.as_posix(), f"{PATH.as_posix()}.dvc"))],
    )


def _datasets(audit: Audit, manifest: str, subjects: list[str]) -> Iterator[Dataset]:
    """Give the datasets with this manifest, if it holds the subjects, or can't be read."""
    import pyarrow.parquet as pq
    from dvc.repo import Repo

    try:
        with open_manifest(manifest, audit.catalog.manifest_sources(manifest)) as (file, _):
            rows = pq.read_table(file, columns=["path"], filters=[("subject_id", "in", subjects)])
        shards = dict(sorted(Counter(rows["path"].to_pylist()).items()))
    except ManifestMissingError as error:
        shards = {error.problem: 0}
    if shards:
        labels = {run.dataset_md5: run.data_version for run in audit.catalog.runs if run.manifest == manifest}
        for md5, label in labels.items():
            with Repo(os.getcwd()) as repo:
                listing = Path(repo.cache.local.oid_to_path(md5)) if md5 else Path()
                hashes = {entry["relpath"]: entry["md5"] for entry in read_json(listing)} if listing.is_file() else {}
                folder = f"{without_credentials(dvc_remote.url(repo))}/files/md5"
            objects = [f"{folder}/{hashes[shard][:2]}/{hashes[shard][2:]}" for shard in shards if shard in hashes]
            yield Dataset(md5, label, manifest, shards, objects)
